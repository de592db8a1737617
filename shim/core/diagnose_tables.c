/* SPDX-License-Identifier: MIT
 *
 * Judging what is in chroma.sqlite3: its structure, tables, migrations, marks and queue.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/database.h"
#include "core/diagnose_internal.h"

static const struct diagnose_place database_place = {.file = DATABASE_FILE};
#define FTS "embedding_fulltext_search"

/* ---- structure ---- */

static void report_sqlite(struct diagnosis *d, int r, const char *where)
{
	enum diagnose_code code = r == -EBADMSG ? DIAGNOSE_DATABASE_MALFORMED
				  : r == -EBUSY ? DIAGNOSE_DATABASE_BUSY
				  : r == -EROFS ? DIAGNOSE_JOURNAL_PENDING
						: DIAGNOSE_UNREADABLE;

	diagnose_report(d, code, database_place, "%s: %s", where, sqlite3_errmsg(d->db));
}

/* What a line of the check is about: rows that an index lacks are no loss. */
static enum diagnose_code kind_of(const char *line)
{
	if (strstr(line, "FTS5") || strstr(line, "fts5") || strstr(line, FTS))
		return DIAGNOSE_FTS_MALFORMED;
	if (strstr(line, "missing from index") || strstr(line, "wrong # of entries in index") ||
	    strstr(line, "non-unique entry in index"))
		return DIAGNOSE_INDEX_MALFORMED;
	return DIAGNOSE_DATABASE_MALFORMED;
}

/* Runs a check that answers "ok" or lines; the first line of each kind is reported. */
static int run_check(struct diagnosis *d, const char *sql, const char *where)
{
	sqlite3_stmt *rows = NULL;
	uint64_t seen = 0;
	int r = database_prepare(d->db, &rows, sql);

	while (r == 0 && (r = database_step(rows)) == 1) {
		const char *line = (const char *)sqlite3_column_text(rows, 0);
		enum diagnose_code code;

		r = 0;
		if (!line || strcmp(line, "ok") == 0)
			continue;
		code = kind_of(line);
		if (!(seen & UINT64_C(1) << code))
			diagnose_report(d, code, database_place, "%s", line);
		seen |= UINT64_C(1) << code;
	}
	if (r < 0)
		report_sqlite(d, r, where);
	sqlite3_finalize(rows);
	return seen ? -EBADMSG : r;
}

/* Everything but the full-text index, whose check takes ten times as long as all the rest. */
static int quick_check(struct diagnosis *d)
{
	sqlite3_stmt *tables = NULL;
	char sql[512];
	int r = database_prepare(d->db, &tables,
				 "SELECT name FROM sqlite_master WHERE type = 'table' AND "
				 "rootpage > 0 AND name NOT GLOB '" FTS "*'");

	while (r == 0 && (r = database_step(tables)) == 1) {
		const char *name = (const char *)sqlite3_column_text(tables, 0);

		sqlite3_snprintf(sizeof(sql), sql, "PRAGMA quick_check(%Q)", name);
		r = run_check(d, sql, name);
	}
	if (r < 0 && r != -EBADMSG)
		report_sqlite(d, r, "reading the schema");
	sqlite3_finalize(tables);
	return r;
}

/* Walks the whole inverted index: SQLite < 3.44 has no check of it for a reader. */
static void check_fts(struct diagnosis *d)
{
	int64_t terms;
	int r;

	if (database_has_table(d->db, FTS) != 1)
		return;
	sqlite3_exec(d->db,
		     "CREATE VIRTUAL TABLE temp.fts_walk USING fts5vocab(main, " FTS ", row)", NULL,
		     NULL, NULL);
	r = database_number(d->db, "SELECT sum(cnt) FROM temp.fts_walk", NULL, &terms);
	if (r == -EBADMSG)
		diagnose_report(d, DIAGNOSE_FTS_MALFORMED, database_place, "%s",
				sqlite3_errmsg(d->db));
	sqlite3_exec(d->db, "DROP TABLE IF EXISTS temp.fts_walk", NULL, NULL, NULL);
}

