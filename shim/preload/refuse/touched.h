/* SPDX-License-Identifier: MIT
 *
 * Which tables a connection has to do with since it took its lock, told by the roots that it reads
 * (core/chroma/table_roots.h). For that it must keep no page from before: in a process beside the
 * writer every SQLite whose calls do not pass through here is made to read all of them again in
 * each transaction.
 *
 * In a slot of the database: 0, nothing is known; else TOUCHED_KNOWN and kinds of tables.
 */
#ifndef PRELOAD_TOUCHED_H
#define PRELOAD_TOUCHED_H

#include "core/chroma/table_roots.h"
#include "preload/place/change.h"

#define TOUCHED_KNOWN 128u

/* What a connection has read, and what of it is changed: it forgets its pages. */
void touched_read(int fd, union slot s, void *buf, size_t n, off_t at);
/* Of its database as it is now; NULL: not known. */
const struct table_roots *touched_roots(union slot s);
void touched_forget(int fd);
void touched_stop(unsigned protection);

#endif
