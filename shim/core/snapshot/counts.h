/* SPDX-License-Identifier: MIT
 *
 * How many records each collection has: those of an earlier snapshot, and the rows that came and
 * went since. So it costs what has changed, and not a look at all records.
 */
#ifndef CORE_SNAPSHOT_COUNTS_H
#define CORE_SNAPSHOT_COUNTS_H

#include "core/snapshot/manifest.h"
#include "core/sqlite/database.h"

struct counts_since {
	const struct manifest *earlier;
	const struct file_source *before,
	    *now; /* the database, then and at the one that is noted */
	bool (*is_same)(void *context, uint64_t offset, uint64_t length);
	/* Whether what was read of the earlier one was that: asked when all is read. 0 or -errno.
	 */
	int (*judge)(void *context);
	void *context;
};

/* The database's collections into *m, whose header says what the database is. `db` is open on it.
 * False: it is not known so, since collections were made or changed, or the database was made anew;
 * then nothing is added. */
bool counts_note(struct manifest *m, sqlite3 *db, const struct counts_since *since);

#endif
