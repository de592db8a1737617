/* SPDX-License-Identifier: MIT
 *
 * Half a migration. Chroma before 1.0 runs the statements of a migration one by one; killed between
 * two of them, the next start says "table … already exists", "duplicate column name" or "no such
 * table". Here stands what such a migration leaves behind, and what takes that back, as far as it
 * must be for Chroma to run it again as a whole.
 */
#include <stdio.h>

#include "core/chroma/migrations.h"
#include "core/sqlite/database.h"

#define FTS "embedding_fulltext_search"

/*
 * Only what stops the migration from running again: some are written with IF NOT EXISTS. Where
 * `found` gives a row although version `version` of `dir` is not recorded, `undo` takes it back.
 * Several of one migration are gone through in this order.
 */

#define TABLE(name) "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '" name "'"
#define NO_TABLE(name) \
	"NOT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '" name "')"
#define COLUMN(table, name) "SELECT 1 FROM pragma_table_info('" table "') WHERE name = '" name "'"
#define NO_COLUMN(table, name) \
	TABLE(table)           \
	" AND NOT EXISTS (SELECT 1 FROM pragma_table_info('" table "') WHERE name = '" name "')"
#define DROP_COLUMN(table, name) "ALTER TABLE " table " DROP COLUMN " name

#define FRESH(dir, version, name)                                   \
	{                                                           \
		dir, version, TABLE(name), "DROP TABLE " name, name \
	}

static const struct migration_trace traces[] = {
    FRESH(MIGRATION_QUEUE, 1, "embeddings_queue"),
    FRESH(MIGRATION_METADB, 1, "embeddings"),
    FRESH(MIGRATION_METADB, 1, "embedding_metadata"),
    FRESH(MIGRATION_METADB, 1, "max_seq_id"),
    FRESH(MIGRATION_METADB, 1, "embedding_fulltext"),
    FRESH(MIGRATION_SYSDB, 1, "collections"),
    FRESH(MIGRATION_SYSDB, 1, "collection_metadata"),
    FRESH(MIGRATION_SYSDB, 2, "segments"),
    FRESH(MIGRATION_SYSDB, 2, "segment_metadata"),
    {MIGRATION_SYSDB, 3, COLUMN("collections", "dimension"),
     DROP_COLUMN("collections", "dimension"), "collections"},
    {MIGRATION_QUEUE, 2, TABLE("embeddings_queue_config"), "DROP TABLE embeddings_queue_config",
     NULL},
    {MIGRATION_METADB, 2, COLUMN("embedding_metadata", "bool_value"),
     DROP_COLUMN("embedding_metadata", "bool_value"), NULL},
    {MIGRATION_METADB, 3, TABLE(FTS) " AND " NO_TABLE("embedding_fulltext"),
     "CREATE VIRTUAL TABLE embedding_fulltext USING fts5(id, string_value)", NULL},
    {MIGRATION_METADB, 3, TABLE(FTS), "DROP TABLE " FTS, NULL},
    /* The table of the new form serves as the old one: the migration names the columns it reads. */
    {MIGRATION_SYSDB, 4, TABLE("collections_tmp") " AND " NO_TABLE("collections"),
     "ALTER TABLE collections_tmp RENAME TO collections", NULL},
    /* It drops these columns; what was in them is not read before. */
    {MIGRATION_SYSDB, 5, NO_COLUMN("collections", "topic"),
     "ALTER TABLE collections ADD COLUMN topic TEXT", NULL},
    {MIGRATION_SYSDB, 5, NO_COLUMN("segments", "topic"),
     "ALTER TABLE segments ADD COLUMN topic TEXT", NULL},
    {MIGRATION_SYSDB, 6, COLUMN("collection_metadata", "bool_value"),
     DROP_COLUMN("collection_metadata", "bool_value"), NULL},
    {MIGRATION_SYSDB, 6, COLUMN("segment_metadata", "bool_value"),
     DROP_COLUMN("segment_metadata", "bool_value"), NULL},
    {MIGRATION_SYSDB, 7, COLUMN("collections", "config_json_str"),
     DROP_COLUMN("collections", "config_json_str"), NULL},
    {MIGRATION_SYSDB, 8, TABLE("maintenance_log"), "DROP TABLE maintenance_log", NULL},
    {MIGRATION_SYSDB, 9, TABLE("segments_temp") " AND " NO_TABLE("segments"),
     "ALTER TABLE segments_temp RENAME TO segments", NULL},
    {MIGRATION_SYSDB, 9, TABLE("segments_temp"), "DROP TABLE segments_temp", NULL},
};

/* 1, 0 or -errno. */
static int is_there(sqlite3 *db, const struct migration_trace *t, const struct migration_state *m)
{
	sqlite3_stmt *s = NULL;
	char sql[96];
	int64_t rows;
	int result;

	/* Of a migration that ran as a whole, or that cannot have begun. */
	if (m->counts[t->dir] >= t->version || m->counts[t->dir] + 1 < t->version)
		return 0;
	result = database_prepare(db, &s, t->found);
	if (result == 0)
		result = database_step(s);
	sqlite3_finalize(s);
	if (result == 1 && t->empty) {
		snprintf(sql, sizeof(sql), "SELECT EXISTS (SELECT 1 FROM %s)", t->empty);
		result = database_number(db, sql, NULL, &rows);
		return result < 0 ? result : !rows;
	}
	return result;
}

int migrations_next_trace(sqlite3 *db, const struct migration_state *m, unsigned *at,
			  const struct migration_trace **out)
{
	int result = 0;

	while (*at < sizeof(traces) / sizeof(traces[0]) && result == 0) {
		*out = &traces[(*at)++];
		result = is_there(db, *out, m);
	}
	return result;
}

int migrations_find_half(sqlite3 *db, char *what, size_t room)
{
	const struct migration_trace *trace;
	struct migration_state m;
	unsigned at = 0;
	int result = migrations_read(db, &m);

	if (result < 0 || !m.has_table)
		return result;
	result = migrations_next_trace(db, &m, &at, &trace);
	if (result == 1)
		snprintf(what, room, "%s %u", migration_dir_names[trace->dir], trace->version);
	return result;
}
