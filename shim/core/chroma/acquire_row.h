/* SPDX-License-Identifier: MIT
 *
 * The transaction that every client of Chroma from 1.0 on commits when it opens a database that is
 * there: one row more in acquire_write. Nothing reads those rows, so a process that may only read
 * is let believe that it has written one. This tells such a transaction from any other, by the old
 * pages in its rollback journal and by the new ones: all of them belong to acquire_write, but for
 * the counters at the beginning of page 1 and the freelist.
 *
 *	acquire_write(id INTEGER PRIMARY KEY, lock_status INTEGER NOT NULL): no other table of
 *	Chroma's has records of two columns, the rowid and an integer of at most one byte.
 *
 * What cannot be told is none of it. Nothing is allocated; thread-safe.
 */
#ifndef CORE_ACQUIRE_ROW_H
#define CORE_ACQUIRE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACQUIRE_ROW_PAGES 64 /* a transaction that saves more is another one */

struct acquire_row {
	const unsigned char *journal; /* lent: all of it, one segment, not yet finished */
	size_t size;
	uint32_t page_size, sector_size, records; /* by acquire_row_open() */
	/* Reads from the database as it is on the disk. False: it cannot. */
	bool (*read)(const struct acquire_row *t, void *out, size_t n, uint64_t at);
	unsigned char *room; /* SQLITE_PAGE_MAX bytes, for a page of the database */
	int fd;		     /* for read() */
};

/* From journal and size, of which the header is enough. False: no such journal. */
bool acquire_row_header(struct acquire_row *t);
/* The same, of a journal that is whole, with read and room. */
bool acquire_row_open(struct acquire_row *t);
/* Whether an old page may be one of such a transaction's. */
bool acquire_row_saves(const struct acquire_row *t, uint32_t page, const unsigned char *bytes);
/* Whether all old pages in the journal are, and a row is among them. */
bool acquire_row_saved(const struct acquire_row *t);
/* Whether a page may be written by it: bytes are page_size new ones of that page. */
bool acquire_row_writes(const struct acquire_row *t, uint32_t page, const unsigned char *bytes);
/* Whether page 1 is as it was, but for its counters. */
bool acquire_row_first_page(const unsigned char *old, const unsigned char *bytes, uint32_t size);

#endif
