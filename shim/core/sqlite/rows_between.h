/* SPDX-License-Identifier: MIT
 *
 * Which rows of a table came and went between two moments of a database, by the pages that have
 * changed: of what is as it was only the pages above the leaves are read.
 *
 * Errors: -EBADMSG there is no such table at one of the two, or it is damaged; -ENODATA a page is
 * not there; -ENOMEM.
 */
#ifndef CORE_SQLITE_ROWS_BETWEEN_H
#define CORE_SQLITE_ROWS_BETWEEN_H

#include "core/sqlite/tree.h"

struct sqlite_rows_between {
	const struct file_source *before, *after;
	uint32_t page_size, usable; /* of both */
	/* Whether these bytes are the same at both. Asked only of what both have. */
	bool (*is_same)(void *context, uint64_t offset, uint64_t length);
	/* A row of a changed leaf, -1 as it was, +1 as it is; lent until it returns. Other than 0
	 * ends it, and is returned. */
	int (*row)(void *context, const struct sqlite_record *row, int sign);
	void *context;
};

/* The table with that root page, at both. 0, what row() returned, or an error. Of a row only what
 * is on its page is there: values beyond have no bytes. */
int sqlite_rows_between(const struct sqlite_rows_between *r, uint32_t root);

#endif
