/* SPDX-License-Identifier: MIT
 *
 * Walking the collections and putting each record together.
 */
#include "core/export/export.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/chroma/migrations.h"
#include "core/export/internal.h"
#include "core/salvage/salvage.h"
#include "core/segment/pickle.h"
#include "core/sqlite/database.h"

#define DOCUMENT "chroma:document"
#define URI "chroma:uri"

/* ---- one record ---- */

/* newer and at as SQL found them: NULL if there is none. */
static int find_vector(struct exporter *x, struct export_vectors *v, sqlite3_stmt *row, int newer,
		       int at, struct export_record *out)
{
	int r = -ENODATA;

	if (sqlite3_column_type(row, newer) != SQLITE_NULL) {
		int64_t sequence = sqlite3_column_int64(row, newer);

		return sequence ? export_vector_of_queue(v, sequence, &out->vector, &out->dimension)
				: -ENODATA;
	}
	if (sqlite3_column_type(row, at) != SQLITE_NULL)
		r = export_vector_of_index(v, x, (uint64_t)sqlite3_column_int64(row, at),
					   &out->vector, &out->dimension);
	out->from_index = r == 0;
	out->lacks_length = r == 0 && v->lacks_length;
	if (r < 0) {
		r = export_vector_of_applied(v, x, out->id, out->id_size, &out->vector,
					     &out->dimension);
		out->from_applied = r == 0;
	}
	return r;
}

static int export_give(struct exporter *x, struct export_record *record,
		       struct export_values *values)
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

static int begin(struct exporter *x, const struct chroma_collection *c)
{
	struct export_values metadata = {0}, index = {0};
	struct export_collection told;
	int r = 0;

	x->summary->collections++;
	if (!x->options->begin)
		return 0;
	if (!x->summary->without_database) {
		r = export_values_of_collection(&metadata, x->db, c->id);
		if (r < 0)
			export_trouble(x, c, "its metadata", r);
		r = export_values_of_index(&index, x->db, c);
		if (r < 0)
			export_trouble(x, c, "its index's settings", r);
	}
	told = (struct export_collection){.collection = c,
					  .metadata = metadata.list,
					  .metadata_count = metadata.count,
					  .index = index.list,
					  .index_count = index.count};
	r = x->options->begin(x->options->context, &told);
	export_values_close(&metadata);
	export_values_close(&index);
	return r;
}

/* Rows of `embeddings`, in the order in which they were made; then ids known to the queue only. */
#define COLUMNS "n.seq, t.at, l.label FROM "
#define VECTORS(id)                                                                     \
	" LEFT JOIN temp.newer n ON n.id = " id " LEFT JOIN temp.label l ON l.id = " id \
	" LEFT JOIN temp.element t ON t.label = l.label "
static const char records_sql[] =
    "SELECT e.id, e.embedding_id, " COLUMNS
    "embeddings e" VECTORS("e.embedding_id") "WHERE e.segment_id = ?1 ORDER BY e.id";
static const char new_sql[] =
    "SELECT NULL, p.id, " COLUMNS "(SELECT id, min(seq) AS first FROM temp.pending "
    "GROUP BY id) p" VECTORS(
	"p.id") "WHERE NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.segment_id = ?1 AND "
		"e.embedding_id = p.id) ORDER BY p.first";
/* Without the index over the ids: from a row on. */
static const char unindexed_sql[] =
    "SELECT e.id, e.embedding_id, " COLUMNS "embeddings e NOT INDEXED" VECTORS(
	"e.embedding_id") "WHERE e.segment_id = ?1 AND e.id > ?2 ORDER BY e.id";

struct exporting {
	struct exporter *x;
	const struct chroma_collection *c;
	struct export_vectors vectors;
	struct export_values values;
	bool has_pending, lacks_pending, is_damaged;
	unsigned char *seen; /* a bit for each label */
	uint64_t seen_size;  /* bytes */
};

static bool is_damage(int r)
{
	return r == -EBADMSG || r == -ENOENT || r == -EIO;
}

static void note_damage(struct exporting *g, const char *what, int r)
{
	if (!g->is_damaged)
		export_trouble(g->x, g->c, what, r);
	g->is_damaged = true;
}

