/* SPDX-License-Identifier: MIT
 *
 * Walking the collections and putting each record together.
 */
#include "core/export.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/database.h"
#include "core/export_internal.h"

#define DOCUMENT "chroma:document"
#define URI "chroma:uri"

/* ---- one record ---- */

/* newer and at as SQL found them: NULL if there is none. */
static int find_vector(struct export_vectors *v, sqlite3_stmt *row, int newer, int at,
		       struct export_record *out)
{
	if (sqlite3_column_type(row, newer) != SQLITE_NULL) {
		int64_t sequence = sqlite3_column_int64(row, newer);

		return sequence ? export_vector_of_queue(v, sequence, &out->vector, &out->dimension)
				: -ENODATA;
	}
	if (sqlite3_column_type(row, at) == SQLITE_NULL)
		return -ENODATA;
	return export_vector_of_index(v, (uint64_t)sqlite3_column_int64(row, at), &out->vector,
				      &out->dimension);
}

static int give(struct exporter *x, struct export_record *record, struct export_values *values)
{
	if (values) {
		record->document = export_values_take(values, DOCUMENT);
		record->uri = export_values_take(values, URI);
		record->values = values->list;
		record->value_count = values->count;
	}
	x->summary->records++;
	if (x->options->vectors && !record->vector)
		x->summary->without_vector++;
	return x->options->record(x->options->context, record);
}

/* ---- a collection ---- */

/* Rows of `embeddings`, in the order in which they were made; then ids known to the queue only. */
static const char records_sql[] = "SELECT e.id, e.embedding_id, n.seq, t.at FROM embeddings e "
				  "LEFT JOIN temp.newer n ON n.id = e.embedding_id "
				  "LEFT JOIN temp.label l ON l.id = e.embedding_id "
				  "LEFT JOIN temp.element t ON t.label = l.label "
				  "WHERE e.segment_id = ? ORDER BY e.id";
static const char new_sql[] =
    "SELECT NULL, p.id, n.seq, t.at FROM (SELECT id, min(seq) AS first FROM temp.pending "
    "GROUP BY id) p LEFT JOIN temp.newer n ON n.id = p.id "
    "LEFT JOIN temp.label l ON l.id = p.id LEFT JOIN temp.element t ON t.label = l.label "
    "WHERE NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.segment_id = ? AND "
    "e.embedding_id = p.id) ORDER BY p.first";

static int export_row(struct exporter *x, const struct chroma_collection *c, sqlite3_stmt *row,
		      struct export_vectors *vectors, struct export_values *values,
		      bool has_pending)
{
	struct export_record record = {.collection = c};
	bool exists = sqlite3_column_type(row, 0) != SQLITE_NULL;
	int r = exists ? export_values_load(values, sqlite3_column_int64(row, 0)) : 0;

	record.id = (const char *)sqlite3_column_text(row, 1);
	record.id_size = (size_t)sqlite3_column_bytes(row, 1);
	if (!record.id)
		return 0;
	if (r == 0 && has_pending)
		r = export_values_apply(values, record.id, record.id_size, &exists);
	if (r < 0 || !exists)
		return r;
	if (x->options->vectors && find_vector(vectors, row, 2, 3, &record) < 0)
		record.vector = NULL;
	return give(x, &record, values);
}

static int export_rows(struct exporter *x, const struct chroma_collection *c, const char *sql,
		       struct export_vectors *vectors, struct export_values *values,
		       bool has_pending)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(x->db, &rows, sql);

	if (r == 0)
		sqlite3_bind_text(rows, 1, c->metadata_segment, -1, SQLITE_STATIC);
	while (r == 0 && (r = database_step(rows)) == 1)
		r = export_row(x, c, rows, vectors, values, has_pending);
	sqlite3_finalize(rows);
	return r;
}

