/* SPDX-License-Identifier: MIT
 *
 * Triggers on Chroma's tables. One that writes into a table of its own (an audit, say) does no
 * harm; SQLite tells what it would do when a write is compiled, which is not run.
 */
#include "core/check/triggers.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "core/chroma/own_tables.h"
#include "core/sqlite/database.h"

struct looking {
	const char *trigger;
	bool writes; /* into Chroma's tables */
};

static int look(void *context, int action, const char *first, const char *second,
		const char *database, const char *trigger)
{
	struct looking *l = context;

	(void)second;
	(void)database;
	if (trigger && first && sqlite3_stricmp(trigger, l->trigger) == 0 &&
	    (action == SQLITE_INSERT || action == SQLITE_UPDATE || action == SQLITE_DELETE))
		l->writes |= chroma_is_own_table(first);
	return SQLITE_OK;
}

/* Compiles a write that fires it. */
static bool triggers_compile(sqlite3 *db, char *sql)
{
	sqlite3_stmt *s = NULL;
	int error = sql ? database_prepare(db, &s, sql) : -ENOMEM;

	sqlite3_finalize(s);
	sqlite3_free(sql);
	return error == 0 || error == -ENOMEM;
}

/* Every column to what it is: a trigger may be for some of them. */
static char *make_update(sqlite3 *db, const char *table)
{
	sqlite3_stmt *row = NULL;
	char *sql = NULL;

	if (database_prepare(db, &row,
			     "SELECT group_concat(printf('\"%w\" = \"%w\"', name, name)) FROM "
			     "pragma_table_info(?)") == 0) {
		sqlite3_bind_text(row, 1, table, -1, SQLITE_STATIC);
		if (database_step(row) == 1 && sqlite3_column_text(row, 0))
			sql = sqlite3_mprintf("UPDATE \"%w\" SET %s", table,
					      (const char *)sqlite3_column_text(row, 0));
	}
	sqlite3_finalize(row);
	return sql;
}

static bool does_harm(sqlite3 *db, const struct trigger *t)
{
	struct looking l = {.trigger = t->name};
	char *update = make_update(db, t->table);
	bool works;

	sqlite3_set_authorizer(db, look, &l);
	works =
	    triggers_compile(db, sqlite3_mprintf("INSERT INTO \"%w\" DEFAULT VALUES", t->table)) &&
	    triggers_compile(db, sqlite3_mprintf("DELETE FROM \"%w\"", t->table));
	if (works)
		works = triggers_compile(db, update);
	else
		sqlite3_free(update);
	sqlite3_set_authorizer(db, NULL, NULL);
	return !works || l.writes || strcasestr(t->sql, "raise");
}

int triggers_each_harmful(sqlite3 *db, trigger_fn *each, void *context)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(db, &rows,
				 "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = "
				 "'trigger' AND name NOTNULL AND tbl_name NOTNULL AND sql NOTNULL");

	while (r == 0 && (r = database_step(rows)) == 1) {
		struct trigger t = {.name = (const char *)sqlite3_column_text(rows, 0),
				    .table = (const char *)sqlite3_column_text(rows, 1),
				    .sql = (const char *)sqlite3_column_text(rows, 2)};

		if (!t.name || !t.table || !t.sql)
			r = -ENOMEM;
		else
			r = chroma_is_own_table(t.table) && does_harm(db, &t) ? each(context, &t)
									      : 0;
	}
	sqlite3_finalize(rows);
	return r;
}