bool diagnose_structure(struct diagnosis *d)
{
	int64_t ignored;
	int r = database_number(d->db, "SELECT count(*) FROM sqlite_master", NULL, &ignored);

	if (r < 0) {
		report_sqlite(d, r, "opening");
		return false;
	}
	if (d->options->full) {
		r = run_check(d, "PRAGMA integrity_check", "integrity_check");
		check_fts(d);
	} else {
		r = quick_check(d);
	}
	diagnose_advance(d, 0);
	return r == 0 || r == -EBADMSG;
}

/* ---- tables and migrations ---- */

static void check_tables(struct diagnosis *d)
{
	static const char *const needed[] = {
	    "collections", "collection_metadata", "segments",	"segment_metadata",
	    "embeddings",  "embedding_metadata",  "max_seq_id", "embeddings_queue",
	};
	/* Python's migrations make these, and drop or rename them in the same script. */
	static const char *const passing[] = {"collections_tmp", "segments_temp"};
	bool is_cut = false;
	unsigned i;

	for (i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
		if (database_has_table(d->db, passing[i]) != 1)
			continue;
		is_cut = true;
		diagnose_report(d, DIAGNOSE_MIGRATION_CUT, database_place, "table %s is left",
				passing[i]);
	}
	for (i = 0; !is_cut && i < sizeof(needed) / sizeof(needed[0]); i++)
		if (database_has_table(d->db, needed[i]) == 0)
			diagnose_report(d, DIAGNOSE_TABLE_MISSING, database_place, "%s", needed[i]);
}

static bool check_migrations(struct diagnosis *d)
{
	struct migration_state *m = &d->summary->migrations;
	int r = migrations_read(d->db, m);

	if (r < 0) {
		report_sqlite(d, r, "table migrations");
		return r == -EBADMSG;
	}
	if (!m->has_table) {
		diagnose_report(d,
				database_has_table(d->db, "collections") == 1
				    ? DIAGNOSE_TABLE_MISSING
				    : DIAGNOSE_NOT_CHROMA,
				database_place, "migrations");
		return database_has_table(d->db, "collections") == 1;
	}
	d->summary->era = migrations_find_era(m->counts);
	if (!d->summary->era || m->missing || m->unknown)
		diagnose_report(d, DIAGNOSE_MIGRATION_GAP, database_place, "%u / %u / %u%s%s",
				m->counts[MIGRATION_QUEUE], m->counts[MIGRATION_METADB],
				m->counts[MIGRATION_SYSDB], m->example[0] ? ", for example " : "",
				m->example);
	if (m->altered)
		diagnose_report(d, DIAGNOSE_MIGRATION_ALTERED, database_place, "%s", m->example);
	return true;
}

bool diagnose_tables(struct diagnosis *d)
{
	int64_t records = 0;

	if (!check_migrations(d))
		return false;
	check_tables(d);
	database_number(d->db,
			"SELECT count(*) FROM embeddings WHERE segment_id IN (SELECT id FROM "
			"segments)",
			NULL, &records);
	d->summary->records = (uint64_t)records;
	return true;
}

/* ---- marks and queue ---- */

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

void diagnose_marks(struct diagnosis *d, const struct chroma_collection *c)
{
	struct diagnose_place place = {.collection = c->name, .segment = c->vector_segment};
	int64_t rows, end = 0;

	/* Now, in the same transaction as the marks. */
	if (database_number(d->db, "SELECT max(seq_id) FROM embeddings_queue", NULL, &end) < 0)
		return;
	check_mark(d, c, &c->metadata_mark, c->metadata_segment, (uint64_t)end);
	check_mark(d, c, &c->vector_mark, c->vector_segment, (uint64_t)end);
	if (c->metadata_mark.type == SQLITE_NULL || c->metadata_mark.value >= CHROMA_MARK_POISONED)
		return;
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
