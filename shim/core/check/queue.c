/* SPDX-License-Identifier: MIT
 *
 * Judging a collection's marks and the rows of the queue that wait for it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/check/internal.h"
#include "core/chroma/queue_json.h"
#include "core/sqlite/database.h"

static void check_mark(struct diagnosis *d, const struct chroma_collection *c,
		       const struct chroma_mark *mark, const char *segment, uint64_t queue_end)
{
	struct diagnose_place place = {.collection = c->name, .segment = segment};
	/* INTEGER since metadb migration 5, which belongs to 1.0.0. */
	bool is_integer = d->summary->migrations.counts[MIGRATION_METADB] >= 5;

	if (mark->type == SQLITE_NULL)
		return;
	if (mark->value >= CHROMA_MARK_POISONED)
		diagnose_report(d, DIAGNOSE_MARK_POISONED, place, "%llu",
				(unsigned long long)mark->value);
	else if (is_integer && mark->type != SQLITE_INTEGER)
		diagnose_report(d, DIAGNOSE_MARK_BLOB, place, "%llu",
				(unsigned long long)mark->value);
	else if (mark->value > queue_end)
		diagnose_report(d, DIAGNOSE_MARK_BEYOND, place, "%llu, the queue ends at %llu",
				(unsigned long long)mark->value, (unsigned long long)queue_end);
}

static int64_t count_rows(struct diagnosis *d, const struct chroma_collection *c, uint64_t after,
			  const char *what)
{
	char sql[256];
	int64_t rows = 0;

	snprintf(sql, sizeof(sql),
		 "SELECT count(*) FROM embeddings_queue WHERE topic = ? AND seq_id > %lld AND %s",
		 (long long)after, what);
	database_number(d->db, sql, c->topic, &rows);
	return rows;
}

/*
 * Rows that Chroma cannot read. Python's releases also read NaN and Infinity in JSON, and INT32.
 */
static const char damaged_sql[] =
    "SELECT count(*), min(seq_id) FROM embeddings_queue WHERE topic = ?1 AND seq_id > ?2 AND ("
    "id IS NULL OR operation NOT BETWEEN 0 AND 4 OR CASE WHEN vector IS NULL THEN operation IN (0, "
    "2) "
    "AND seq_id > ?6 ELSE length(vector) = 0 OR length(vector) % 4 <> 0 OR coalesce(encoding, '') "
    "NOT IN ('FLOAT32', ?4) OR "
    "(?3 > 0 AND length(vector) <> 4 * ?3) END OR CASE WHEN metadata IS NULL THEN 0 "
    "WHEN json_valid(metadata) THEN json_type(metadata) <> 'object' OR "
    "coalesce(json_type(metadata, '$.\"chroma:document\"'), 'null') NOT IN ('text', 'null') "
    "ELSE ?5 OR trim(metadata) NOT GLOB '{*}' END OR (?5 AND mended_json(metadata) NOTNULL) OR "
    "mended_text(metadata, '_') NOTNULL OR mended_text(id, '_') NOTNULL)";

/* What Chroma >= 1.0 will not be able to read. */
static void foretell_rows(struct diagnosis *d, const struct chroma_collection *c, uint64_t after)
{
	struct diagnose_place place = {.collection = c->name, .segment = c->vector_segment};
	int64_t rows = count_rows(d, c, after, "mended_json(metadata) NOTNULL");

	if (rows > 0)
		diagnose_report(d, DIAGNOSE_QUEUE_JSON, place, "%lld rows", (long long)rows);
}

static void check_parameters(struct diagnosis *d, const struct chroma_collection *c)
{
	static const char asked[] =
	    "SELECT group_concat(m.key, ', ') FROM collection_metadata m WHERE m.collection_id = ? "
	    "AND m.key GLOB 'hnsw:*' AND NOT " CHROMA_PARAMETER_FITS;
	sqlite3_stmt *row = NULL;
	int64_t settings = 0;

	if (database_has_column(d->db, "collections", "config_json_str") == 1)
		database_number(d->db,
				"SELECT config_json_str NOTNULL FROM collections WHERE id = ?",
				c->id, &settings);
	if (settings || database_prepare(d->db, &row, asked) < 0)
		return;
	sqlite3_bind_text(row, 1, c->id, -1, SQLITE_STATIC);
	if (database_step(row) == 1 && sqlite3_column_type(row, 0) != SQLITE_NULL)
		diagnose_report(d, DIAGNOSE_PARAMETER,
				(struct diagnose_place){.collection = c->name}, "%.200s",
				(const char *)sqlite3_column_text(row, 0));
	sqlite3_finalize(row);
}

