/* SPDX-License-Identifier: MIT
 *
 * The stores that were put aside beside a directory (core/store/aside.h), for the command: which
 * there are, and which of them go.
 *
 * Nobody asks for them any more when a test suite makes and removes directories. The order in which
 * they were put aside is a number that is given to each, in a file `aside` in it, when it is first
 * seen there. The newest are kept in any case, and a store with
 * a snapshot that was taken by hand, or is held, goes never.
 */
#ifndef CORE_STORE_KEPT_H
#define CORE_STORE_KEPT_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/store/aside.h"

#define STORES_KEPT 3	    /* for ever */
#define STORES_KEPT_MOST 32 /* further ones, for a week; and each of them for an hour */

struct store_kept {
	char name[STORE_ASIDE_MAX];
	char directory[PATH_MAX]; /* whose store it was; "": it is being removed */
	uint64_t number;	  /* 0: it has none yet */
	uint64_t since;		  /* ns, when it got that */
	uint64_t changed;	  /* ns, of its directory */
};

/* Those of `owner` in a directory, the newest first. *out is to be freed. 0 or -errno. */
int stores_kept(int parentfd, uid_t owner, struct store_kept **out, size_t *count_out);

/* Gives numbers, and removes what is not kept. How many went, or -errno. `now`: CLOCK_REALTIME. */
int stores_kept_prune(int parentfd, uid_t owner, uint64_t now);

#endif