static int note_seen(struct exporting *g, uint64_t label)
{
	uint64_t byte = label / 8, size;
	unsigned char *more;

	if (label >= PICKLE_MEMO_MAX)
		return 0;
	if (byte >= g->seen_size) {
		size = 2 * byte + 4096;
		more = realloc(g->seen, size);
		if (!more)
			return -ENOMEM;
		memset(more + g->seen_size, 0, size - g->seen_size);
		g->seen = more;
		g->seen_size = size;
	}
	g->seen[byte] |= (unsigned char)(1 << label % 8);
	return 0;
}

/* By what the queue says last. */
static bool is_deleted(sqlite3_stmt *row)
{
	return sqlite3_column_type(row, 2) != SQLITE_NULL && sqlite3_column_int64(row, 2) == 0;
}

static bool lacks_queue(const struct exporting *g)
{
	return g->lacks_pending || g->vectors.lacks_queue;
}

static int export_row(struct exporting *g, sqlite3_stmt *row)
{
	struct exporter *x = g->x;
	struct export_record record = {.collection = g->c};
	bool exists = sqlite3_column_type(row, 0) != SQLITE_NULL;
	int r = exists ? export_values_load(&g->values, sqlite3_column_int64(row, 0)) : 0;

	record.id = (const char *)sqlite3_column_text(row, 1);
	record.id_size = (size_t)sqlite3_column_bytes(row, 1);
	if (!record.id)
		return 0;
	record.lacks_values = is_damage(r);
	record.lacks_queue = lacks_queue(g);
	if (r == 0 && g->has_pending)
		r = export_values_apply(&g->values, record.id, record.id_size, &exists);
	if (is_damage(r)) { /* with what there was */
		note_damage(g, "the metadata", r);
		r = 0;
	}
	/* An update alone makes none: its row may be lost that the index still has. */
	if (sqlite3_column_type(row, 4) != SQLITE_NULL && (exists || is_deleted(row)))
		r = note_seen(g, (uint64_t)sqlite3_column_int64(row, 4));
	if (r < 0 || !exists)
		return r;
	if (x->options->vectors && find_vector(x, &g->vectors, row, 2, 3, &record) < 0)
		record.vector = NULL;
	return export_give(x, &record, &g->values);
}

/* From row `after` on; *last_out is the last one that was read. */
static int export_rows(struct exporting *g, const char *sql, int64_t after, int64_t *last_out)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(g->x->db, &rows, sql);

	if (r == 0)
		sqlite3_bind_text(rows, 1, g->c->metadata_segment, -1, SQLITE_STATIC);
	if (r == 0 && sql == unindexed_sql)
		sqlite3_bind_int64(rows, 2, after);
	while (r == 0 && (r = database_step(rows)) == 1) {
		*last_out = sqlite3_column_int64(rows, 0);
		r = export_row(g, rows);
	}
	sqlite3_finalize(rows);
	return r;
}

/*
 * The table itself, past the pages that cannot be read: row by row at first, for a page holds some
 * dozens, then in strides that grow.
 */
static int export_unindexed(struct exporting *g, int64_t after)
{
	int64_t last = after, stride = 1;
	unsigned tries = 0;
	int r;

	while ((r = export_rows(g, unindexed_sql, after, &last)) == -EBADMSG || r == -EIO) {
		if (last > after) {
			tries = 0;
			stride = 1;
			after = last;
		}
		if (after > INT64_MAX - stride)
			return 0;
		after += stride;
		last = after;
		if (++tries > 512)
			stride = stride < INT64_MAX / 2 ? 2 * stride : stride;
	}
	return r;
}

/* Ids that only the index knows any more. */
static int export_unseen(struct exporting *g)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(g->x->db, &rows,
				 "SELECT l.id, n.seq, t.at, l.label FROM temp.label l "
				 "LEFT JOIN temp.newer n ON n.id = l.id "
				 "LEFT JOIN temp.element t ON t.label = l.label ORDER BY l.label");

	while (r == 0 && (r = database_step(rows)) == 1) {
		struct export_record record = {
		    .collection = g->c, .only_index = true, .lacks_queue = lacks_queue(g)};
		uint64_t label = (uint64_t)sqlite3_column_int64(rows, 3);

		r = 0;
		if (label / 8 < g->seen_size && g->seen[label / 8] & 1 << label % 8)
			continue;
		record.id = (const char *)sqlite3_column_text(rows, 0);
		record.id_size = (size_t)sqlite3_column_bytes(rows, 0);
		if (record.id && find_vector(g->x, &g->vectors, rows, 1, 2, &record) == 0)
			r = export_give(g->x, &record, NULL);
	}
	sqlite3_finalize(rows);
	return r;
}