static void check_rows(struct diagnosis *d, const struct chroma_collection *c, uint64_t after)
{
	struct diagnose_place place = {.collection = c->name, .segment = c->vector_segment};
	bool is_rust = d->summary->migrations.counts[MIGRATION_METADB] >= 5;
	sqlite3_stmt *row = NULL;
	int r = queue_json_register(d->db);

	if (r == 0)
		r = database_prepare(d->db, &row, damaged_sql);

	if (r == 0) {
		sqlite3_bind_text(row, 1, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(row, 2, (sqlite3_int64)after);
		sqlite3_bind_int64(row, 3, c->dimension);
		sqlite3_bind_text(row, 4, is_rust ? "FLOAT32" : "INT32", -1, SQLITE_STATIC);
		sqlite3_bind_int(row, 5, is_rust);
		sqlite3_bind_int64(row, 6,
				   (sqlite3_int64)chroma_mark_restore(c->vector_mark.value));
		r = database_step(row);
	}
	if (r == 1 && sqlite3_column_int64(row, 0) > 0)
		diagnose_report(d, DIAGNOSE_QUEUE_DAMAGED, place, "%lld rows, the first is %lld",
				(long long)sqlite3_column_int64(row, 0),
				(long long)sqlite3_column_int64(row, 1));
	sqlite3_finalize(row);
	if (!is_rust && d->backend_is_rust)
		foretell_rows(d, c, after);
	if (!is_rust && !d->backend_is_rust)
		check_parameters(d, c);
}

/* Every record that was made and not deleted since has a row once the segment has applied it. */
static void check_applied(struct diagnosis *d, const struct chroma_collection *c)
{
	struct diagnose_place place = {.collection = c->name, .segment = c->vector_segment};
	sqlite3_stmt *row = NULL;
	int r = database_prepare(d->db, &row,
				 "SELECT count(*), min(id) FROM (" CHROMA_LOST_RECORDS ")");

	if (r == 0) {
		sqlite3_bind_text(row, 1, c->metadata_segment, -1, SQLITE_STATIC);
		sqlite3_bind_text(row, 3, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(row, 5, (sqlite3_int64)c->metadata_mark.value);
		r = database_step(row);
	}
	if (r == 1 && sqlite3_column_int64(row, 0) > 0)
		diagnose_report(d, DIAGNOSE_RECORDS_LOST, place, "%lld, for example %.100s",
				(long long)sqlite3_column_int64(row, 0),
				(const char *)sqlite3_column_text(row, 1));
	sqlite3_finalize(row);
}

void diagnose_queue(struct diagnosis *d, const struct chroma_collection *c)
{
	struct diagnose_place place = {.collection = c->name, .segment = c->vector_segment};
	uint64_t oldest = c->vector_mark.value;
	int64_t rows, end = 0;

	/* Now, in the same transaction as the marks. */
	if (database_number(d->db, "SELECT max(seq_id) FROM embeddings_queue", NULL, &end) < 0)
		return;
	check_mark(d, c, &c->metadata_mark, c->metadata_segment, (uint64_t)end);
	check_mark(d, c, &c->vector_mark, c->vector_segment, (uint64_t)end);
	oldest = c->metadata_mark.value < oldest ? c->metadata_mark.value : oldest;
	if (oldest < CHROMA_MARK_POISONED)
		check_rows(d, c, oldest);
	if (c->metadata_mark.type == SQLITE_NULL || c->metadata_mark.value >= CHROMA_MARK_POISONED)
		return;
	if (d->options->full)
		check_applied(d, c);
	rows = count_rows(d, c, c->metadata_mark.value, "1");
	if (rows > 0)
		diagnose_report(d, DIAGNOSE_QUEUE_UNAPPLIED, place, "%lld rows", (long long)rows);
	/* Only after a first persist: before 0.5.6 the mark was kept in the pickle. */
	if (c->vector_mark.type == SQLITE_NULL || c->vector_mark.value >= CHROMA_MARK_POISONED)
		return;
	rows = count_rows(d, c, c->vector_mark.value, "(vector IS NOT NULL OR operation = 3)");
	if (rows > 2 * c->sync_threshold + 50000) /* a batch may be as large as SQLite allows */
		diagnose_report(d, DIAGNOSE_QUEUE_LAG, place,
				"%lld rows wait, sync_threshold is %lld", (long long)rows,
				(long long)c->sync_threshold);
}
