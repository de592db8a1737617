/* SPDX-License-Identifier: MIT
 *
 * From files to what a manifest says of them, whichever way a snapshot is taken: chunks, the
 * database's numbers and collections, and a database with a log made into a single file.
 */
#ifndef CORE_SNAPSHOT_CONTENT_H
#define CORE_SNAPSHOT_CONTENT_H

#include <stdbool.h>

#include "core/base/fileio.h"
#include "core/snapshot/counts.h"
#include "core/snapshot/snapshot.h"
#include "core/sqlite/database.h"

/* How far it is, and how fast it may go. */
struct content_meter {
	uint64_t done, total; /* bytes */
	uint64_t rate;	      /* bytes a second, 0: as fast as it goes */
	uint64_t deadline;    /* ns, CLOCK_MONOTONIC: stop after the chunk under way; 0: none */
	snapshot_progress_fn *progress; /* may be NULL */
	void *context;
};

/* What is known of a file without reading it, from an earlier snapshot. */
struct content_known {
	const struct chunk_name *chunks;
	/* Whether chunk number i is one of them. NULL: of none. */
	bool (*is_same)(void *context, uint64_t i);
	void *context;
	/* Their sums, of the first `count`: what has the same need not be hashed. NULL: none. */
	const struct checksum128 *sums;
	uint64_t count;
};

/*
 * Stores the chunks of a file, from number `first` on, in *chunks (manifest_chunk_count() of them,
 * grown if need be), and their sums in *sums. 0; 1 if the deadline came before the end; -ENODATA:
 * the file is shorter than it said. *next_out (may be NULL): how many chunks there are now. known:
 * NULL, nothing.
 */
int content_chunk_some(struct chunks *c, const struct file_source *source, uint64_t first,
		       const struct content_known *known, struct chunk_name **chunks,
		       struct checksum128 **sums, struct content_meter *meter, uint64_t *next_out);
/* All of it. */
int content_chunk(struct chunks *c, const struct file_source *source, uint64_t first,
		  const struct content_known *known, struct chunk_name **chunks,
		  struct checksum128 **sums, struct content_meter *meter);
/* Of a file that was to be the same as before, and of which some was read all the same. */
bool content_is_as_known(const struct content_known *known, const struct chunk_name *chunks,
			 uint64_t size);

/* From the first page. */
void content_note_header(struct manifest *m, const struct file_source *database);
/* Migrations and collections, after the header; what cannot be read is left out. since: NULL, their
 * records are counted all. -ENOMEM. */
int content_note_database(struct manifest *m, sqlite3 *db, const struct counts_since *since);

/* Plays the journal or log of the database in dirfd into it. `why` (room bytes): SQLite's words. */
int content_settle(int dirfd, char *why, size_t room);

#endif
