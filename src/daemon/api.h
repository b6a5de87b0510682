/*
 * The control interface: HTTP/1.1 on a unix socket, by libmicrohttpd, driven by the control thread's loop.  doc/api.md is
 * what it promises.
 */
#ifndef CIS_DAEMON_API_H
#define CIS_DAEMON_API_H

#include "daemon/engine.h"

struct cis_api;

/** cis_api_create() - @listen_fd is the listening control socket, its own from now on, also on failure. */
int cis_api_create(struct cis_engine *e, int listen_fd, struct cis_api **ret, struct cis_error *err);
void cis_api_destroy(struct cis_api *api);

/**
 * cis_api_let_go() - another engine serves: accept nobody any more, answer what has been asked, cut off who waits
 *
 * cis_api_is_idle(): nobody is connected any more.
 */
void cis_api_let_go(struct cis_api *api);
bool cis_api_is_idle(const struct cis_api *api);

/** cis_api_fd() - to be polled; cis_api_run() then.  cis_api_timeout_ms(): or after that long, -1 for never. */
int cis_api_fd(const struct cis_api *api);
int cis_api_timeout_ms(const struct cis_api *api);
void cis_api_run(struct cis_api *api);

#endif
