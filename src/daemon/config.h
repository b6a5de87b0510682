/* The daemon's configuration: a file of `key = value` lines, then the command line; cisternd(8) lists the keys. */
#ifndef CIS_DAEMON_CONFIG_H
#define CIS_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CIS_CONFIG_FILE "/etc/cistern/cisternd.conf"

struct cis_config {
	char *control;	    /* control = PATH: the control socket */
	char *keep;	    /* keep = auto|off|DIR: where records and states of guests are kept */
	char *traces;	    /* traces = DIR: where recorded traces go */
	char *images;	    /* images = DIR[:DIR...]: where parents of images are looked up */
	char *store_layers; /* store_layers = LAYERS: around every store, cistern-store-layers(7); "": none */
	unsigned shards;    /* shards = N: threads that serve faults; 0: one for every two CPUs, at least 1 */
	unsigned workers;   /* workers = N: threads that fill; 0: one a CPU */
	unsigned guests;    /* guests = N: at most */
	unsigned tries;	    /* tries = N: reads of a chunk that is damaged, before the guest's failure policy */
	unsigned store_deadline_ms; /* store_deadline_ms = N: so long a read that fails is tried again, before it */
	unsigned fault_rate; /* fault_rate = N: events of a guest answered in a second; 0: as many as there is time for */
	unsigned fault_burst; /* fault_burst = N: and beyond that at once */
	unsigned handshake_ms; /* handshake_ms = N: a handshake that is not complete by then is refused */
	unsigned upgrade_ms; /* upgrade_ms = N: a hand-over of which a step takes longer is given up */
	bool stop_drains;   /* stop = drain|wait: fill guests wholly and let them go, or wait for them to end */
	unsigned state_layout; /* state_layout = N: of what engines leave to each other; 0: the newest */
	uint64_t host_budget; /* host_budget = SIZE|none: bytes that all guests may have together; 0: no limit */
	unsigned idle_s;    /* idle_s = N: a guest that has done nothing for so long is idle; 0: none is */
	unsigned awake_ms;  /* awake_ms = N: keep CPUs from idling deeply that long after a guest's last fault; 0: never */
	char *user;	    /* user = NAME: whom the engine becomes; empty: it stays who it is */
	bool harden;	    /* harden = yes|no: give up capabilities and system calls that are not needed */
	bool neighbours;    /* neighbours = yes|no: install the rest of a chunk with the page that faulted */
	bool detach;	    /* detach = yes|no: hand a wholly filled guest to the kernel */
	int log_level;	    /* log_level = error|warn|info|debug */
};

/** cis_config_init() - as it is without a file.  Return: 0 or -ENOMEM. */
int cis_config_init(struct cis_config *c);
void cis_config_fini(struct cis_config *c);

/** cis_config_set() - one key.  Return: 0, -EINVAL (no such key, or not a value for it), -ENOMEM. */
int cis_config_set(struct cis_config *c, const char *key, const char *value, struct cis_error *err);

/** cis_config_load() - a file.  Return: 0, or the first thing that is wrong, with its line. */
int cis_config_load(struct cis_config *c, const char *path, struct cis_error *err);

/** cis_config_key() - name of key @i, NULL past the last: the man page is compared with them. */
const char *cis_config_key(size_t i);

#endif