static int make_pending(struct exporter *x)
{
	return database_error(
	    sqlite3_exec(x->db,
			 "CREATE TEMP TABLE IF NOT EXISTS pending(id TEXT, seq INTEGER, PRIMARY "
			 "KEY (id, seq)) WITHOUT ROWID; DELETE FROM temp.pending",
			 NULL, NULL, NULL));
}

/* temp.pending: what the METADATA segment has not applied yet. */
static int load_pending(struct exporting *g)
{
	const struct chroma_collection *c = g->c;
	struct exporter *x = g->x;
	sqlite3_stmt *insert = NULL;
	int r = make_pending(x);

	if (r == 0)
		r = database_prepare(x->db, &insert,
				     "INSERT INTO temp.pending SELECT id, seq_id FROM "
				     "embeddings_queue WHERE topic = ? AND seq_id > ?");
	if (r == 0) {
		sqlite3_bind_text(insert, 1, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(insert, 2,
				   (sqlite3_int64)chroma_mark_restore(c->metadata_mark.value));
		r = database_step(insert);
		g->has_pending = r == 0 && sqlite3_changes64(x->db) > 0;
	}
	sqlite3_finalize(insert);
	if (r == 0)
		return 0;
	export_trouble(x, c, "the queue", r);
	g->lacks_pending = true;
	r = export_begin_again(x);
	return r < 0 ? r : make_pending(x);
}

static bool is_wanted(const struct exporter *x, const struct chroma_collection *c)
{
	const char *wanted = x->options->collection;

	return !wanted || strcmp(wanted, c->name) == 0 || strcmp(wanted, c->id) == 0;
}

static int export_all_rows(struct exporting *g)
{
	int64_t last = -1;
	int r = export_rows(g, records_sql, 0, &last);
	/* Not so with a persist of Chroma < 1.0 whose transaction was never committed. */
	bool lost_all = last < 0 && g->c->metadata_mark.type != SQLITE_NULL;

	if (is_damage(r)) {
		note_damage(g, CHROMA_DATABASE, r);
		r = export_unindexed(g, last); /* whose rows are in the same order */
	}
	if (r == 0 && g->has_pending)
		r = export_rows(g, new_sql, 0, &last);
	if (is_damage(r)) {
		note_damage(g, CHROMA_DATABASE, r);
		r = 0;
	}
	if (r == 0 && (!g->c->metadata_segment[0] || !g->c->vector_segment[0]))
		note_damage(g, "its rows in table segments", -ENOENT);
	/* What is damaged in one collection leaves the others. */
	if (r == 0 &&
	    (g->is_damaged || g->x->is_salvaged || g->x->options->only_index || lost_all) &&
	    g->x->options->vectors)
		r = export_unseen(g);
	return r;
}

/* Without a row the files tell its space, if no other row does. */
static void find_space(struct exporter *x, struct chroma_collection *c)
{
	int fd = x->manifest ? -1 : file_follow_directory_at(x->dirfd, c->vector_segment);
	struct hnsw_header header;

	if (fd < 0)
		return;
	if (c->space == CHROMA_L2 && hnsw_header_read(fd, &header) == 0 &&
	    !(hnsw_header_check(&header) & HNSW_FAULT_LAYOUT) &&
	    chroma_space_of_files(fd, &header) == CHROMA_COSINE)
		c->space = CHROMA_COSINE;
	close(fd);
}

static int export_collection(void *context, const struct chroma_collection *found)
{
	struct chroma_collection collection = *found, *c = &collection;
	struct exporting g = {.x = context, .c = c};
	int r;

	if (!is_wanted(g.x, c))
		return 0;
	if (g.x->has_rowless && strcmp(c->id, c->name) == 0)
		find_space(g.x, c);
	r = begin(g.x, c);
	if (r)
		return r;
	r = load_pending(&g);
	if (r == 0)
		r = export_vectors_open(&g.vectors, g.x, c, !g.lacks_pending);
	if (r == 0 && g.vectors.lacks_queue) /* in another transaction now */
		r = load_pending(&g);
	if (r == 0)
		r = export_values_open(&g.values, g.x->db);
	if (r == 0)
		r = export_all_rows(&g);
	if (g.values.malformed)
		export_trouble(g.x, c, "the metadata in the queue", -EBADMSG);
	export_values_close(&g.values);
	export_vectors_close(&g.vectors);
	free(g.seen);
	if (is_damage(r)) {
		export_trouble(g.x, c, CHROMA_DATABASE, r);
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
		if (find_vector(x, &vectors, rows, 1, 2, &record) < 0)
			record.vector = NULL;
		r = record.id ? export_give(x, &record, NULL) : 0;
	}
	sqlite3_finalize(rows);
	export_vectors_close(&vectors);
	return r;
}

/* The space is told by the database only: vectors of cosine collections come out normalised. */
static int export_segment_as(struct exporter *x, const char *segment, enum chroma_space space)
{
	struct chroma_collection c = {.name = segment, .space = space};
	int r;

	snprintf(c.id, sizeof(c.id), "%.40s", segment);
	snprintf(c.vector_segment, sizeof(c.vector_segment), "%.40s", segment);
	if (!is_wanted(x, &c))
		return 0;
	r = begin(x, &c);
	return r ? r : export_elements(x, &c);
}

static int export_segment(struct exporter *x, const char *segment)
{
	return export_segment_as(x, segment, CHROMA_L2);
}

static int open_nothing(struct exporter *x)
{
	x->summary->without_database = true;
	return database_error(
	    sqlite3_open_v2(":memory:", &x->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL));
}

/* ---- the whole ---- */

static int export_without_database(struct exporter *x)
{
	int r = open_nothing(x);

	if (r == 0)
		r = export_each_segment(x, export_segment);
	return r < 0 || x->summary->collections ? r : -ENOENT;
}

/* Whether SQLite finds its way through the tables; rows are not looked at. */
static int try_tables(struct exporter *x)
{
	static const char *const tables[] = {"collections", "segments", "embeddings",
					     "embedding_metadata", "embeddings_queue"};
	char sql[64];
	int64_t ignored;
	unsigned i;
	int r = 0;

	for (i = 0; r == 0 && i < (x->options->pages ? 5 : 1); i++) {
		snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s NOT INDEXED", tables[i]);
		r = database_number(x->db, sql, NULL, &ignored);
		if (i > 0 && r == -ENOENT)
			r = 0; /* the export will tell */
	}
	return r;
}

/*
 * Not to be tried while the vectors are loaded: in a transaction that has met a damaged page SQLite
 * writes no more, not even temporary tables.
 */
static bool try_rows_by_id(struct exporter *x)
{
	int64_t ignored;

	return database_number(x->db,
			       "SELECT (SELECT count(*) FROM embeddings NOT INDEXED) + (SELECT "
			       "count(*) FROM embeddings INDEXED BY sqlite_autoindex_embeddings_1)",
			       NULL, &ignored) == 0;
}

static bool is_empty(struct exporter *x, const char *name)
{
	struct stat st;

	return fstatat(x->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_size == 0;
}

/* Into a database of its own. With a journal or log the file alone is not what there is. */
static int read_pages(struct exporter *x)
{
	struct salvage s = {.dirfd = x->dirfd};
	int error;

	if (x->manifest || !x->options->pages || !is_empty(x, CHROMA_DATABASE "-journal") ||
	    !is_empty(x, CHROMA_DATABASE "-wal"))
		return -EBADMSG;
	sqlite3_close(x->db);
	error = salvage_into(&s, "");
	x->db = s.to;
	x->lost_segments = s.lost_segments;
	return error;
}

/* Which directories are of collections is lost: those that none of what is left has. */
static int export_ownerless(struct exporter *x, const char *segment)
{
	return chroma_has_segment(x->db, segment) == 0 ? export_segment(x, segment) : 0;
}

static int export_tables(struct exporter *x)
{
	int r;

	sqlite3_exec(x->db, "PRAGMA temp.cache_size = -16384", NULL, NULL, NULL);
	r = chroma_each_collection(x->db, export_collection, x);
	return r == 0 && x->lost_segments ? export_each_segment(x, export_ownerless) : r;
}

/* Those that have lost their own row are named by their ids. */
static int put_rowless(struct exporter *x)
{
	int64_t count = 0;
	int r = database_number(x->db, "SELECT count(*) FROM (" CHROMA_TRACED ")", NULL, &count);

	if (r < 0 || !count)
		return r == -ENOMEM ? r : 0; /* why it cannot be read is told by what follows */
	export_trouble(x, NULL, "rows of table collections", -ENOENT);
	x->has_rowless = true;
	return database_error(sqlite3_exec(
	    x->db,
	    "CREATE TEMP TABLE rowless AS " CHROMA_TRACED "; CREATE TEMP TABLE collections AS "
	    "SELECT * FROM main.collections ORDER BY rowid; INSERT INTO temp.collections(id, name) "
	    "SELECT collection, collection FROM rowless",
	    NULL, NULL, NULL));
}

/*
 * A table that is gone (a `reset` that was cut off drops one after the other) hides nothing of the
 * others: an empty one takes its place, and collections are named by their segments.
 */
static int put_stand_ins(struct exporter *x)
{
	static const char *const tables[][2] = {
	    {"collection_metadata",
	     "(collection_id, key, str_value, int_value, float_value, bool_value)"},
	    {"segment_metadata",
	     "(segment_id, key, str_value, int_value, float_value, bool_value)"},
	    {"embeddings",
	     "(id INTEGER PRIMARY KEY, segment_id, embedding_id, seq_id, created_at)"},
	    {"embedding_metadata", "(id, key, string_value, int_value, float_value, bool_value)"},
	    {"max_seq_id", "(segment_id, seq_id)"},
	    {"collections", "AS SELECT collection AS id, id AS name, NULL AS dimension, NULL AS "
			    "database_id FROM segments WHERE scope = 'VECTOR'"},
	};
	int r = database_has_table(x->db, "segments");
	char sql[256];
	unsigned i;

	if (r <= 0)
		return r;
	for (i = 0, r = 1; i < sizeof(tables) / sizeof(tables[0]) && r >= 0; i++) {
		r = database_has_table(x->db, tables[i][0]);
		if (r != 0)
			continue;
		export_trouble(x, NULL, tables[i][0], -ENOENT);
		snprintf(sql, sizeof(sql), "CREATE TEMP TABLE %s %s", tables[i][0], tables[i][1]);
		r = database_error(sqlite3_exec(x->db, sql, NULL, NULL, NULL));
	}
	return r < 0 ? r : put_rowless(x);
}

static int found_segment(struct exporter *x, const char *segment)
{
	(void)x;
	(void)segment;
	return -EEXIST;
}

/* Chroma is making its tables for the first time, and there is no index: there can be no record
 * yet. */
static bool is_unborn(struct exporter *x)
{
	struct migration_state migrations;

	return migrations_read(x->db, &migrations) == 0 &&
	       migrations.counts[MIGRATION_METADB] == 0 &&
	       database_has_table(x->db, "embeddings") == 0 &&
	       export_each_segment(x, found_segment) == 0;
}

static int export_all(struct exporter *x)
{
	struct export_file file = {0};
	int r = export_open_database(x, &file);

	if (r == 0 && is_unborn(x)) {
		sqlite3_close(x->db);
		export_file_close(&file);
		return 0;
	}
	if (r == 0)
		r = put_stand_ins(x);
	if (r == 0)
		r = try_tables(x);
	if (is_damage(r) || r == -ENOENT) {
		export_trouble(x, NULL, CHROMA_DATABASE, r);
		x->is_salvaged = r != -ENOENT && read_pages(x) == 0;
		r = x->is_salvaged ? 0 : r;
	}
	if (r == 0) {
		x->has_rows_by_id = x->options->vectors && try_rows_by_id(x);
		r = export_tables(x);
	} else if (r == -ENOENT || r == -EBADMSG) {
		sqlite3_close(x->db);
		x->db = NULL;
		r = export_without_database(x);
	}
	sqlite3_close(x->db);
	export_file_close(&file);
	return r;
}

int export_directory(const char *path, int dirfd, const struct export_options *options,
		     struct export_summary *out)
{
	struct exporter x = {.path = path, .dirfd = dirfd, .options = options, .summary = out};

	assert(options->record && options->trouble);
	*out = (struct export_summary){0};
	return export_all(&x);
}

int export_segment_alone(int dirfd, const char *segment, enum chroma_space space,
			 const struct export_options *options, struct export_summary *out)
{
	struct exporter x = {.dirfd = dirfd, .options = options, .summary = out};
	int r;

	*out = (struct export_summary){0};
	r = open_nothing(&x);
	if (r == 0)
		r = export_segment_as(&x, segment, space);
	sqlite3_close(x.db);
	return r;
}

int export_snapshot(struct snapshot_store *store, const struct manifest *m,
		    const struct export_options *options, struct export_summary *out)
{
	struct exporter x = {
	    .dirfd = -1, .store = store, .manifest = m, .options = options, .summary = out};

	assert(store->access >= SNAPSHOT_KEEP);
	*out = (struct export_summary){0};
	return export_all(&x);
}
