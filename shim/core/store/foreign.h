/* SPDX-License-Identifier: MIT
 *
 * Files in a store that belong to somebody else than the store does: root's, mostly, made by an
 * older chromashim or by hand. Whoever the store belongs to cannot use them.
 */
#ifndef CORE_STORE_FOREIGN_H
#define CORE_STORE_FOREIGN_H

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

struct store_foreign {
	char path[PATH_MAX]; /* of the first one, from the store */
	uid_t user;	     /* whose it is */
	uid_t owner;	     /* whose the store is */
	gid_t group;
	uint64_t count;
};

/* Looks at all of the store, but no further than some 50 000 files. How many there are, or -errno.
 */
int64_t store_find_foreign(int storefd, struct store_foreign *out);

#endif
