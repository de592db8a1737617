/* SPDX-License-Identifier: MIT
 *
 * A process that only reads, beside the writer, and what its Chroma writes all the same: every
 * client from 1.0 on commits a row of acquire_write when it opens a database. That transaction goes
 * nowhere: its locks are granted without being taken, its journal is a file in memory, its pages
 * are dropped; SQLite is then made to forget them. Any other one is refused, at its first page.
 * Only for SQLites whose calls do not pass through here (Chroma's own, from 1.0 on): the others
 * open the database for reading by themselves when they are told to.
 */
#ifndef PRELOAD_READERS_H
#define PRELOAD_READERS_H

#include "preload/place/change.h"

/* Whether a database may be opened for writing although another process is the writer. */
bool reader_may_open(const struct change *c);
/* A descriptor of the database was opened. */
void reader_opened(union slot s, int fd);
/* A lock of the database. True: it is answered, *error is 0 or -errno. */
bool reader_lock(int fd, union slot s, const struct flock *lock, off_t start, int *error);
/* The journal of such a transaction: a descriptor; -ENOENT: it is none, -EACCES: not to be opened.
 */
int reader_journal(const struct place *place, int flags);
/* A write or the journal's removal, as part of it. True: change.result is the answer, errno is set
 * where that is an error. */
bool reader_answers(struct change *c);
/* What SQLite has read to see whether the database has changed since it looked. */
void reader_reads(int fd, union slot s, void *buf, size_t n, off_t at);
void readers_fork(void);

#endif
