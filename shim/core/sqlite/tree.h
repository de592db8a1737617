/* SPDX-License-Identifier: MIT
 *
 * Pages of SQLite's b-trees and the records on them, read without SQLite: for databases that it
 * will not open. Format: sqlite.org/fileformat2.html section 1.6 and 2.1.
 *
 * Nothing is believed: every number is held against what is there. A record counts only if its
 * parts add up to its size to the byte, and its overflow chain ends where it has to.
 *
 * Errors: -EBADMSG is not one, or is damaged; -ENODATA a part of it is not there.
 */
#ifndef CORE_SQLITE_TREE_H
#define CORE_SQLITE_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/fileio.h"

#define SQLITE_TREE_COLUMNS 32u /* more than any table of Chroma's has */

enum sqlite_tree_kind {
	SQLITE_INDEX_INTERIOR = 2,
	SQLITE_TABLE_INTERIOR = 5,
	SQLITE_INDEX_LEAF = 10,
	SQLITE_TABLE_LEAF = 13,
};

struct sqlite_tree_page {
	const unsigned char *bytes; /* lent */
	uint32_t have;		    /* bytes of it: a file may end within */
	uint32_t usable;	    /* bytes of a page that SQLite uses */
	uint32_t start;		    /* of its header: 100 on page 1 */
	enum sqlite_tree_kind kind;
	uint32_t cells;
	uint32_t right; /* the last child of an interior page */
};

struct sqlite_tree_cell {
	uint32_t child;		    /* of an interior page: what comes before */
	int64_t rowid;		    /* of a table */
	uint64_t size;		    /* of the record; none on a table's interior page */
	const unsigned char *local; /* its beginning; lent as the page is */
	uint32_t local_size, overflow;
	uint32_t end; /* where the cell ends on the page */
};

enum sqlite_value_type { /* as in sqlite3.h */
			 SQLITE_VALUE_INTEGER = 1,
			 SQLITE_VALUE_FLOAT,
			 SQLITE_VALUE_TEXT,
			 SQLITE_VALUE_BLOB,
			 SQLITE_VALUE_NULL,
};

struct sqlite_value {
	enum sqlite_value_type type;
	int64_t integer;
	double real;
	uint64_t size;
	const unsigned char *bytes; /* of text and blob; NULL: not within what was read */
};

struct sqlite_record {
	uint32_t columns;
	struct sqlite_value values[SQLITE_TREE_COLUMNS];
};

/* Reads records whole, with their overflow pages. */
struct sqlite_record_reader {
	const struct file_source *source;
	uint32_t page_size, usable;
	uint64_t budget; /* overflow pages it may still read: a bound in time for any file */
	unsigned char *page, *payload;
	uint64_t room;
};

int sqlite_tree_page_parse(struct sqlite_tree_page *out, const void *bytes, uint32_t have,
			   uint32_t usable, uint32_t number);

/* Whether a page of a table has fewer cells than before, a row less, or is no page above leaves any
 * more. False also of what is none. */
bool sqlite_tree_has_lost(const void *before, const void *after, uint32_t size);

/* The cell number i of a page. */
int sqlite_tree_cell(const struct sqlite_tree_page *page, uint32_t i, struct sqlite_tree_cell *out);

/* The columns of a record of `size` bytes, of which the first `have` are there. */
int sqlite_record_parse(struct sqlite_record *out, const unsigned char *payload, uint64_t have,
			uint64_t size);

void sqlite_record_reader_open(struct sqlite_record_reader *r, const struct file_source *source,
			       uint32_t page_size, uint32_t usable, uint64_t budget);
void sqlite_record_reader_close(struct sqlite_record_reader *r);
/* Values are lent until the next call, or as long as the cell's page. */
int sqlite_record_read(struct sqlite_record_reader *r, const struct sqlite_tree_cell *cell,
		       struct sqlite_record *out);

#endif
