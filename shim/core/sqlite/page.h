/* SPDX-License-Identifier: MIT
 *
 * The header of a SQLite database (its first 100 bytes) and its freelist, read without SQLite:
 * for a database that SQLite will not open, and for questions that must not take its locks.
 * Format: sqlite.org/fileformat2.html section 1.3 and 1.5; all numbers big-endian.
 *
 * Errors: -ENODATA too short, -EBADMSG no database, or damaged.
 */
#ifndef CORE_SQLITE_PAGE_H
#define CORE_SQLITE_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/fileio.h"

#define SQLITE_HEADER_SIZE 100u
#define SQLITE_MAGIC "SQLite format 3" /* with its terminating zero, 16 bytes */
/* Locks live here; the page that holds this byte is never used. */
#define SQLITE_PENDING_BYTE UINT32_C(0x40000000)
#define SQLITE_RESERVED_BYTE (SQLITE_PENDING_BYTE + 1)
#define SQLITE_SHARED_FIRST (SQLITE_PENDING_BYTE + 2)
#define SQLITE_SHARED_SIZE 510
#define SQLITE_LOCKS_SIZE 512 /* of all three */
#define SQLITE_PAGE_MIN 512u  /* bytes */
#define SQLITE_PAGE_MAX 65536u

struct sqlite_header {
	uint32_t page_size;	  /* 512 .. 65536 */
	uint8_t write_version;	  /* 1 rollback journal, 2 WAL */
	uint8_t read_version;	  /* as above; more: too new to read */
	uint8_t reserved;	  /* bytes at the end of each page */
	uint32_t change_counter;  /* of every transaction in rollback mode */
	uint32_t page_count;	  /* valid only if sqlite_header_has_page_count() */
	uint32_t freelist_trunk;  /* first trunk page, 0: none */
	uint32_t freelist_count;  /* pages */
	uint32_t schema_cookie;	  /* changes with every schema change */
	uint32_t schema_format;	  /* 1 .. 4, 0 in an empty database */
	uint32_t autovacuum_root; /* not 0: auto_vacuum */
	uint32_t encoding;	  /* 1 UTF-8, 2 UTF-16le, 3 UTF-16be, 0 in an empty database */
	uint32_t user_version;
	uint32_t application_id;
	uint32_t valid_for;	  /* change counter when page_count was written */
	uint32_t library_version; /* of the SQLite that wrote last, as 3040001 */
};

/* From the first bytes of page 1. -EBADMSG: wrong magic, or impossible page size. */
int sqlite_header_parse(struct sqlite_header *out, const void *page1, size_t size);

/* Whether the database is in WAL mode; false also where that cannot be read. */
bool sqlite_is_wal(const struct file_source *database);

/* A size in use: a power of two, 512 to 65536. */
bool sqlite_page_size_is_valid(uint32_t size);

/* A very old SQLite leaves the count behind; then the file's size tells. */
static inline bool sqlite_header_has_page_count(const struct sqlite_header *h)
{
	return h->page_count != 0 && h->change_counter == h->valid_for;
}

/* The page that is never written, since the locks are there. */
static inline uint32_t sqlite_lock_page(uint32_t page_size)
{
	return SQLITE_PENDING_BYTE / page_size + 1;
}

/* Where the content of a page is, in a journal or a log. */
struct sqlite_page_at {
	uint32_t page;
	uint64_t at;
};

/* By number; of a page that comes more than once the first stays, or the last. How many stay. */
size_t sqlite_pages_sort(struct sqlite_page_at *pages, size_t count, bool keep_last);
/* NULL: it is not among them. */
const struct sqlite_page_at *sqlite_pages_find(const struct sqlite_page_at *pages, size_t count,
					       uint64_t page);

/*
 * Called for each free page; leaf pages hold garbage and are not journaled when they are used
 * again. A result other than 0 ends the walk and is returned.
 */
typedef int sqlite_free_page_fn(void *context, uint32_t page, bool is_trunk);

/*
 * Walks the freelist: no more pages than the file has, so a loop ends. -EBADMSG: it does not
 * agree with its count or leads out of the file. page may be NULL.
 */
int sqlite_freelist_walk(const struct sqlite_header *header, const struct file_source *source,
			 sqlite_free_page_fn *page, void *context);

#endif
