/* SPDX-License-Identifier: MIT
 *
 * Taking a snapshot of a Chroma directory, from another process, while a backend may be at work.
 *
 * What is taken: chroma.sqlite3 with what its journal or WAL holds played in, and all regular files
 * in directories named by a UUID. Nothing else in the directory is Chroma's.
 *
 * Why it is consistent. SQLite's SHARED lock is held from before the first byte of the database is
 * copied until the last file of a segment is. In rollback mode no transaction can commit meanwhile,
 * so the marks (max_seq_id) cannot move on and the queue cannot be purged: a persist that finishes
 * in that time only puts a segment ahead of its mark, with rows that are still in the queue, and
 * Chroma plays those again without harm. Two cases differ, since a segment could get ahead of what
 * the database knows at all: Chroma before 1.0 persists inside its own open transaction, and in WAL
 * mode a reader stops no one. There a segment must not change at all between the lock and the last
 * copy, and for the former no journal may be there at the lock; else all is begun again.
 *
 * A segment is copied when it was quiet: no persist is open in undo/, its pickle (written last) is
 * not older than its other files, and sizes and times are the same before and after. What was read
 * before the lock and is unchanged under it need not be read again; so the lock lasts for a copy
 * (or clone) of the database and of the segments that were written to just now.
 */
#ifndef CORE_SNAPSHOT_H
#define CORE_SNAPSHOT_H

#include "core/base/trouble.h"
#include "core/snapshot/store.h"

typedef void snapshot_progress_fn(void *context, uint64_t done, uint64_t total);

struct snapshot_options {
	const char *path; /* the data directory, which dirfd is open on */
	int dirfd;
	const char *reason;	 /* "manual", "schema", … */
	const char *description; /* may be NULL */
	/* Take what is there: a segment that is never quiet, a database that cannot be opened or is
	 * missing. The snapshot then is broken. */
	bool accept_broken;
	bool idle; /* no process has the directory open, so nothing is under way */
	snapshot_progress_fn *progress; /* bytes; may be NULL */
	void *context;
};

/*
 * The store is open for SNAPSHOT_ADD. *out is to be freed, also after an error. -EBUSY: the
 * database or a segment (see *t) was never free; -ENOENT: no database; -ENOSPC.
 */
int snapshot_take(struct snapshot_store *s, const struct snapshot_options *options,
		  struct manifest *out, struct snapshot_trouble *t);

#endif
