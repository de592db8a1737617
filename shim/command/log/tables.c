/* SPDX-License-Identifier: MIT
 *
 * Which table a page of a database belongs to now, by SQLite's dbstat on the database opened
 * read-only. An index counts as its table, an FTS shadow table as the FTS table.
 */
#include "command/log/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

#define PAGES_MAX (UINT32_C(1) << 28)

struct log_tables {
	uint32_t page_size;
	uint32_t pages;	 /* entries of owner, page 1 first */
	uint32_t *owner; /* index into names plus 1 */
	char **names;
	uint32_t names_size;
};

static uint32_t name_number(struct log_tables *t, const char *name)
{
	uint32_t i;
	char **names;

	for (i = 0; i < t->names_size; i++)
		if (!strcmp(t->names[i], name))
			return i + 1;
	names = realloc(t->names, (t->names_size + 1) * sizeof(*names));
	if (!names)
		return 0;
	t->names = names;
	names[t->names_size] = strdup(name);
	return names[t->names_size] ? ++t->names_size : 0;
}

static int query_number(sqlite3 *db, const char *sql, int64_t *out)
{
	sqlite3_stmt *statement = NULL;
	int r = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

	if (r == SQLITE_OK)
		r = sqlite3_step(statement);
	if (r == SQLITE_ROW)
		*out = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return r == SQLITE_ROW ? 0 : -1;
}

static void read_owners(struct log_tables *t, sqlite3 *db)
{
	static const char sql[] =
	    "SELECT s.pageno, coalesce((SELECT f.name FROM sqlite_schema f"
	    "	WHERE f.sql LIKE 'CREATE VIRTUAL TABLE%'"
	    "	AND m.tbl_name IN (f.name || '_data', f.name || '_idx', f.name || '_content',"
	    "		f.name || '_docsize', f.name || '_config')), m.tbl_name, s.name)"
	    " FROM dbstat s LEFT JOIN sqlite_schema m ON m.name = s.name";
	sqlite3_stmt *statement = NULL;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		return;
	while (sqlite3_step(statement) == SQLITE_ROW) {
		int64_t page = sqlite3_column_int64(statement, 0);
		const char *name = (const char *)sqlite3_column_text(statement, 1);

		if (name && page >= 1 && page <= t->pages)
			t->owner[page - 1] = name_number(t, name);
	}
	sqlite3_finalize(statement);
}

struct log_tables *log_tables_open(const char *dir, const char *database)
{
	struct log_tables *t = calloc(1, sizeof(*t));
	int64_t size = 0, pages = 0;
	sqlite3 *db = NULL;
	char *path;

	if (!t)
		return NULL;
	path = sqlite3_mprintf("%s/%s", dir, database);
	/* Read-only: a hot journal is then left alone, and the tables are not known. */
	if (path && sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK) {
		sqlite3_busy_timeout(db, 2000);
		if (query_number(db, "PRAGMA page_size", &size) == 0 &&
		    query_number(db, "PRAGMA page_count", &pages) == 0 && pages > 0 &&
		    pages < PAGES_MAX)
			t->owner = calloc((size_t)pages, sizeof(*t->owner));
		if (t->owner) {
			t->page_size = (uint32_t)size;
			t->pages = (uint32_t)pages;
			read_owners(t, db);
		}
	}
	sqlite3_close(db);
	sqlite3_free(path);
	return t;
}

void log_tables_close(struct log_tables *t)
{
	uint32_t i;

	if (!t)
		return;
	for (i = 0; i < t->names_size; i++)
		free(t->names[i]);
	free(t->names);
	free(t->owner);
	free(t);
}

uint32_t log_tables_page_size(const struct log_tables *t)
{
	return t->page_size;
}

const char *log_tables_find(const struct log_tables *t, uint32_t page)
{
	if (page < 1 || page > t->pages || !t->owner[page - 1])
		return NULL;
	return t->names[t->owner[page - 1] - 1];
}
