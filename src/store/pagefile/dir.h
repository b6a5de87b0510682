/* The folder of file:DIR, and what its namespaces may take of it together.  What the handles of all threads share. */
#ifndef CIS_STORE_PAGEFILE_DIR_H
#define CIS_STORE_PAGEFILE_DIR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "os/proc.h"

#define CIS_SEGMENT (1u << 20) /* bytes of each; what is taken of the disk, emptied and given back at once */

/**
 * struct cis_pagedir - one folder
 * @limit: segments that may be used; @used: are, by all namespaces of this process
 * @bytes: of each file, which has holes wherever nothing is
 */
struct cis_pagedir {
	struct cis_pagedir *next;
	unsigned refs;
	char *name; /* as in the name of the store */
	int fd;
	uint32_t limit;
	atomic_uint used;
	uint64_t bytes;
	char boot[CIS_BOOT_BYTES];
};

/** cis_pagedir_check() - is @name, which follows "file:", one? */
int cis_pagedir_check(const char *name, struct cis_error *err);

/** cis_pagedir_get() - open it, or have one more reference to it; files that are left of a time before the machine was started go. */
int cis_pagedir_get(const char *name, struct cis_pagedir **ret, struct cis_error *err);
void cis_pagedir_put(struct cis_pagedir *dir);

/** cis_pagedir_probe() - can files be made there and be written to? */
int cis_pagedir_probe(const char *name, struct cis_error *err);

enum cis_pagedir_taken { CIS_TAKEN_NOT, CIS_TAKEN, CIS_TAKEN_SPARE };

/** cis_pagedir_take() - one segment more; @spare: even of those that are kept for making room. */
enum cis_pagedir_taken cis_pagedir_take(struct cis_pagedir *dir, bool spare);

#define CIS_PAGEDIR_FILE 80

/** cis_pagedir_file() - the name of a namespace's file. */
void cis_pagedir_file(const struct cis_pagedir *dir, const uint64_t ns[2], char ret[CIS_PAGEDIR_FILE]);

#endif
