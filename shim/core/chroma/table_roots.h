/* SPDX-License-Identifier: MIT
 *
 * Which pages of a database are the roots of which of Chroma's tables and their indexes, as its
 * schema says. SQLite begins at the root whatever it does to a table, so the roots that are read in
 * a transaction tell which tables it has to do with.
 *
 * What cannot be told is false. Nothing is allocated; thread-safe.
 */
#ifndef CORE_TABLE_ROOTS_H
#define CORE_TABLE_ROOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/fileio.h"

#define TABLE_ROOTS_MOST 128 /* Chroma's schema has some forty */
#define TABLE_ROOTS_ROOM ((size_t)(4 * 65536))

/* Flags, so that a set of them is one number. */
enum table_kind {
	TABLE_NONE = 0,	   /* no root */
	TABLE_ACQUIRE = 1, /* acquire_write */
	TABLE_RECORDS = 2, /* what the queue is applied to: embeddings and what hangs on them */
	TABLE_MARKS = 4,   /* max_seq_id: how far it has been */
	TABLE_QUEUE = 8,   /* embeddings_queue */
	TABLE_ANY_OTHER = 16,
	TABLE_MIGRATIONS = 32 /* migrations: which parts of the schema there are */
};

struct table_roots {
	uint32_t page_size;
	uint32_t cookie; /* of the schema */
	uint32_t count;
	struct table_root {
		uint32_t page;
		enum table_kind kind;
	} at[TABLE_ROOTS_MOST];
};

/* room: TABLE_ROOTS_ROOM bytes to work in. False: no such database, or one with more tables. */
bool table_roots_read(struct table_roots *out, const struct file_source *database, void *room);

enum table_kind table_root_kind(const struct table_roots *r, uint32_t page);
/* The page with the first rows of the first table of that kind, where its last ones are on another
 * page; 0: it is one page, or cannot be read. room: as above. */
uint32_t table_first_leaf(const struct table_roots *r, enum table_kind kind,
			  const struct file_source *database, void *room);

#endif
