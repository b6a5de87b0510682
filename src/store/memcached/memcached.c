#include "store/memcached/memcached.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/layer.h"
#include "store/pages.h"

static const struct cis_hosts_syntax syntax = { "memcached:", 11211, false };

static int parse(const char *rest, struct cis_hosts *ret, struct cis_error *err)
{
	const char *end;
	int rc = cis_hosts_parse(&syntax, rest, ret, &end, err);

	if (rc || !*end)
		return rc;
	cis_hosts_fini(ret);
	return cis_hosts_refuse(&syntax, rest, end, "nothing is expected here", err);
}

static uint64_t mc_drive(struct cis_remote *r, uint64_t now)
{
	struct mc *mc = (struct mc *)r;
	uint64_t at = UINT64_MAX;

	for (unsigned i = 0; i < mc->nr; i++)
		for (int lane = 0; lane < MC_LANES; lane++) {
			uint64_t next = mc_conn_drive(&mc->server[i].conn[lane], now);

			at = next < at ? next : at;
		}
	return at;
}

static void mc_event(struct cis_remote *r, void *which, uint32_t events)
{
	mc_conn_event(which, events);
}

static void mc_close(struct cis_store *store)
{
	struct mc *mc = (struct mc *)store;

	if (!mc)
		return;
	for (unsigned i = 0; i < mc->nr; i++)
		for (int lane = 0; lane < MC_LANES; lane++)
			mc_conn_close(&mc->server[i].conn[lane]);
	cis_remote_fini(&mc->remote);
	free(mc->server);
	free(mc);
}

static const struct cis_store_ops mc_ops = {
	.ops_size = sizeof(struct cis_store_ops),
	.name = "memcached",
	.submit = cis_remote_submit,
	.fd = cis_remote_fd,
	.reap = cis_remote_reap,
	.wait = cis_remote_wait,
	.cancel = cis_remote_cancel,
	.close = mc_close,
};

static const struct cis_remote_kind mc_kind = {
	.item_bytes = sizeof(struct mc_item),
	.queue = mc_item_queue,
	.let_go = mc_item_let_go,
	.event = mc_event,
	.drive = mc_drive,
};

static uint64_t hash_of(const struct cis_host *host)
{
	uint64_t x = host->port;

	for (const char *at = host->name; *at; at++)
		x = cis_layer_random(x ^ (unsigned char)*at);
	return x;
}

static int make_servers(struct mc *mc, const struct cis_hosts *hosts)
{
	mc->server = calloc(hosts->nr, sizeof(*mc->server));
	if (!mc->server)
		return -ENOMEM;
	mc->nr = hosts->nr;
	for (unsigned i = 0; i < mc->nr; i++) {
		mc->server[i].mc = mc;
		mc->server[i].host = hosts->host[i];
		mc->server[i].hash = hash_of(&hosts->host[i]);
		for (int lane = 0; lane < MC_LANES; lane++)
			mc_conn_init(&mc->server[i].conn[lane], &mc->server[i], (enum mc_lane)lane);
	}
	return 0;
}

static int mc_open(const char *rest, struct mc **ret, struct cis_error *err)
{
	struct cis_hosts hosts;
	struct mc *mc;
	int rc = parse(rest, &hosts, err);

	if (rc)
		return rc;
	mc = calloc(1, sizeof(*mc));
	rc = mc ? cis_remote_init(&mc->remote, &mc_ops, &mc_kind) : -ENOMEM;
	if (!rc)
		rc = make_servers(mc, &hosts);
	cis_hosts_fini(&hosts);
	if (rc) {
		mc_close(mc ? &mc->remote.store : NULL);
		return cis_fail(err, -rc, "store memcached: %s", strerror(-rc));
	}
	*ret = mc;
	return 0;
}

/* A probe. */

/* Return: -EINPROGRESS: not known yet. */
static int check_server(const struct mc_server *s, struct cis_error *err)
{
	const struct mc_info *info = &s->info;
	char name[CIS_HOST_TEXT_MAX];

	cis_host_text(s->host.name, s->host.port, name);
	if (s->conn[MC_PUTS].state != MC_READY)
		return -EINPROGRESS;
	if (!info->asked)
		return cis_fail(err, EPERM, "memcached %s: does not say whether it drops pages when its memory is full (stats settings)", name);
	if (!mc_info_safe(info))
		return cis_fail(err, EPERM, "memcached %s: drops pages by itself%s%s%s: start it with -M -o slab_automove=0%s", name,
				info->evicts ? " when its memory is full" : "",
				info->moves ? info->evicts ? ", and when it moves memory between sizes" : " when it moves memory between sizes" : "",
				info->extends ? " when its file is full" : "", info->extends ? " and without ext_path" : "");
	return 0;
}

static int check_all(const struct mc *mc, struct cis_error *err)
{
	int rc, all = 0;

	for (unsigned i = 0; i < mc->nr; i++) {
		rc = check_server(&mc->server[i], err);
		if (rc && rc != -EINPROGRESS)
			return rc;
		all = rc ? rc : all;
	}
	return all;
}

static int pages_probe(const char *rest, uint64_t timeout_ns, struct cis_error *err)
{
	uint64_t end = cis_now_ns(NULL) + timeout_ns, now;
	struct cis_error found = { 0 };
	struct mc *mc;
	int rc = mc_open(rest, &mc, err);

	if (rc)
		return rc;
	mc->probing = true;
	cis_remote_pump(&mc->remote);
	while ((rc = check_all(mc, &found)) == -EINPROGRESS && (now = cis_now_ns(NULL)) < end) {
		poll(&(struct pollfd){ .fd = mc->remote.epoll, .events = POLLIN }, 1, (int)((end - now) / MC_MS) + 1);
		cis_store_reap(&mc->remote.store);
	}
	if (rc == -EINPROGRESS)
		rc = cis_fail(&found, ETIMEDOUT, "%s", mc->why.code ? mc->why.text : "memcached: there was no answer in time");
	if (err)
		*err = found;
	cis_store_close(&mc->remote.store);
	return rc;
}

static int pages_open(const char *rest, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err)
{
	struct mc *mc;
	int rc = mc_open(rest, &mc, err);

	if (!rc)
		*ret = &mc->remote.store;
	return rc;
}

static int pages_check(const char *rest, struct cis_error *err)
{
	struct cis_hosts hosts;
	int rc = parse(rest, &hosts, err);

	if (!rc)
		cis_hosts_fini(&hosts);
	return rc;
}

const struct cis_pages_kind cis_pages_memcached = {
	.scheme = "memcached:",
	.check = pages_check,
	.open = pages_open,
	.probe = pages_probe,
};
