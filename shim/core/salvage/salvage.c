/* SPDX-License-Identifier: MIT
 *
 * A malformed database: every row that stands on a page that can be read goes into a new one, and
 * what the schema has lost is what the release of Chroma makes. Indexes and the full-text index are
 * made anew there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/chroma/chroma.h"
#include "core/chroma/migrations.h"
#include "core/salvage/salvage.h"

/* ---- the schema ---- */

static int put_object(struct salvage *s, const struct sqlite_record *record, sqlite3_stmt *put)
{
	int i, code = SQLITE_OK;

	if (!salvage_has_shape(SHAPE_SCHEMA, record))
		return -EBADMSG;
	for (i = 0; i < 5 && code == SQLITE_OK; i++)
		code = salvage_bind(s, put, i + 1, &record->values[i]);
	if (code == SQLITE_OK)
		code = sqlite3_step(put);
	sqlite3_reset(put);
	return database_error(code);
}

static int read_objects(struct salvage *s, uint32_t number, sqlite3_stmt *put)
{
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	struct sqlite_record record;
	uint32_t i;
	int r = salvage_read_page(s, number, &page);

	for (i = 0; r == 0 && i < page.cells; i++) {
		r = sqlite_tree_cell(&page, i, &cell);
		if (r == 0)
			r = sqlite_record_read(&s->reader, &cell, &record);
		if (r == 0)
			r = put_object(s, &record, put);
		if (salvage_is_unreadable(r)) {
			s->has_schema = false;
			r = 0;
		}
	}
	return salvage_is_unreadable(r) ? 0 : r;
}

/* sqlite_schema: what page 1 leads to, and if that has gaps, what looks like it. */
static int read_schema(struct salvage *s)
{
	sqlite3_stmt *pages = NULL, *put = NULL;
	int64_t gaps;
	int error = salvage_claim(s, 1, false);

	if (error == 0)
		error = salvage_sql(s, "CREATE TEMP TABLE object(type TEXT, name TEXT PRIMARY KEY, "
				       "tbl TEXT, root INTEGER, sql TEXT)");
	if (error == 0)
		error = database_number(s->to, "SELECT count(*) FROM gap", NULL, &gaps);
	s->has_schema = error == 0 && gaps == 0;
	if (error == 0)
		error = database_prepare(s->to, &put,
					 "INSERT OR IGNORE INTO object VALUES (?, ?, ?, ?, ?)");
	if (error == 0)
		error = database_prepare(s->to, &pages,
					 "SELECT no FROM page WHERE kind = 13 AND (tree = 1 OR (?1 "
					 "AND tree = 0 AND free "
					 "= 0 AND mask & ?2)) ORDER BY tree DESC, no");
	if (error == 0) {
		sqlite3_bind_int(pages, 1, gaps > 0);
		sqlite3_bind_int(pages, 2, 1 << SHAPE_SCHEMA);
	}
	while (error == 0 && (error = database_step(pages)) == 1)
		error = read_objects(s, (uint32_t)sqlite3_column_int64(pages, 0), put);
	sqlite3_finalize(pages);
	sqlite3_finalize(put);
	return error;
}

static int claim_trees(struct salvage *s)
{
	sqlite3_stmt *roots = NULL;
	int error = database_prepare(
	    s->to, &roots,
	    "SELECT root FROM object WHERE type = 'table' AND root > 1 ORDER BY root");

	while (error == 0 && (error = database_step(roots)) == 1)
		error = salvage_claim(s, (uint32_t)sqlite3_column_int64(roots, 0), false);
	sqlite3_finalize(roots);
	return error < 0 ? error : salvage_claim_rest(s);
}

/* Runs what makes the objects that `from` lists and the new database lacks. */
static int make_objects(struct salvage *s, sqlite3 *from, const char *list, const char *condition)
{
	sqlite3_stmt *rows = NULL;
	char *sql =
	    sqlite3_mprintf("SELECT sql, name FROM %s WHERE sql IS NOT NULL AND %s AND name "
			    "NOT GLOB 'sqlite_*' AND " SALVAGE_NO_SHADOW "ORDER BY rowid",
			    list, condition);
	int error = sql ? database_prepare(from, &rows, sql) : -ENOMEM;

	while (error == 0 && (error = database_step(rows)) == 1) {
		int64_t there = 0;

		error =
		    database_number(s->to, "SELECT count(*) FROM main.sqlite_master WHERE name = ?",
				    (const char *)sqlite3_column_text(rows, 1), &there);
		/* A text that a lost page has spoilt, a unique index over rows that are there
		 * twice: without. */
		if (error == 0 && !there)
			database_create(s->to, (const char *)sqlite3_column_text(rows, 0));
	}
	sqlite3_finalize(rows);
	sqlite3_free(sql);
	return error;
}

/* ---- what release it was ---- */

