/* SPDX-License-Identifier: MIT
 *
 * Single records of a snapshot back into a directory that goes on: through Chroma's own queue, so
 * that nothing newer is lost. One transaction: all of them, or none.
 */
#ifndef CORE_GIVE_BACK_H
#define CORE_GIVE_BACK_H

#include <sqlite3.h>

#include "core/snapshot/store.h"

struct give_back {
	int dirfd;		      /* nobody else writes there */
	struct snapshot_store *store; /* open, at least for SNAPSHOT_KEEP */
	const struct manifest *manifest;
	const char *collection, *name; /* its id and name in the snapshot */
	/* Its id now, whose records are changed; NULL: it is made, with the name `as` or
	 * its own, and with its own id unless that is taken. */
	const char *into, *as;
	/*
	 * Has a table wanted(id TEXT PRIMARY KEY, replaced): which records; `replaced` those that
	 * are there now and become what they were. NULL: all.
	 */
	sqlite3 *wanted;
	/* When nobody else can write: other than 0 ends it, and is returned. May be NULL. */
	int (*check)(void *context);
	void *check_context;
};

struct give_back_result {
	uint64_t given;
	uint64_t bare; /* have no vector in the snapshot that can be read, and were left */
};

/*
 * 0; -EEXIST: the name is taken; -EDOM: the collection has vectors of another dimension now; or
 * another -errno. Nothing was changed then.
 */
int recover_give_back(const struct give_back *g, struct give_back_result *out);

#endif
