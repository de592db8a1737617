/* SPDX-License-Identifier: MIT
 *
 * What the parts of the export share; for export*.c only.
 */
#ifndef CORE_EXPORT_INTERNAL_H
#define CORE_EXPORT_INTERNAL_H

#include <sqlite3.h>

#include "core/export.h"
#include "core/fileio.h"
#include "core/hnsw.h"

struct exporter {
	const char *path;
	int dirfd;
	const struct export_options *options;
	struct export_summary *summary;
	sqlite3 *db; /* Chroma's, or an empty one; its temporary tables are ours */
};

void export_trouble(struct exporter *x, const struct chroma_collection *c, const char *what,
		    int error);

/* ---- export_vectors.c ---- */

/* The vectors of one segment, and what the queue says about them. Zeroed memory is closed. */
struct export_vectors {
	const struct chroma_collection *collection;
	int level0_fd, length_fd;
	struct file_source level0_source, length_source;
	struct hnsw_level0 level0;
	struct file_window length;
	bool has_index, has_length;
	float *buf;
	size_t room; /* floats */
	sqlite3_stmt *from_queue;
};

/*
 * Fills the temporary tables: label(id, label), element(label, at) from the segment's files, and
 * newer(id, seq) from the queue (seq 0: deleted there). Troubles are reported, not returned.
 */
int export_vectors_open(struct export_vectors *v, struct exporter *x,
			const struct chroma_collection *c, bool has_queue);
void export_vectors_close(struct export_vectors *v);

/* Element `at` of the index, or the queue's row; *out is lent. -ENODATA: there is none. */
int export_vector_of_index(struct export_vectors *v, uint64_t at, const float **out,
			   uint64_t *dimension_out);
int export_vector_of_queue(struct export_vectors *v, int64_t row, const float **out,
			   uint64_t *dimension_out);

/* ---- export_values.c ---- */

struct export_values {
	struct export_value *list;
	size_t count, room;
	sqlite3_stmt *scalars, *arrays, *pending, *object, *elements;
};

int export_values_open(struct export_values *v, sqlite3 *db);
void export_values_close(struct export_values *v);

/* The metadata of row `id` of table embeddings. */
int export_values_load(struct export_values *v, int64_t id);

/*
 * Applies what the queue has beyond the METADATA mark, by the temporary table pending(id, seq).
 * *exists says whether the record is there, before and after.
 */
int export_values_apply(struct export_values *v, const char *id, size_t size, bool *exists);

/* Takes the value of a key out of the list's count; NULL if there is none that is a string. */
const struct export_value *export_values_take(struct export_values *v, const char *key);

#endif
