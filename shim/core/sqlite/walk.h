/* SPDX-License-Identifier: MIT
 *
 * Rows of a table by their rowid, from the pages of a database that nobody changes meanwhile, read
 * without SQLite. Nothing is allocated, no page is read twice in a row, and no more of them than
 * was said: also for inside the backend.
 *
 * Errors: -EBADMSG is no such table, or is damaged; -ENODATA a page is not there; -E2BIG it takes
 * more pages.
 */
#ifndef CORE_SQLITE_WALK_H
#define CORE_SQLITE_WALK_H

#include <stdint.h>

#include "core/sqlite/tree.h"

#define SQLITE_WALK_LEVELS 5 /* 400 pages on each: more rows than there are */

struct sqlite_walk {
	const struct file_source *source;
	unsigned char *room; /* for SQLITE_WALK_LEVELS pages */
	uint32_t page_size, usable;
	uint32_t left;			    /* pages that it may still read */
	uint32_t there[SQLITE_WALK_LEVELS]; /* which page is in the room; 0: none */
	/* A row; the cell is lent until it returns. Other than 0 ends the walk, and is returned. */
	int (*row)(void *context, const struct sqlite_tree_cell *cell);
	void *context;
};

/* The rows first <= rowid <= last, in order. 0, what row() returned, or an error. */
int sqlite_walk(struct sqlite_walk *w, uint32_t root, int64_t first, int64_t last);
/* The last rowid of all; 0: there is no row. */
int sqlite_walk_last(struct sqlite_walk *w, uint32_t root, int64_t *rowid_out);

#endif
