/* SPDX-License-Identifier: MIT
 *
 * The rows of a damaged database, table by table, into the new one.
 */
#include <errno.h>
#include <string.h>

#include "core/salvage/salvage.h"

bool salvage_is_unreadable(int error)
{
	return error == -EBADMSG || error == -EIO || error == -ENODATA;
}

/* ---- rows ---- */

struct table {
	struct salvage *s;
	const char *name;
	uint32_t root, shape; /* 0: not known */
	uint32_t columns;
	int key; /* column that is the row number; -1: none */
	sqlite3_stmt *put, *in_gap, *owner, *gap, *uncertain;
	bool has_gap;
	uint64_t lost; /* rows on its pages that cannot be read */
	uint64_t doubtful;
};

/* Valid UTF-8 without zeros, as all text of Chroma's is: what a lost page leaves is not. */
static bool is_text(const unsigned char *p, uint64_t size)
{
	uint64_t i, more = 0;

	for (i = 0; i < size; i++) {
		if (more) {
			if ((p[i] & 0xc0) != 0x80)
				return false;
			more--;
		} else if (p[i] >= 0x80) {
			more = p[i] >= 0xf0 ? 3 : p[i] >= 0xe0 ? 2 : 1;
			if (p[i] < 0xc2 || p[i] > 0xf4)
				return false;
		}
	}
	return more == 0;
}

int salvage_bind(const struct salvage *s, sqlite3_stmt *put, int at, const struct sqlite_value *v)
{
	bool is_utf16 = s->has_header && s->header.encoding > 1;

	switch (v->type) {
	case SQLITE_VALUE_INTEGER:
		return sqlite3_bind_int64(put, at, v->integer);
	case SQLITE_VALUE_FLOAT:
		return sqlite3_bind_double(put, at, v->real);
	case SQLITE_VALUE_TEXT:
		if (!is_utf16 && !is_text(v->bytes, v->size))
			return SQLITE_CORRUPT;
		return sqlite3_bind_text64(put, at, (const char *)v->bytes, v->size, SQLITE_STATIC,
					   !is_utf16		     ? SQLITE_UTF8
					   : s->header.encoding == 2 ? SQLITE_UTF16LE
								     : SQLITE_UTF16BE);
	case SQLITE_VALUE_BLOB:
		return sqlite3_bind_blob64(put, at, v->bytes, v->size, SQLITE_STATIC);
	default:
		return sqlite3_bind_null(put, at);
	}
}

/* 1: it is new, 0: it was there already or is none of Chroma's. */
static int put_row(struct table *t, int64_t rowid, const struct sqlite_record *record)
{
	uint32_t i;
	int at = 2, code = record->columns > t->columns ? SQLITE_CORRUPT : SQLITE_OK;

	sqlite3_clear_bindings(t->put);
	sqlite3_bind_int64(t->put, 1, rowid);
	for (i = 0; code == SQLITE_OK && i < record->columns; i++)
		if ((int)i != t->key)
			code = salvage_bind(t->s, t->put, at++, &record->values[i]);
	if (code == SQLITE_OK)
		code = sqlite3_step(t->put);
	sqlite3_reset(t->put);
	if (code == SQLITE_DONE)
		return (int)sqlite3_changes64(t->s->to);
	/* What the table's own rules refuse is no row of Chroma's. */
	return (code & 0xff) == SQLITE_CONSTRAINT ? 0 : database_error(code);
}

/* Whether a statement about one number or text has a row. */
static int answers(sqlite3_stmt *statement)
{
	int r = database_step(statement);

	sqlite3_reset(statement);
	return r;
}

/* A row of a page that no root leads to: 1 if the table lacks it, and what it belongs to is there.
 */
static int is_wanted(struct table *t, int64_t rowid, const struct sqlite_record *record)
{
	const struct sqlite_value *first = &record->values[0];
	int r = 1;

	if (t->root) {
		sqlite3_bind_int64(t->in_gap, 1, rowid);
		r = answers(t->in_gap);
	}
	if (r == 1 && t->owner && first->bytes) {
		sqlite3_bind_text64(t->owner, 1, (const char *)first->bytes, first->size,
				    SQLITE_STATIC, SQLITE_UTF8);
		r = answers(t->owner);
	}
	return r;
}

/* For what is to be told apart later: row `rowid` stood where no root leads to. */
static int note_uncertain(struct table *t, int64_t rowid)
{
	int error;

	t->doubtful += t->has_gap && !t->s->has_freelist;
	if (!t->root)
		return 0;
	sqlite3_bind_int64(t->uncertain, 2, rowid);
	error = database_step(t->uncertain);
	sqlite3_reset(t->uncertain);
	return error;
}