/* temp.pending: what the METADATA segment has not applied yet. Returns how many rows. */
static int64_t load_pending(struct exporter *x, const struct chroma_collection *c)
{
	sqlite3_stmt *insert = NULL;
	int64_t rows = 0;
	int r = database_error(sqlite3_exec(
	    x->db,
	    "CREATE TEMP TABLE IF NOT EXISTS pending(id TEXT, seq INTEGER, PRIMARY KEY "
	    "(id, seq)) WITHOUT ROWID; DELETE FROM temp.pending",
	    NULL, NULL, NULL));

	if (r == 0)
		r = database_prepare(x->db, &insert,
				     "INSERT INTO temp.pending SELECT id, seq_id FROM "
				     "embeddings_queue WHERE topic = ? AND seq_id > ?");
	if (r == 0) {
		sqlite3_bind_text(insert, 1, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(insert, 2,
				   (sqlite3_int64)chroma_mark_restore(c->metadata_mark.value));
		r = database_step(insert);
		rows = sqlite3_changes64(x->db);
	}
	sqlite3_finalize(insert);
	if (r < 0)
		export_trouble(x, c, "the queue", r);
	return r < 0 ? 0 : rows;
}

static bool is_wanted(const struct exporter *x, const struct chroma_collection *c)
{
	const char *wanted = x->options->collection;

	return !wanted || strcmp(wanted, c->name) == 0 || strcmp(wanted, c->id) == 0;
}

static int export_collection(void *context, const struct chroma_collection *c)
{
	struct exporter *x = context;
	struct export_vectors vectors = {.level0_fd = -1, .length_fd = -1};
	struct export_values values = {0};
	bool has_pending;
	int r;

	if (!is_wanted(x, c))
		return 0;
	x->summary->collections++;
	has_pending = load_pending(x, c) > 0;
	r = export_vectors_open(&vectors, x, c, true);
	if (r == 0)
		r = export_values_open(&values, x->db);
	if (r == 0)
		r = export_rows(x, c, records_sql, &vectors, &values, has_pending);
	if (r == 0 && has_pending)
		r = export_rows(x, c, new_sql, &vectors, &values, true);
	export_values_close(&values);
	export_vectors_close(&vectors);
	/* What is damaged in one collection leaves the others. */
	if (r == -EBADMSG || r == -ENOENT || r == -EIO) {
		export_trouble(x, c, DATABASE_FILE, r);
		r = 0;
	}
	return r;
}

/* ---- segments without a database ---- */

static int export_elements(struct exporter *x, const struct chroma_collection *c)
{
	struct export_vectors vectors;
	sqlite3_stmt *rows = NULL;
	int r = export_vectors_open(&vectors, x, c, false);

	if (r == 0)
		r = database_prepare(x->db, &rows,
				     "SELECT l.id, NULL, t.at FROM temp.label l LEFT JOIN "
				     "temp.element t ON t.label = l.label ORDER BY l.label");
	while (r == 0 && (r = database_step(rows)) == 1) {
		struct export_record record = {.collection = c};

		record.id = (const char *)sqlite3_column_text(rows, 0);
		record.id_size = (size_t)sqlite3_column_bytes(rows, 0);
		if (find_vector(&vectors, rows, 1, 2, &record) < 0)
			record.vector = NULL;
		r = record.id ? give(x, &record, NULL) : 0;
	}
	sqlite3_finalize(rows);
	export_vectors_close(&vectors);
	return r;
}

/* The space is told by the database only: vectors of cosine collections come out normalised. */
static int export_segments(struct exporter *x)
{
	int fd = dup(x->dirfd);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	int r = 0;

	if (!dir)
		return -EIO;
	rewinddir(dir);
	while (r == 0 && (entry = readdir(dir))) {
		struct chroma_collection c = {.name = entry->d_name};

		if (!chroma_is_uuid(entry->d_name))
			continue;
		snprintf(c.id, sizeof(c.id), "%.40s", entry->d_name);
		snprintf(c.vector_segment, sizeof(c.vector_segment), "%.40s", entry->d_name);
		if (!is_wanted(x, &c))
			continue;
		x->summary->collections++;
		r = export_elements(x, &c);
	}
	closedir(dir);
	return r < 0 || x->summary->collections ? r : -ENOENT;
}

/* ---- the whole ---- */

static int open_empty(struct exporter *x)
{
	return database_error(
	    sqlite3_open_v2(":memory:", &x->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL));
}

int export_directory(const char *path, int dirfd, const struct export_options *options,
		     struct export_summary *out)
{
	struct exporter x = {.path = path, .dirfd = dirfd, .options = options, .summary = out};
	int64_t ignored;
	int r;

	*out = (struct export_summary){0};
	r = faccessat(dirfd, DATABASE_FILE, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
	if (r == 0)
		r = database_open_now(path, dirfd, &x.db);
	if (r == 0)
		r = database_number(x.db, "SELECT count(*) FROM collections", NULL, &ignored);
	if (r == 0) {
		sqlite3_exec(x.db, "PRAGMA temp.cache_size = -16384", NULL, NULL, NULL);
		r = chroma_each_collection(x.db, export_collection, &x);
	} else if (r == -ENOENT || r == -EBADMSG) {
		export_trouble(&x, NULL, DATABASE_FILE, r);
		sqlite3_close(x.db);
		out->without_database = true;
		r = open_empty(&x);
		if (r == 0)
			r = export_segments(&x);
	}
	sqlite3_close(x.db);
	return r;
}
