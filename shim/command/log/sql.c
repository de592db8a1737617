/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: asks the log, and `--export sqlite=FILE`: gives it as a database.
 */
#include "command/log/sql.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/base/output.h"
#include "command/base/terminal.h"
#include "core/sqlite/database.h"

/* ---- what a query may do ---- */

/* It asks the log, and nothing else of this machine; own statements are made without it. */
static int authorize(void *context, int action, const char *a, const char *b, const char *c,
		     const char *d)
{
	(void)context, (void)c, (void)d;
	switch (action) {
	case SQLITE_SELECT:
	case SQLITE_READ:
	case SQLITE_RECURSIVE:
		return SQLITE_OK;
	case SQLITE_FUNCTION:
		return b && (!strcmp(b, "load_extension") || !strcmp(b, "readfile") ||
			     !strcmp(b, "writefile") || !strcmp(b, "fts3_tokenizer"))
			   ? SQLITE_DENY
			   : SQLITE_OK;
	case SQLITE_PRAGMA:
		return a && (!strncmp(a, "table_", 6) || !strcmp(a, "function_list") ||
			     !strcmp(a, "compile_options"))
			   ? SQLITE_OK
			   : SQLITE_DENY;
	default:
		return SQLITE_DENY;
	}
}

/* What SQLite has to sort or to remember is in memory: never a file in /var/tmp. */
static int open_database(struct sql *q)
{
	int r = sqlite3_open(":memory:", &q->db);

	if (r == SQLITE_OK)
		r = sqlite3_exec(q->db, "PRAGMA temp_store=MEMORY", NULL, NULL, NULL);
	if (r == SQLITE_OK)
		r = sql_tables_register(q);
	if (r == SQLITE_OK)
		r = sql_group_register(q);
	return r;
}

/* ---- answers ---- */

static int fail_query(const struct sql *q, int r)
{
	if (terminal_is_gone())
		return EXIT_DONE;
	if (q->error)
		return fail(exit_code_of(q->error), q->error,
			    "Check that the directory belongs to you.",
			    "cannot read the op log in '%s'", q->data->store);
	if (r == SQLITE_NOMEM)
		return fail(
		    EXIT_FAILED, -ENOMEM,
		    "Sorting is done in memory: choose fewer rows with --since or LIMIT, or "
		    "group them.",
		    "--sql: the rows that have to be sorted do not fit into memory");
	return fail(EXIT_USAGE, 0, sql_tables_help, "--sql: %s",
		    q->writes ? "it may ask only, and not write" : sqlite3_errmsg(q->db));
}

/* One statement; *rest is what follows it. An SQLite code. */
static int run_statement(struct sql *q, const char *query, const char **rest)
{
	sqlite3_stmt *s = NULL, *grouped = NULL;
	int r;

	sqlite3_set_authorizer(q->db, authorize, NULL);
	r = sqlite3_prepare_v2(q->db, query, -1, &s, rest);
	sqlite3_set_authorizer(q->db, NULL, NULL);
	if (r != SQLITE_OK || !s)
		return r == SQLITE_OK ? SQLITE_DONE : r;
	if (!sqlite3_stmt_readonly(s)) { /* VACUUM is authorized only when it runs */
		sqlite3_finalize(s);
		q->writes = true;
		return SQLITE_AUTH;
	}
	if (strspn(*rest, " \t\r\n;") == strlen(*rest))
		r = sql_group(q, query, &grouped);
	if (r == 1) {
		sqlite3_finalize(s);
		s = grouped;
	}
	r = r < 0 ? -r : sql_print(q, s, stdout);
	sqlite3_finalize(s);
	return r;
}

int log_sql(const struct log_options *options, const struct data_directory *t, const char *query)
{
	struct sql q = {.options = options, .data = t, .status = EXIT_DONE};
	const char *rest = query;
	int r = open_database(&q), status = EXIT_DONE;

	if (r == SQLITE_OK)
		r = sql_small_fill(&q, query);
	if (r == SQLITE_OK)
		r = SQLITE_DONE;
	while (r == SQLITE_DONE && rest && *rest)
		r = run_statement(&q, rest, &rest);
	if (r != SQLITE_DONE)
		status = fail_query(&q, r);
	sqlite3_close(q.db);
	return status == EXIT_DONE ? q.status : status;
}

/* ---- a database of its own ---- */

static const char copy_tables[] = "BEGIN;"
				  "CREATE TABLE out.ops AS SELECT * FROM ops;"
				  "CREATE TABLE out.acts AS SELECT * FROM acts;"
				  "CREATE TABLE out.records AS SELECT * FROM records;"
				  "CREATE TABLE out.transactions AS SELECT * FROM transactions;"
				  "CREATE TABLE out.persists AS SELECT * FROM persists;"
				  "CREATE TABLE out.processes AS SELECT * FROM temp.processes;"
				  "CREATE TABLE out.snapshots AS SELECT * FROM temp.snapshots;"
				  "CREATE TABLE out.findings AS SELECT * FROM temp.findings;"
				  "CREATE INDEX out.ops_time ON ops(time_ns);"
				  "COMMIT";

/* It is made under another name, and is there when it is whole. */
static int copy_all(struct sql *q, const char *path)
{
	char *attach = sqlite3_mprintf("ATTACH %Q AS out; PRAGMA out.journal_mode=OFF;"
				       "PRAGMA out.synchronous=OFF;",
				       path);
	int r = attach ? open_database(q) : SQLITE_NOMEM;

	if (r == SQLITE_OK)
		r = sql_small_fill(q, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_exec(q->db, attach, NULL, NULL, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_exec(q->db, copy_tables, NULL, NULL, NULL);
	sqlite3_free(attach);
	return r;
}

int log_sql_export(const struct log_options *options, const struct data_directory *t,
		   const char *path)
{
	struct sql q = {.options = options, .data = t, .status = EXIT_DONE};
	char temporary[4200];
	int r, status;

	snprintf(temporary, sizeof(temporary), "%.4000s.%d.new", path, (int)getpid());
	r = copy_all(&q, temporary);
	if (r == SQLITE_OK && sqlite3_close(q.db) == SQLITE_OK && rename(temporary, path) == 0)
		return q.status;
	status = r == SQLITE_FULL ? fail(EXIT_NO_SPACE, 0, "Name a file where there is room.",
					 "there is no room for '%s'", path)
		 : q.error	  ? fail_query(&q, r)
				  : fail(EXIT_FAILED, 0, "Look at the directory of the file.",
					 "cannot write '%s': %s", path, sqlite3_errmsg(q.db));
	sqlite3_close(q.db);
	unlink(temporary);
	return status;
}
