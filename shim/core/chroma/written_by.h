/* SPDX-License-Identifier: MIT
 *
 * A line in the store that tells which releases of Chroma wrote the database, so that the library
 * in an older one can say so before that one fails: it cannot read the tables itself.
 *
 *     schema 31 by 1.5.0 to 1.5.9
 *
 * The number is the schema cookie of the database's first page: with another one the line is of
 * another database, and tells nothing.
 */
#ifndef CORE_WRITTEN_BY_H
#define CORE_WRITTEN_BY_H

#include <stdbool.h>
#include <stdint.h>

#define WRITTEN_BY_NAME "written-by"
/* What is said of an older Chroma has these words, in the log as well. */
#define OLDER_CHROMA "was written by a newer Chroma"
#define WRITTEN_BY_RELEASE 16

struct written_by {
	uint32_t schema;
	char first[WRITTEN_BY_RELEASE], last[WRITTEN_BY_RELEASE]; /* as "1.5.9" */
};

/* What nothing depends on: a line that cannot be written is missing. */
void written_by_note(int dirfd, int storefd, const char *first, const char *last);

/* ---- for the library: no memory, no stdio ---- */

/* Reads the line; false: there is none, or it is none of ours. */
bool written_by_read(int storefd, struct written_by *out);
/* The schema cookie of a database that is open, 0: it has none yet. */
uint32_t written_by_schema(int database);
/* Reads a release at the start of text: three numbers in one, which order as releases do; 0: it is
 * none. */
uint64_t written_by_release(const char *text);

#endif