/* 1: the row can be read, also if it is not wanted; *rowid_out is its number. */
static int copy_row(struct table *t, const struct sqlite_tree_page *page, uint32_t i,
		    bool is_certain, int64_t *rowid_out)
{
	struct sqlite_record record;
	struct sqlite_tree_cell cell;
	int r = sqlite_tree_cell(page, i, &cell);

	*rowid_out = cell.rowid;
	if (r == 0)
		r = sqlite_record_read(&t->s->reader, &cell, &record);
	if (r == 0 && (is_certain || (r = is_wanted(t, cell.rowid, &record)) == 1)) {
		r = put_row(t, cell.rowid, &record);
		if (r > 0) {
			t->s->rows++;
			r = is_certain ? 0 : note_uncertain(t, cell.rowid);
		}
	}
	if (salvage_is_unreadable(r)) {
		t->lost++;
		return 0;
	}
	return r < 0 ? r : 1;
}

/* Rows that cannot be read, between two that can: beside one of them if there is no other. */
static int note_lost(struct table *t, bool has_low, int64_t low, bool has_high, int64_t high)
{
	int error;

	sqlite3_bind_int64(t->gap, 2, has_low ? low : has_high ? high - 2 : INT64_MIN);
	sqlite3_bind_int64(t->gap, 3, has_high ? high - 1 : has_low ? low + 1 : INT64_MAX);
	error = database_step(t->gap);
	sqlite3_reset(t->gap);
	return error;
}

static int copy_page(struct table *t, uint32_t number, bool is_certain)
{
	bool has_low = false, lacks = false;
	int64_t low = 0, rowid;
	struct sqlite_tree_page page;
	uint32_t i;
	int r = salvage_read_page(t->s, number, &page);

	for (i = 0; r == 0 && i < page.cells; i++) {
		r = copy_row(t, &page, i, is_certain, &rowid);
		if (r == 0)
			lacks = true;
		if (r <= 0)
			continue;
		r = lacks ? note_lost(t, has_low, low, true, rowid) : 0;
		has_low = true;
		low = rowid;
		lacks = false;
	}
	if (r == 0 && lacks)
		r = note_lost(t, has_low, low, false, 0);
	return salvage_is_unreadable(r) ? 0 : r;
}

/* The pages of its own tree first; the trees of others by their size. */
static int copy_table(struct table *t)
{
	sqlite3_stmt *pages = NULL;
	int error = database_prepare(
	    t->s->to, &pages,
	    "SELECT no, certain FROM page JOIN size USING (tree) WHERE kind = 13 AND ((certain AND "
	    "tree = ?1) OR (?2 AND NOT certain AND free = 0 AND mask & ?3)) "
	    "ORDER BY certain DESC, size.pages DESC, no");

	if (error == 0) {
		sqlite3_bind_int64(pages, 1, t->root);
		sqlite3_bind_int(pages, 2, !t->root || t->has_gap);
		sqlite3_bind_int64(pages, 3, t->shape);
	}
	while (error == 0 && (error = database_step(pages)) == 1)
		error = copy_page(t, (uint32_t)sqlite3_column_int64(pages, 0),
				  sqlite3_column_int(pages, 1));
	sqlite3_finalize(pages);
	return error;
}

/* ---- tables ---- */

static int make_insert(struct table *t)
{
	sqlite3_stmt *columns = NULL;
	char *names = sqlite3_mprintf("rowid"), *marks = sqlite3_mprintf("?"), *sql = NULL;
	int error = database_prepare(t->s->to, &columns,
				     "SELECT name, pk AND type = 'INTEGER' COLLATE NOCASE AND "
				     "(SELECT count(*) FROM pragma_table_info(?1) WHERE pk) = 1 "
				     "FROM pragma_table_info(?1)");

	if (error == 0)
		sqlite3_bind_text(columns, 1, t->name, -1, SQLITE_STATIC);
	while (error == 0 && names && marks && (error = database_step(columns)) == 1) {
		error = 0;
		if (sqlite3_column_int(columns, 1)) {
			t->key = (int)t->columns;
		} else {
			names =
			    sqlite3_mprintf("%z, \"%w\"", names, sqlite3_column_text(columns, 0));
			marks = sqlite3_mprintf("%z, ?", marks);
		}
		t->columns++;
	}
	sqlite3_finalize(columns);
	if (error == 0)
		sql = sqlite3_mprintf("INSERT OR IGNORE INTO main.\"%w\"(%s) VALUES (%s)", t->name,
				      names, marks);
	if (error == 0)
		error = sql ? database_prepare(t->s->to, &t->put, sql) : -ENOMEM;
	sqlite3_free(sql);
	sqlite3_free(names);
	sqlite3_free(marks);
	return error;
}

