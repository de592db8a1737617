/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: the log as the table `log` of an in-memory SQLite database.
 */
#include "command/log/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "command/base/command.h"
#include "command/base/terminal.h"

static const char schema[] =
    "CREATE TABLE log(time TEXT, time_ns INTEGER, pid INTEGER, tid INTEGER, op TEXT,"
    " path TEXT, path2 TEXT, sql TEXT, offset INTEGER, length INTEGER, result INTEGER,"
    " errno TEXT, duration_ns INTEGER, in_flight INTEGER, text TEXT, detail TEXT)";
static const char insert[] = "INSERT INTO log VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

struct sql_sink {
	struct log_sink sink;
	sqlite3 *db;
	sqlite3_stmt *insert;
	const char *query;
	bool json;
	bool failed; /* and said so */
};

/* The query works on the log, and on nothing else of this machine. */
static int authorize(void *context, int action, const char *a, const char *b, const char *c,
		     const char *d)
{
	(void)context, (void)a, (void)c, (void)d;
	if (action == SQLITE_ATTACH || action == SQLITE_DETACH)
		return SQLITE_DENY;
	if (action == SQLITE_FUNCTION && b &&
	    (!strcmp(b, "load_extension") || !strcmp(b, "readfile") || !strcmp(b, "writefile")))
		return SQLITE_DENY;
	return SQLITE_OK;
}

/* {"flags":"O_RDWR","fd":3}, or NULL; the caller frees it. */
static char *details_as_json(const struct log_meaning *m)
{
	char *text = NULL;
	size_t size = 0;
	struct json j = {.out = NULL};
	unsigned i;

	if (!m->details || !(j.out = open_memstream(&text, &size)))
		return NULL;
	json_begin(&j, '{');
	for (i = 0; i < m->details; i++) {
		json_key(&j, m->detail[i].key);
		if (m->detail[i].is_text)
			json_string(&j, m->detail[i].text);
		else
			json_int(&j, m->detail[i].number);
	}
	json_end(&j, '}');
	fclose(j.out);
	return text;
}

static void bind_text(sqlite3_stmt *s, int n, const char *text)
{
	if (text)
		sqlite3_bind_text(s, n, text, -1, SQLITE_TRANSIENT);
	else
		sqlite3_bind_null(s, n);
}

static void bind_number(sqlite3_stmt *s, int n, bool there, int64_t value)
{
	if (there)
		sqlite3_bind_int64(s, n, value);
	else
		sqlite3_bind_null(s, n);
}

/* Where SQLite has its temporary files: sqlite3_os_init() and unixTempFileDir(). */
static const char *temporary_directory(void)
{
	const char *const places[] = {getenv("SQLITE_TMPDIR"), getenv("TMPDIR"), "/var/tmp",
				      "/usr/tmp", "/tmp"};
	size_t i;

	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (places[i] && *places[i] && access(places[i], W_OK | X_OK) == 0)
			return places[i];
	return ".";
}

/* The table has outgrown memory, and its file cannot grow. Returns what ends the reading. */
static int fail_temporary(struct sql_sink *q)
{
	if (!q->failed)
		fail(
		    EXIT_NO_SPACE, 0,
		    "Name a directory with room: SQLITE_TMPDIR=/path; or choose fewer records with "
		    "--since.",
		    "--sql: there is no room for temporary files in '%s': %s",
		    temporary_directory(), sqlite3_errmsg(q->db));
	q->failed = true;
	return -ENOSPC;
}

static int sql_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct sql_sink *q = (struct sql_sink *)sink;
	sqlite3_stmt *s = q->insert;
	struct log_meaning m;
	char when[40], *details;
	int r;

	log_explain(e, &m);
	details = details_as_json(&m);
	bind_text(s, 1, format_time_utc(when, sizeof(when), e->time));
	sqlite3_bind_int64(s, 2, (int64_t)e->time);
	sqlite3_bind_int64(s, 3, e->header->pid);
	sqlite3_bind_int64(s, 4, e->tid);
	bind_text(s, 5, m.op);
	bind_text(s, 6, m.path);
	bind_text(s, 7, m.path2);
	bind_text(s, 8, m.sql);
	bind_number(s, 9, m.has_offset, m.offset);
	bind_number(s, 10, m.has_length, (int64_t)m.length);
	bind_number(s, 11, m.has_result, m.result);
	bind_text(s, 12, m.error);
	bind_number(s, 13, m.has_duration, (int64_t)e->duration);
	sqlite3_bind_int64(s, 14, e->in_flight);
	bind_text(s, 15, e->text_size ? e->text : NULL);
	bind_text(s, 16, details);
	r = sqlite3_step(s);
	sqlite3_reset(s);
	free(details);
	if (r == SQLITE_DONE)
		return 0;
	return r == SQLITE_NOMEM ? -ENOMEM : fail_temporary(q);
}

