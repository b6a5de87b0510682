#include "control.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/sock.h"
#include "snapshots.h"

static char *read_all(int fd)
{
	size_t len = 0, room = 4096;
	char *text = malloc(room);

	for (ssize_t n = 1; text && n > 0; len += n > 0 ? (size_t)n : 0) {
		if (room - len < 2048)
			text = realloc(text, room *= 2);
		n = text ? read(fd, text + len, room - len - 1) : -1;
	}
	if (text)
		text[len] = 0;
	return text;
}

int bench_call(const struct bench_daemon *d, const char *method, const char *path, const char *body, char **ret)
{
	char *text, *end;
	int fd, status = 0;

	if (cis_sock_connect(d->control, SOCK_STREAM, &fd, NULL))
		return 0;
	dprintf(fd, "%s %s HTTP/1.1\r\nHost: cistern\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", method, path,
		body ? strlen(body) : 0, body ? body : "");
	text = read_all(fd);
	close(fd);
	if (text)
		sscanf(text, "HTTP/1.%*d %d", &status);
	end = text ? strstr(text, "\r\n\r\n") : NULL;
	if (ret && end && status)
		*ret = strdup(end + 4);
	free(text);
	return status;
}

void bench_put(const struct bench_daemon *d, const char *id, const char *image)
{
	char path[128], body[PATH_MAX + 256], *text = NULL;

	snprintf(path, sizeof(path), "/v1/guests/%s", id);
	snprintf(body, sizeof(body), "{\"image\": \"%s\", \"fill\": \"none\"}", image);
	if (bench_call(d, "PUT", path, body, &text) != 201)
		bench_die(path, text ? text : "no answer");
	free(text);
}

void bench_wait(const struct bench_daemon *d, const char *id, const char *state)
{
	char path[160], *text = NULL;

	snprintf(path, sizeof(path), "/v1/guests/%s/wait?state=%s&timeout_ms=60000", id, state);
	if (bench_call(d, "GET", path, NULL, &text) != 200)
		bench_die(path, text ? text : "no answer");
	free(text);
}

int bench_connect(const struct bench_daemon *d, const char *id, uint64_t hva, uint64_t bytes, int uffd)
{
	char path[PATH_MAX], json[200];
	const char *slash = strrchr(d->control, '/');
	struct cis_error err;
	int fd, n;

	snprintf(path, sizeof(path), "%.*s/guests/%s.sock", (int)(slash - d->control), d->control, id);
	if (cis_sock_connect(path, SOCK_STREAM, &fd, &err))
		bench_die(path, err.text);
	n = snprintf(json, sizeof(json), "[{\"base_host_virt_addr\": %llu, \"size\": %llu, \"offset\": 0, \"page_size\": 4096, "
		     "\"page_size_kib\": 4096}]", (unsigned long long)hva, (unsigned long long)bytes);
	if (cis_sock_send_all(fd, json, (size_t)n, &uffd, 1))
		bench_die(path, "cannot send");
	return fd;
}
