/* SPDX-License-Identifier: MIT
 *
 * Half a migration. Chroma before 1.0 runs the statements of a migration one by one; killed between
 * two of them, the next start says "table … already exists", "duplicate column name" or "no such
 * table". What the migration that is not recorded has done is taken back here, as far as it must be
 * for Chroma to run it again as a whole.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/database.h"
#include "core/migrations.h"
#include "core/recover_internal.h"

#define FTS "embedding_fulltext_search"

/*
 * Only what stops the migration from running again: some are written with IF NOT EXISTS. A trace:
 * where `found` gives a row although version `version` of `dir` is not recorded, `undo` takes it
 * back. Several of one migration are gone through in this order.
 */
struct trace {
	enum migration_dir dir;
	unsigned version;
	const char *found, *undo;
	const char *empty; /* only if this table is: nobody's records are dropped */
};

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

static const struct trace traces[] = {
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
static int is_there(sqlite3 *db, const struct trace *t, const struct migration_state *m)
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

int migrations_find_half(sqlite3 *db, char *what, size_t room)
{
	struct migration_state m;
	int result = migrations_read(db, &m);
	unsigned i;

	if (result < 0 || !m.has_table)
		return result;
	for (i = 0; i < sizeof(traces) / sizeof(traces[0]); i++) {
		result = is_there(db, &traces[i], &m);
		if (result) {
			snprintf(what, room, "%s %u", migration_dir_names[traces[i].dir],
				 traces[i].version);
			return result;
		}
	}
	return 0;
}

/* A table that has its final name back by the renaming has what the migration records last. */
static int run_all(struct recovery *r, const struct migration_state *m)
{
	unsigned i;
	int result = 0;

	for (i = 0; i < sizeof(traces) / sizeof(traces[0]) && result == 0; i++) {
		result = is_there(r->db, &traces[i], m);
		if (result != 1)
			continue;
		result = recover_sql(r, traces[i].undo);
		if (result == 0) {
			r->healed++;
			recover_say(r, RECOVER_MIGRATION, NULL,
				    "migration %s %u was half done, and was taken back: %s",
				    migration_dir_names[traces[i].dir], traces[i].version,
				    traces[i].undo);
		}
	}
	return result;
}

/* The migration was recorded, and only the renaming at its end is missing. */
static int end_renaming(struct recovery *r)
{
	static const char *const names[][2] = {{"collections_tmp", "collections"},
					       {"segments_temp", "segments"}};
	char sql[128];
	unsigned i;
	int result = 0;

	for (i = 0; i < 2 && result == 0; i++) {
		int left = database_has_table(r->db, names[i][0]);
		int there = database_has_table(r->db, names[i][1]);

		if (left != 1 || there < 0)
			continue;
		if (there)
			snprintf(sql, sizeof(sql), "DROP TABLE %s", names[i][0]);
		else
			snprintf(sql, sizeof(sql), "ALTER TABLE %s RENAME TO %s", names[i][0],
				 names[i][1]);
		result = recover_sql(r, sql);
		if (result == 0) {
			r->healed++;
			recover_say(r, RECOVER_MIGRATION, NULL, "a migration was ended: %s", sql);
		}
	}
	return result;
}

/* `reset` of Chroma >= 1.0 drops this table first of all. */
static int record_again(struct recovery *r)
{
	const struct migration_era *era;
	int result = migrations_recognise(r->db, &era);

	if (result < 0 || !era)
		return result;
	result = migrations_record(r->db, era);
	if (result == 0) {
		r->healed++;
		recover_say(r, RECOVER_MIGRATION, NULL,
			    "which migrations were applied is recorded again, as by Chroma %s to "
			    "%s, whose tables these are",
			    era->first, era->last);
	}
	return result;
}

int recover_migration(struct recovery *r)
{
	struct migration_state m;
	int result = migrations_read(r->db, &m);

	if (result < 0)
		return result == -EBADMSG ? 0 : result;
	if (migrations_are_lost(r->db, &m))
		return record_again(r);
	if (!m.has_table)
		return 0;
	if (result == 0)
		result = recover_sql(r, "BEGIN IMMEDIATE");
	if (result == 0)
		result = run_all(r, &m);
	if (result == 0)
		result = end_renaming(r);
	return result == 0 ? recover_sql(r, "COMMIT") : result;
}
