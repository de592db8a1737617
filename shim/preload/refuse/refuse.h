/* SPDX-License-Identifier: MIT
 *
 * The refusals: the only ways in which the shim makes a call fail that would have succeeded. Each
 * has one line on stderr (who, what, which file, what to do) and a record.
 */
#ifndef PRELOAD_REFUSE_H
#define PRELOAD_REFUSE_H

#include "preload/place/change.h"

/* ---- one writer (writer.c) ---- */

/*
 * A process becomes the writer of a directory by its first act of writing, and stays it until it
 * ends or has closed all that it had open there: it holds an OFD lock on writer.lock in the store.
 * Returns 0, or -errno for the call.
 */
int writer_check(const struct change *c);
/* Whether another process is. Asks the kernel. */
bool writer_is_foreign(struct protection *a);
/* Says that the change is refused because another process is the writer. -errno. */
int writer_refuse(const struct change *c);
/* It has done something else than opening the database (opening.h). */
void writer_stays(unsigned protection);
/* RESERVED was given to who has given back the right since it asked. */
bool writer_lacks_right(union slot s);
/* From time to time: the lock file may have been taken away under us. */
void writer_look(struct protection *a);
/* Around fork(): a writer that is in the midst of nothing passes its right to whoever of it and its
 * children writes first (heirs.h). */
void writers_before_fork(void);
void writers_fork(void);
/* An index is about to be loaded, by which it may later be written. */
void writer_loads(union slot s);

/* A file was opened: others are told that the database is in use here. */
void writer_opened(union slot s, int fd);
/* Where none of Chroma's files is open for writing any more, another process may write. */
void writer_give_back(unsigned protection);
void writers_closed_slow(void);

/* SQLite has let go of the database: who has only opened it is not the writer any more. */
void writer_leaves_slow(unsigned protection);

static inline void writer_leaves(union slot s)
{
	const struct protection *a = protection_of(s);

	if (__builtin_expect(atomic_load_explicit(&a->opening, memory_order_relaxed), 0) &&
	    s.role == ROLE_DATABASE && writer_is_ours(a))
		writer_leaves_slow(s.protection);
}

/* A descriptor was closed, or replaced by another file. Keeps errno. */
static inline void writers_closed(union slot s)
{
	if (__builtin_expect(s.role >= ROLE_DATABASE && s.role <= ROLE_PICKLE && s.writable, 0))
		writers_closed_slow();
}

/* ---- room on the disk (disk_space.c) ---- */

/* Refuses only where SQLite and Chroma take it well: before a transaction has changed anything. */
int space_check(const struct change *c);
/* After ENOSPC or EDQUOT in the midst of something: gives up the ballast. True: try again. */
bool space_make(unsigned protection);
/* Whether `bytes` more fit, the ballast counted in. Asks the kernel. */
bool space_for(unsigned protection, uint64_t bytes);
void space_quota_hit(unsigned protection);
void rooms_fork(void);
void space_stop(unsigned protection); /* the directory is let go */

/* ---- the shim's own failure (refuse.c) ---- */

/* CHROMASHIM_ON_FAILURE=closed: rather no writing at all than unprotected. */
int failure_check(const struct change *c);

/* ---- known destroyers (destroyers.c) ---- */

int destroyer_check(const struct change *c);
bool segment_pickle_is_missing(const struct change *c);
/* Not of a write: what is in use is taken away (removals.c). */
int removal_check(const struct change *c);

/* ---- how it is said ---- */

/* The line and the record. At most one line in ten seconds for each directory and kind. */
void refuse_say(const struct change *c, enum oplog_op op, int error, const char *const parts[]);

#endif
