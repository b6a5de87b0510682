/* Stores of pages for benchmarks: a server of each kind on loopback, or a folder. */
#ifndef CIS_BENCH_SERVERS_H
#define CIS_BENCH_SERVERS_H

#include <sys/types.h>

struct bench_server {
	const char *kind; /* "file", "valkey", "memcached" */
	pid_t pid;
	char folder[200], url[300];
};

/** bench_server_start() - a new and empty one, on the CPUs of the caller; exits with a message when it cannot. */
void bench_server_start(struct bench_server *s, const char *kind);
void bench_server_stop(struct bench_server *s);

#endif