/* The root that the schema tells, and whether its tree has lost something. */
static int find_root(struct table *t)
{
	static const char gaps_of_root[] = "SELECT count(*) FROM gap WHERE tree = (SELECT root "
					   "FROM object WHERE type = 'table' AND "
					   "name = ?1)";
	int64_t root, gaps = 0;
	int error = database_number(
	    t->s->to, "SELECT root FROM object WHERE type = 'table' AND name = ?1", t->name, &root);

	t->root = (uint32_t)root;
	t->shape = salvage_shape_bit(t->name);
	if (error == 0)
		error = database_number(t->s->to, gaps_of_root, t->name, &gaps);
	t->has_gap = gaps > 0;
	return error;
}

/* Without a root: whole if one tree without gaps has all that looks like it, or an empty page may
 * be it. */
static int find_trees(struct table *t)
{
	char *sql = sqlite3_mprintf(
	    "WITH t AS (SELECT DISTINCT tree FROM page WHERE kind = 13 AND NOT certain AND free = "
	    "0 "
	    "AND mask & %u) SELECT (SELECT count(*) > 1 FROM t) + (SELECT count(*) FROM gap JOIN t "
	    "USING (tree)) + (NOT EXISTS (SELECT 1 FROM t) AND NOT EXISTS (SELECT 1 FROM page "
	    "WHERE kind = 13 AND NOT certain AND free = 0 AND columns = 0))",
	    t->shape);
	int64_t gaps = 0;
	int error = sql ? database_number(t->s->to, sql, NULL, &gaps) : -ENOMEM;

	sqlite3_free(sql);
	t->has_gap = gaps > 0;
	return error;
}

static int row_prepare(struct table *t)
{
	int error = make_insert(t);

	if (error == 0)
		error = find_root(t);
	if (error == 0 && !t->root)
		error = find_trees(t);
	if (error == 0)
		error = database_prepare(t->s->to, &t->in_gap,
					 "SELECT 1 FROM gap WHERE tree = ?2 AND is_deep AND low < "
					 "?1 AND ?1 <= high");
	if (error == 0)
		error = database_prepare(t->s->to, &t->gap, "INSERT INTO gap VALUES (?, ?, ?, 0)");
	if (error == 0)
		error = database_prepare(t->s->to, &t->uncertain,
					 "INSERT OR IGNORE INTO uncertain VALUES (?, ?)");
	if (error == 0 && t->shape == 1u << SHAPE_COLLECTION_METADATA)
		error = database_prepare(t->s->to, &t->owner,
					 strcmp(t->name, "segment_metadata") == 0
					     ? "SELECT 1 FROM segments WHERE id = ?1"
					     : "SELECT 1 FROM collections WHERE id = ?1 UNION "
					       "SELECT 1 FROM segments WHERE collection = ?1");
	if (error < 0)
		return error;
	sqlite3_bind_int64(t->in_gap, 2, t->root);
	sqlite3_bind_int64(t->gap, 1, t->root);
	sqlite3_bind_text(t->uncertain, 1, t->name, -1, SQLITE_STATIC);
	return 0;
}

static int note_damage(const struct table *t)
{
	sqlite3_stmt *put = NULL;
	int error =
	    database_prepare(t->s->to, &put, "INSERT OR REPLACE INTO damage VALUES (?, ?, ?, ?)");

	if (error == 0) {
		sqlite3_bind_text(put, 1, t->name, -1, SQLITE_STATIC);
		sqlite3_bind_int64(put, 2, t->root);
		sqlite3_bind_int(put, 3, t->has_gap || t->lost);
		sqlite3_bind_int64(put, 4, (sqlite3_int64)t->doubtful);
		error = database_step(put);
	}
	sqlite3_finalize(put);
	return error;
}

int salvage_fill_table(struct salvage *s, const char *name)
{
	struct table t = {.s = s, .name = name, .key = -1};
	int error = row_prepare(&t);

	if (error == 0)
		error = copy_table(&t);
	if (error == 0)
		error = note_damage(&t);
	sqlite3_finalize(t.put);
	sqlite3_finalize(t.in_gap);
	sqlite3_finalize(t.owner);
	sqlite3_finalize(t.gap);
	sqlite3_finalize(t.uncertain);
	s->tables++;
	s->damaged += t.has_gap || t.lost;
	s->unreadable += t.lost;
	return error == -ENOENT ? 0 : error; /* WITHOUT ROWID: none of Chroma's */
}

int salvage_fill_tables(struct salvage *s)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(
	    s->to, &rows,
	    "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*' "
	    "AND sql NOT LIKE 'CREATE VIRTUAL%' AND " SALVAGE_NO_SHADOW
	    "ORDER BY name NOT IN ('segments', 'collections'), rowid");

	while (error == 0 && (error = database_step(rows)) == 1)
		error = salvage_fill_table(s, (const char *)sqlite3_column_text(rows, 0));
	sqlite3_finalize(rows);
	return error;
}
