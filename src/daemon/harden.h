/* What keeper and engine give up once they are set up: doc/security.md has the reasons. */
#ifndef CIS_DAEMON_HARDEN_H
#define CIS_DAEMON_HARDEN_H

#include "daemon/config.h"

/** cis_harden_keeper() - before the first engine is started.  Return: 0 or -errno. */
int cis_harden_keeper(const struct cis_config *config, struct cis_error *err);

/** cis_harden_engine() - before it makes threads.  Return: 0 or -errno. */
int cis_harden_engine(const struct cis_config *config, struct cis_error *err);

#endif
