/* SPDX-License-Identifier: MIT
 *
 * A process that only reads, beside the writer, and what its Chroma writes all the same. Every
 * client from 1.0 on commits a row of acquire_write when it opens a database; and the first
 * question to a collection applies what the queue has beyond the marks, which the writer has not
 * done yet. These two transactions go nowhere: their locks are granted without being taken, their
 * journal is a file in memory, their pages are kept there until their end; SQLite is then made to
 * forget them. Any other one is refused where it opens its journal. Which one it is, the tables
 * tell that it has read (refuse/touched.h). An index that is persisted on the way goes nowhere as
 * well.
 *
 * Only for SQLites whose calls do not pass through here (Chroma's own, from 1.0 on): the others
 * open the database for reading by themselves when they are told to.
 */
#ifndef PRELOAD_READERS_H
#define PRELOAD_READERS_H

#include "preload/place/change.h"

static inline bool reader_concerns(union slot s)
{
	return s.role == ROLE_DATABASE && s.writable & SLOT_WRITABLE &&
	       (!writer_is_ours(protection_of(s)) || atomic_load(&protection_of(s)->opening) ||
		s.writable & (SLOT_STALE | SLOT_NOWHERE));
}

/* Whether a database may be opened for writing although another process is the writer. */
bool reader_may_open(const struct change *c);
/* A lock of the database. True: it is answered, *error is 0 or -errno. */
bool reader_lock(int fd, union slot s, const struct flock *lock, off_t start, int *error);
/* The journal of such a transaction, or the pickle of a persist that it leads to: a descriptor;
 * -ENOENT: it is none, -EACCES: not to be opened. */
int reader_opens(const struct place *place, void *caller, int flags);
/* Whether this journal is not there for this thread, which is in such a transaction. */
bool reader_hides(const char *path);
/* A write or the journal's removal, as part of it. True: change.result is the answer, errno is set
 * where that is an error. */
bool reader_answers(struct change *c);
/* What was read of the database, or could not be: the answer, which may be another one. */
ssize_t reader_reads(int fd, union slot s, void *buf, size_t n, off_t at, ssize_t ret);
void readers_fork(void);

#endif
