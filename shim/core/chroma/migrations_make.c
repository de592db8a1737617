/* SPDX-License-Identifier: MIT
 *
 * An empty database as a release of Chroma makes it: by running that release's migrations.
 */
#include "core/chroma/migrations.h"

#include <errno.h>
#include <string.h>

#include "core/sqlite/database.h"

static const struct {
	enum migration_dir dir;
	unsigned version;
	const char *sql;
} texts[] = {
#define TEXT(dir, version, sql) {MIGRATION_##dir, version, sql},
#include "core/chroma/migration_texts.def"
#undef TEXT
};

const char *migrations_text(enum migration_dir dir, unsigned version)
{
	unsigned i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (texts[i].dir == dir && texts[i].version == version)
			return texts[i].sql;
	return NULL;
}

/* Chroma makes these two itself. */
static const char first[] =
    "CREATE TABLE IF NOT EXISTS migrations (dir TEXT NOT NULL, version INTEGER NOT NULL, "
    "filename TEXT NOT NULL, sql TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (dir, version))";
static const char first_of_rust[] =
    "CREATE TABLE IF NOT EXISTS acquire_write (id INTEGER PRIMARY KEY, "
    "lock_status INTEGER NOT NULL)";

static int run(sqlite3 *db, const char *sql)
{
	return database_error(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

int migrations_record(sqlite3 *db, const struct migration_era *era)
{
	const struct migration *all;
	sqlite3_stmt *put = NULL;
	unsigned count, i;
	int error = run(db, first);

	if (error == 0)
		error = database_prepare(db, &put,
					 "INSERT OR IGNORE INTO migrations VALUES (?, ?, ?, ?, ?)");
	all = migrations_all(&count);
	for (i = 0; i < count && error == 0; i++) {
		if (all[i].version > era->counts[all[i].dir])
			continue;
		sqlite3_bind_text(put, 1, migration_dir_names[all[i].dir], -1, SQLITE_STATIC);
		sqlite3_bind_int64(put, 2, all[i].version);
		sqlite3_bind_text(put, 3, all[i].filename, -1, SQLITE_STATIC);
		sqlite3_bind_text(put, 4, migrations_text(all[i].dir, all[i].version), -1,
				  SQLITE_STATIC);
		sqlite3_bind_text(put, 5, all[i].md5, -1, SQLITE_STATIC);
		error = database_step(put);
		sqlite3_reset(put);
	}
	sqlite3_finalize(put);
	return error;
}

int migrations_make(sqlite3 *db, const struct migration_era *era)
{
	unsigned dir, version;
	int error = migrations_record(db, era);

	if (error == 0 && era->counts[MIGRATION_METADB] >= MIGRATION_METADB_OF_RUST)
		error = run(db, first_of_rust);
	for (dir = 0; dir < MIGRATION_DIRS; dir++)
		for (version = 1; version <= era->counts[dir] && error == 0; version++)
			error = run(db, migrations_text((enum migration_dir)dir, version));
	return error;
}

/* ---- the other way round ---- */

bool migrations_are_lost(sqlite3 *db, const struct migration_state *m)
{
	static const char *const ask[] = {"SELECT EXISTS (SELECT 1 FROM collections)",
					  "SELECT EXISTS (SELECT 1 FROM embeddings)"};
	int64_t there = 0;
	unsigned i;

	for (i = 0; i < MIGRATION_DIRS; i++)
		if (m->counts[i])
			return false;
	for (i = 0; i < 2 && !there; i++)
		if (database_number(db, ask[i], NULL, &there) < 0)
			there = 0; /* no such table */
	return there;
}

/* Its columns with their types; the caller's to finalize. */
static int ask_columns(sqlite3 *db, const char *table, sqlite3_stmt **out)
{
	int error = database_prepare(db, out,
				     "SELECT coalesce(group_concat(name || ' ' || type), '') FROM "
				     "(SELECT name, type FROM pragma_table_info(?) ORDER BY cid)");

	if (error == 0)
		sqlite3_bind_text(*out, 1, table, -1, SQLITE_STATIC);
	return error < 0 ? error : database_step(*out);
}

/* 1, 0 or -errno. */
static int is_same_table(sqlite3 *db, sqlite3 *model, const char *table)
{
	sqlite3_stmt *mine = NULL, *its = NULL;
	int error = ask_columns(db, table, &mine), same = 0;

	if (error == 1)
		error = ask_columns(model, table, &its);
	if (error == 1)
		same = !strcmp((const char *)sqlite3_column_text(mine, 0),
			       (const char *)sqlite3_column_text(its, 0));
	sqlite3_finalize(mine);
	sqlite3_finalize(its);
	return error < 0 ? error : same;
}

static int fits(sqlite3 *db, const struct migration_era *era)
{
	sqlite3 *model = NULL;
	sqlite3_stmt *tables = NULL;
	int error = database_error(sqlite3_open(":memory:", &model)), same = 1;

	if (error == 0)
		error = migrations_make(model, era);
	if (error == 0)
		error = database_prepare(model, &tables,
					 "SELECT name FROM sqlite_master WHERE type = 'table' AND "
					 "name NOT GLOB 'sqlite_*' AND name NOT IN ('migrations', "
					 "'acquire_write')");
	while (error == 0 && same == 1 && (error = database_step(tables)) == 1) {
		same = is_same_table(db, model, (const char *)sqlite3_column_text(tables, 0));
		error = same < 0 ? same : 0;
	}
	sqlite3_finalize(tables);
	sqlite3_close(model);
	return error < 0 ? error : same;
}

int migrations_recognise(sqlite3 *db, const struct migration_era **era_out)
{
	const struct migration_era *eras;
	unsigned count;
	int r = 0;

	*era_out = NULL;
	eras = migrations_eras(&count);
	while (r == 0 && count--) {
		r = fits(db, &eras[count]);
		if (r == 1)
			*era_out = &eras[count];
	}
	return r < 0 ? r : 0;
}

int migrations_have_holes(sqlite3 *db, const struct migration_state *m,
			  const struct migration_era **era_out)
{
	bool lacks = false;
	unsigned i;
	int error;

	*era_out = NULL;
	if (!m->has_table || m->unknown)
		return 0;
	error = migrations_recognise(db, era_out);
	if (error < 0 || !*era_out)
		return error;
	for (i = 0; i < MIGRATION_DIRS; i++) {
		if (m->counts[i] > (*era_out)->counts[i])
			return 0;
		lacks |= m->counts[i] < (*era_out)->counts[i];
	}
	return m->missing ||
	       (lacks && (*era_out)->counts[MIGRATION_METADB] >= MIGRATION_METADB_OF_RUST);
}
