/* SPDX-License-Identifier: MIT
 *
 * From a transaction to the acts of the log: what it has done to Chroma's records and collections.
 * Told from below, of every SQLite, in WAL mode as well.
 *
 * All in the thread that has the lock under which SQLite writes. Keeps errno.
 */
#ifndef PRELOAD_SQLITE_ACTS_H
#define PRELOAD_SQLITE_ACTS_H

#include <stdbool.h>
#include <stdint.h>

struct transaction;

/* It has the lock, and the database is as it was. */
void acts_begin(unsigned protection, const struct transaction *t);
/* A page passes by: as it was, into the journal, or as it is to be, into the database. */
void acts_page(unsigned protection, uint32_t number, const unsigned char *page, uint32_t size,
	       bool is_old);
/* The first page is about to be written to the database. */
void acts_before(unsigned protection, uint8_t object, bool is_commit);
/* The same in WAL mode, into the log; number: of the page. */
void acts_frame(unsigned protection, uint8_t object, uint32_t number, const unsigned char *page,
		uint32_t size);
/* In WAL mode: all is in the log and its index, and the lock is about to be released. */
void acts_log_commits(unsigned protection, const struct transaction *t);
/* Its end; the lock is still there. */
void acts_end(unsigned protection, const struct transaction *t, bool committed);
void acts_fork(void);
void acts_stop(unsigned protection);

#endif