/* Whether rows of that shape can be of the model's: its table is there, and has the columns. */
static int fits_model(struct salvage *s, sqlite3 *model, bool *fits_out)
{
	uint32_t i;
	int error = 0;

	*fits_out = true;
	for (i = SHAPE_MIGRATIONS; error == 0 && *fits_out && i < SALVAGE_SHAPES; i++) {
		int64_t columns, most = 0;
		char *sql =
		    sqlite3_mprintf("SELECT max(columns) FROM page WHERE free = 0 AND kind = "
				    "13 AND mask = %u",
				    1u << i);

		error = sql ? database_number(s->to, sql, NULL, &most) : -ENOMEM;
		sqlite3_free(sql);
		if (error == 0)
			error = database_number(model, "SELECT count(*) FROM pragma_table_info(?)",
						salvage_shape_tables[i], &columns);
		*fits_out = error == 0 && most <= columns;
	}
	return error;
}

static int make_model(const struct migration_era *era, sqlite3 **out)
{
	int error = database_error(
	    sqlite3_open_v2(":memory:", out, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL));

	return error < 0 ? error : migrations_make(*out, era);
}

/* The oldest release that has what is there: a newer one migrates what is older, not back. */
static int find_model(struct salvage *s, sqlite3 **model_out, const struct migration_era **era_out)
{
	struct migration_state state;
	const struct migration_era *eras;
	unsigned count, i, dir;
	bool fits = false;
	int error = migrations_read(s->to, &state);

	eras = migrations_eras(&count);
	for (i = 0; error == 0 && i < count && !fits; i++) {
		fits = true;
		for (dir = 0; dir < MIGRATION_DIRS; dir++)
			fits = fits && eras[i].counts[dir] >= state.counts[dir];
		if (!fits && i + 1 < count)
			continue;
		sqlite3_close(*model_out);
		error = make_model(&eras[i], model_out);
		if (error == 0 && i + 1 < count)
			error = fits_model(s, *model_out, &fits);
		*era_out = &eras[i];
	}
	return error;
}

/* Only the parts of the schema that are lost are taken from the model. */
static int make_tables(struct salvage *s, sqlite3 **model)
{
	const struct migration_era *era = NULL;
	int error = make_objects(s, s->to, "object", "type = 'table'");

	if (error < 0 || s->has_schema)
		return error;
	error = migrations_record(s->to, &(struct migration_era){.counts = {0}});
	if (error == 0)
		error = salvage_fill_table(s, "migrations");
	if (error == 0)
		error = find_model(s, model, &era);
	if (error == 0)
		error = migrations_record(s->to, era);
	return error < 0 ? error : make_objects(s, *model, "sqlite_master", "type = 'table'");
}

/* Which migrations were applied is told by what they have made. */
static int record_migrations(struct salvage *s)
{
	const struct migration_era *era = NULL;
	int64_t lacks;
	int error = database_number(s->to, "SELECT lacks FROM damage WHERE name = 'migrations'",
				    NULL, &lacks);

	if (error == 0 && lacks)
		error = migrations_recognise(s->to, &era);
	return error == 0 && era ? migrations_record(s->to, era) : error;
}

static int salvage_all(struct salvage *s)
{
	sqlite3 *model = NULL;
	int error = salvage_scan(s);

	if (error == 0)
		error = read_schema(s);
	if (error == 0)
		error = claim_trees(s);
	if (error == 0)
		error = make_tables(s, &model);
	if (error == 0) {
		s->tables = s->damaged = 0;
		error = salvage_fill_tables(s);
	}
	if (error == 0)
		error = record_migrations(s);
	if (error == 0)
		error = salvage_collections(s);
	if (error == 0)
		error = salvage_weigh(s);
	if (error == 0)
		error = make_objects(s, s->to, "object", "type <> 'table'");
	if (error == 0 && model)
		error = make_objects(s, model, "sqlite_master", "type <> 'table'");
	if (error == 0)
		error = fulltext_fill(s->to);
	sqlite3_close(model);
	return error;
}

/* An empty database in the place of one that cannot be read would be no help. */
static int has_content(struct salvage *s)
{
	static const char *const tables[] = {"collections", "embeddings", "embeddings_queue"};
	int64_t rows = 0;
	unsigned i;

	for (i = 0; i < 3 && rows == 0; i++) {
		char sql[64];
		int error;

		snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", tables[i]);
		error = database_number(s->to, sql, NULL, &rows);
		if (error < 0 && error != -ENOENT)
			return error;
	}
	return rows ? 0 : -EBADMSG;
}

int salvage_into(struct salvage *s, const char *file)
{
	int error;

	s->fd = file_open_at(s->dirfd, CHROMA_DATABASE);
	if (s->fd < 0)
		return s->fd;
	error = database_error(
	    sqlite3_open_v2(file, &s->to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL));
	if (error == 0)
		error =
		    salvage_sql(s, "PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; BEGIN");
	if (error == 0)
		error = salvage_all(s);
	if (error == 0 && !(s->help && s->help->has_more))
		error = has_content(s);
	if (error == 0)
		error = salvage_sql(s, "COMMIT");
	sqlite_record_reader_close(&s->reader);
	free(s->page);
	close(s->fd);
	return error;
}
