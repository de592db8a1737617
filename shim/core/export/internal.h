/* SPDX-License-Identifier: MIT
 *
 * What the parts of the export share; for export*.c only.
 */
#ifndef CORE_EXPORT_INTERNAL_H
#define CORE_EXPORT_INTERNAL_H

#include <sqlite3.h>

#include "core/base/fileio.h"
#include "core/export/export.h"
#include "core/segment/hnsw.h"
#include "core/snapshot/read.h"

struct exporter {
	const char *path; /* NULL: a snapshot's */
	int dirfd;
	struct snapshot_store *store;
	const struct manifest *manifest;
	const struct export_options *options;
	struct export_summary *summary;
	sqlite3 *db;	     /* Chroma's, or an empty one; its temporary tables are ours */
	bool has_rowless;    /* collections without their own row, which are named by their ids */
	bool is_salvaged;    /* from the pages of one that is malformed */
	bool has_rows_by_id; /* the rows of embeddings can be asked for by their ids */
	bool lost_segments;  /* and which directories are of its collections is lost */
};

void export_trouble(struct exporter *x, const struct chroma_collection *c, const char *what,
		    int error);
/* A part that was lost was made again; a whole sentence. */
void export_mended(struct exporter *x, const struct chroma_collection *c, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- files.c: a directory's files, or a snapshot's ---- */

/* Zeroed memory is closed. It must not move while it is open. */
struct export_file {
	bool is_open;
	int fd; /* -1: of a snapshot */
	struct file_source source;
	struct snapshot_file snapshot;
};

/* -ENOENT, or what file_open_at() says. */
int export_file_open(struct exporter *x, const char *segment, const char *name,
		     struct export_file *out);
void export_file_close(struct export_file *f);

/* Whether the segment has a directory; 0, -ENOENT, or why it cannot be used. */
int export_find_segment(struct exporter *x, const char *segment);

/* -ENOENT: there is no database. *out as with database_open_now(). */
int export_open_database(struct exporter *x, struct export_file *file);

/* Calls `each` with the name of everything that looks like a segment's directory. */
int export_each_segment(struct exporter *x, int (*each)(struct exporter *x, const char *segment));

/* ---- vectors.c ---- */

/* The vectors of one segment, and what the queue says about them. Zeroed memory is closed. */
struct export_vectors {
	const struct chroma_collection *collection;
	struct export_file level0_file, length_file;
	struct hnsw_level0 level0;
	struct file_window length;
	bool has_index, has_length;
	bool labels_lost; /* which ids the index had is not known, or not of all */
	bool lengths_lost;
	bool lacks_queue;    /* rows of it cannot be read */
	bool is_normal;	     /* its vectors have the length 1, as cosine space has them */
	bool lacks_length;   /* the last one that was given */
	bool is_guessed;     /* the header was made again; elements are looked at one by one */
	uint64_t last_label; /* that was handed out; 0: not known */
	uint64_t mark;	     /* rows of the queue up to here are in the index, or were */
	float *buf;
	size_t room; /* floats */
	sqlite3_stmt *from_queue, *applied, *ignored;
};

/* A transaction that has met a page that cannot be read writes no temporary table any more: another
 * one, in which what the first one made is gone. */
int export_begin_again(struct exporter *x);

/*
 * Fills the temporary tables: label(id, label), element(label, at) from the segment's files, and
 * newer(id, seq) from the queue (seq 0: deleted there). Troubles are reported, not returned.
 */
int export_vectors_open(struct export_vectors *v, struct exporter *x,
			const struct chroma_collection *c, bool has_queue);
void export_vectors_close(struct export_vectors *v);

/* Into temp.newer, from the queue's rows beyond the mark in their order: which row has an id's
 * vector now, 0 if it was deleted. */
int export_load_newer(struct export_vectors *v, struct exporter *x, uint64_t mark);
/* Into temp.applied, from the rows up to the mark: which has the newest vector of an id that was
 * not deleted after it. */
int export_load_applied(struct export_vectors *v, struct exporter *x);

/* Element `at` of the index, or the queue's row; *out is lent. -ENODATA: there is none. */
int export_vector_of_index(struct export_vectors *v, struct exporter *x, uint64_t at,
			   const float **out, uint64_t *dimension_out);
int export_vector_of_queue(struct export_vectors *v, int64_t row, const float **out,
			   uint64_t *dimension_out);

/* What the queue still has of a record whose vector the index has lost; *out is lent. -ENODATA. */
int export_vector_of_applied(struct export_vectors *v, struct exporter *x, const char *id,
			     size_t size, const float **out, uint64_t *dimension_out);

/* ---- layout.c ---- */

/*
 * A header for elements that have lost theirs. last_label: 0 if that is not known; lengths: entries
 * of length.bin. -EBADMSG: there is no telling.
 */
int export_guess_header(struct hnsw_header *out, const struct file_source *level0,
			int64_t dimension, uint64_t last_label, uint64_t lengths);
/* Whether it can be one, with neighbours and a label below or at `most`. */
bool export_is_element(const struct hnsw_header *h, const struct hnsw_element *e, uint64_t most);

/* ---- labels.c ---- */

/*
 * Puts ids and labels together by the order in which both were made, where that can be confirmed:
 * temp.label is complete then. 1: it is, 0: there is no telling, or -errno.
 */
int export_pair_labels(struct export_vectors *v, struct exporter *x);

/* ---- values.c ---- */

struct export_values {
	struct export_value *list;
	size_t count, room;
	uint64_t malformed; /* rows of the queue whose metadata is no JSON */
	sqlite3_stmt *scalars, *arrays, *pending, *object, *elements;
};

int export_values_open(struct export_values *v, sqlite3 *db);
void export_values_close(struct export_values *v);

/* The metadata of a collection, in values that need not have been opened, but closed. */
int export_values_of_collection(struct export_values *v, sqlite3 *db, const char *id);
int export_values_of_index(struct export_values *v, sqlite3 *db, const struct chroma_collection *c);

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