static void json_value(struct json *j, sqlite3_stmt *s, int column)
{
	switch (sqlite3_column_type(s, column)) {
	case SQLITE_INTEGER:
		json_int(j, sqlite3_column_int64(s, column));
		break;
	case SQLITE_FLOAT:
		json_double(j, sqlite3_column_double(s, column));
		break;
	case SQLITE_NULL:
		json_null(j);
		break;
	default: {
		const char *text = (const char *)sqlite3_column_text(s, column);

		json_bytes(j, text ? text : "", (size_t)sqlite3_column_bytes(s, column));
	}
	}
}

static void print_row(const struct sql_sink *q, sqlite3_stmt *s)
{
	struct json j = {.out = stdout};
	int i, n = sqlite3_column_count(s);

	if (!q->json) {
		for (i = 0; i < n; i++) {
			const char *text = (const char *)sqlite3_column_text(s, i);

			if (i)
				putchar('\t');
			terminal_put_text(stdout, text ? text : "",
					  (size_t)sqlite3_column_bytes(s, i));
		}
		putchar('\n');
		return;
	}
	json_begin(&j, '{');
	for (i = 0; i < n; i++) {
		json_key(&j, sqlite3_column_name(s, i));
		json_value(&j, s, i);
	}
	json_end(&j, '}');
	json_newline(&j);
}

static int fail_query(const struct sql_sink *q)
{
	return fail(
	    EXIT_USAGE, 0,
	    "The table is log(time, time_ns, pid, tid, op, path, path2, sql, offset, length,"
	    " result, errno, duration_ns, in_flight, text, detail).",
	    "--sql: %s", sqlite3_errmsg(q->db));
}

static bool is_out_of_room(const struct sql_sink *q)
{
	int code = sqlite3_errcode(q->db) & 0xff;

	return code == SQLITE_FULL || code == SQLITE_IOERR || code == SQLITE_CANTOPEN;
}

static int sql_end(struct log_sink *sink)
{
	struct sql_sink *q = (struct sql_sink *)sink;
	const char *rest = q->query;
	int r = SQLITE_DONE;

	sqlite3_exec(q->db, "COMMIT; PRAGMA query_only=1", NULL, NULL, NULL);
	sqlite3_set_authorizer(q->db, authorize, NULL);
	while (r == SQLITE_DONE && rest && *rest) {
		sqlite3_stmt *s = NULL;

		if (sqlite3_prepare_v2(q->db, rest, -1, &s, &rest) != SQLITE_OK)
			return fail_query(q);
		while (s && (r = sqlite3_step(s)) == SQLITE_ROW && !terminal_is_gone())
			print_row(q, s);
		sqlite3_finalize(s);
	}
	if (r == SQLITE_DONE || terminal_is_gone())
		return 0;
	if (!is_out_of_room(q))
		return fail_query(q);
	fail_temporary(q);
	return EXIT_NO_SPACE;
}

static void sql_free(struct log_sink *sink)
{
	struct sql_sink *q = (struct sql_sink *)sink;

	sqlite3_finalize(q->insert);
	sqlite3_close(q->db);
	free(q);
}

struct log_sink *log_sql_sink(const struct log_options *options, const char *query)
{
	struct sql_sink *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->sink.entry = sql_entry;
	q->sink.end = sql_end;
	q->sink.free = sql_free;
	q->json = options->json;
	q->query = query;
	/* An empty name is a database of its own that may spill to a temporary file. */
	if (sqlite3_open("", &q->db) != SQLITE_OK ||
	    sqlite3_exec(q->db, schema, NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(q->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(q->db, insert, -1, &q->insert, NULL) != SQLITE_OK) {
		sql_free(&q->sink);
		return NULL;
	}
	return &q->sink;
}
