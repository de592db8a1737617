/* SPDX-License-Identifier: MIT
 *
 * Names of collections by their ids and by those of their segments: from the live database, and
 * from the log's acts, which have them also after a deletion. Allocates; not inside the backend.
 */
#ifndef CORE_COLLECTION_NAMES_H
#define CORE_COLLECTION_NAMES_H

#include <stdbool.h>

#include "core/oplog/read.h"

struct collection_names;

/*
 * Reads what the database in `dir` says now; one that cannot be read says nothing. The acts of the
 * store are read when an id is asked for that is not in it. storefd (-1: no store) is lent until
 * the end. NULL: no memory.
 */
struct collection_names *collection_names_open(int storefd, const char *dir, int dirfd);
void collection_names_close(struct collection_names *n);

/* An act, as it is met on the way: what it tells is known from then on. 0 or -ENOMEM. */
int collection_names_note(struct collection_names *n, const struct oplog_entry *e);

/*
 * The name of the collection whose id, or whose segment's id, stands in the text: a topic, a
 * segment's directory, or a file in it. NULL: it has no id, or one that is not known. Lent until
 * the next note. `text` may be NULL.
 */
const char *collection_names_find(struct collection_names *n, const char *text);
/* The same of an entry: of OP_COLLECTION and OP_RECORDS, a persist, or a call on a segment's file.
 */
const char *collection_names_of(struct collection_names *n, const struct oplog_entry *e);

/* The collection's id (16 bytes) for such a text; false as above, but for an unknown id itself. */
bool collection_names_id(struct collection_names *n, const char *text, uint8_t out[16]);

/* Whether the text is of the collection with that name (also a former one) or id. */
bool collection_names_fits(struct collection_names *n, const char *text, const char *wanted);

/* Whether the last that the acts tell of that collection is that it was deleted. */
bool collection_names_is_deleted(struct collection_names *n, const char *id);

/* Whether any collection is or was called so, or has that id. */
bool collection_names_has(struct collection_names *n, const char *wanted);

#endif
