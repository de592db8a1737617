/* SPDX-License-Identifier: MIT
 *
 * Every record of a Chroma directory, straight from the files, loadable by Chroma or not.
 *
 * A record is what the client's get() gives: the row in `embeddings` with its metadata, the vector
 * from the index or from the queue, and on both what the queue holds beyond the segment's mark.
 * Without a database (missing, or its first page lost) the segments still give ids and vectors;
 * their collection is then the segment's name.
 *
 * Memory does not grow with the directory: ids and labels go to SQLite's temporary tables.
 */
#ifndef CORE_EXPORT_H
#define CORE_EXPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/chroma/chroma.h"
#include "core/snapshot/store.h"

enum export_type { EXPORT_NULL, EXPORT_STRING, EXPORT_INT, EXPORT_FLOAT, EXPORT_BOOL };

/* A metadata value; elements of one array follow each other with the same key. Lent. */
struct export_value {
	char *key;
	bool is_element; /* of an array */
	enum export_type type;
	char *text; /* strings: may contain zero bytes */
	size_t size;
	int64_t number; /* ints and bools */
	double real;
};

struct json;

/* As one JSON object, arrays put together again. */
void export_values_put(struct json *j, const struct export_value *values, size_t count);

/* Everything is lent until the callback returns. */
struct export_record {
	const struct chroma_collection *collection;
	const char *id;
	size_t id_size;
	const float *vector; /* NULL: lost, or not asked for */
	uint64_t dimension;
	bool lacks_values; /* its metadata cannot be read, or not all of it */
	bool lacks_queue;  /* rows of the queue cannot be read, which may have changed it */
	bool only_index;   /* has no row in the database */
	bool from_index;   /* its vector is */
	bool lacks_length; /* the direction alone: the index has lost the vector's length */
	bool from_applied; /* the index has lost it; a row that was applied is still in the queue */
	const struct export_value *document, *uri; /* strings, or NULL */
	const struct export_value *values;	   /* document and uri are not among them */
	size_t value_count;
};

struct export_collection {
	const struct chroma_collection *collection;
	const struct export_value *metadata, *index; /* of its index what is told: ef_search, … */
	size_t metadata_count, index_count;
};

struct export_options {
	const char *collection; /* a name or id; NULL: all */
	bool vectors;
	bool only_index; /* also what has no row; without it, only where rows are lost */
	bool pages;	 /* a malformed database is read by its pages, as recover does
			    (recover/recover.h) */
	/* A result other than 0 ends the export and is returned. Before a collection's records;
	 * may be NULL. */
	int (*begin)(void *context, const struct export_collection *collection);
	int (*record)(void *context, const struct export_record *record);
	/* A collection, or something of it, could not be read; the export goes on. */
	void (*trouble)(void *context, const char *collection, const char *what, int error);
	/* What was lost of an index was made again; a whole sentence. May be NULL. */
	void (*mended)(void *context, const char *collection, const char *sentence);
	void *context;
};

struct export_summary {
	uint64_t collections, records;
	uint64_t without_vector; /* lost, not just not asked for */
	uint64_t troubles;
	uint64_t
	    overwritten; /* vectors and lengths of an index that are none: others may be, too */
	bool without_database;
};

/* 0 (also with troubles), -ENOENT no database and no segments, or another -errno. */
int export_directory(const char *path, int dirfd, const struct export_options *options,
		     struct export_summary *out);

/* Ids and vectors of one segment, whatever the database says of it. */
int export_segment_alone(int dirfd, const char *segment, enum chroma_space space,
			 const struct export_options *options, struct export_summary *out);

/* Every record of a snapshot, read from its chunks. The store is open, at least for SNAPSHOT_KEEP.
 */
int export_snapshot(struct snapshot_store *store, const struct manifest *m,
		    const struct export_options *options, struct export_summary *out);

#endif
