/* SPDX-License-Identifier: MIT
 *
 * Statements: prepare, step, reset, finalize, exec.
 *
 * One record for each run of a statement. What is not of a protected database goes straight
 * through: two loads, and a look at one line if any protected handle is open.
 */
#include <string.h>

#include "preload/sqlite/calls.h"
#include "preload/sqlite/record.h"

/* Keeps the way of what is not ours free of saved registers. */
#define NOINLINE __attribute__((noinline))

THREAD_LOCAL union slot opened_here;

void sqlite_database_opened(union slot s)
{
	opened_here = s;
}

/* ---- a database that becomes a protected one, by ATTACH ---- */

static bool is_word(const char *sql, const char *word)
{
	while (*word && (*sql | 0x20) == *word) {
		sql++;
		word++;
	}
	return !*word;
}

static bool is_attach(const char *sql)
{
	while (sql && (*sql == ' ' || (*sql >= '\t' && *sql <= '\r') || *sql == ';'))
		sql++;
	return sql && is_word(sql, "attach");
}

static bool has_attach(const char *sql)
{
	while (sql && *sql && !is_word(sql, "attach"))
		sql++;
	return sql && *sql;
}

/* What SQLite then runs to read the schema is its own. */
static void attach_begin(void)
{
	opened_here.all = 0;
	sqlite_depth++;
}

static void attach_end(const struct sqlite_calls *calls, sqlite3 *db)
{
	sqlite_depth--;
	if (opened_here.all)
		sqlite_remember(db, &(struct sqlite_handle){
					.copy = (uint8_t)sqlite_copy_index(calls),
					.protection = opened_here.protection,
					.protected = true,
					.database = opened_here.name,
				    });
}

/* ---- prepare ---- */

struct preparing {
	struct sqlite_calls *calls;
	struct sqlite_handle *db; /* NULL: not known */
	uint64_t begin;		  /* 0: not protected, or SQLite's own call */
};

static inline struct preparing prepare_begin(void *caller, const sqlite3 *db)
{
	struct preparing p = {.db = sqlite_handle_find(db)};

	p.calls = sqlite_calls_for(caller, p.db);
	if (p.db && p.db->protected && !sqlite_depth) {
		p.begin = oplog_now();
		sqlite_depth++;
	}
	return p;
}

static void prepare_failed(const struct preparing *p, int code, const char *sql, int size)
{
	struct oplog_record r = {
	    .op = OP_SQL_PREPARE,
	    .time = p->begin,
	    .duration = oplog_now() - p->begin,
	    .offset = -1,
	    .result = sqlite_result(code),
	};

	sqlite_put_text(p->db, &r, sql,
			!sql	   ? 0
			: size < 0 ? strlen(sql)
				   : strnlen(sql, (size_t)size));
}

static void statement_known(const struct preparing *p, sqlite3 *db, sqlite3_stmt *stmt, bool attach)
{
	struct sqlite_handle h = {
	    .copy = (uint8_t)sqlite_copy_index(p->calls),
	    .attach = attach,
	    .db = db,
	};

	if (p->begin) {
		h.protected = true;
		h.protection = p->db->protection;
		h.database = p->db->database;
		h.read_only = p->calls->sqlite3_stmt_readonly(stmt) != 0;
	}
	sqlite_remember(stmt, &h);
}

/* sql: NULL if it is UTF-16. */
static inline int prepare_end(const struct preparing *p, int ret, sqlite3 *db, const char *sql,
			      int size, sqlite3_stmt *const *stmt)
{
	int saved = errno;
	bool attach;

	if (p->begin)
		sqlite_depth--;
	else if (sqlite_depth)
		return ret;
	if (ret != SQLITE_OK) {
		if (p->begin)
			prepare_failed(p, ret, sql, size);
	} else if (stmt && *stmt) {
		attach = !p->begin && is_attach(sql);
		if (p->begin || attach || sqlite_is_ambiguous())
			statement_known(p, db, *stmt, attach);
	}
	errno = saved;
	return ret;
}

int do_sqlite3_prepare(void *caller, sqlite3 *db, const char *sql, int size, sqlite3_stmt **stmt,
		       const char **tail)
{
	struct preparing p = prepare_begin(caller, db);

	return prepare_end(&p, p.calls->sqlite3_prepare(db, sql, size, stmt, tail), db, sql, size,
			   stmt);
}

int do_sqlite3_prepare_v2(void *caller, sqlite3 *db, const char *sql, int size, sqlite3_stmt **stmt,
			  const char **tail)
{
	struct preparing p = prepare_begin(caller, db);

	return prepare_end(&p, p.calls->sqlite3_prepare_v2(db, sql, size, stmt, tail), db, sql,
			   size, stmt);
}

int do_sqlite3_prepare_v3(void *caller, sqlite3 *db, const char *sql, int size, unsigned int flags,
			  sqlite3_stmt **stmt, const char **tail)
{
	struct preparing p = prepare_begin(caller, db);

	return prepare_end(&p, p.calls->sqlite3_prepare_v3(db, sql, size, flags, stmt, tail), db,
			   sql, size, stmt);
}

int do_sqlite3_prepare16(void *caller, sqlite3 *db, const void *sql, int size, sqlite3_stmt **stmt,
			 const void **tail)
{
	struct preparing p = prepare_begin(caller, db);

	return prepare_end(&p, p.calls->sqlite3_prepare16(db, sql, size, stmt, tail), db, NULL, 0,
			   stmt);
}

int do_sqlite3_prepare16_v2(void *caller, sqlite3 *db, const void *sql, int size,
			    sqlite3_stmt **stmt, const void **tail)
{
	struct preparing p = prepare_begin(caller, db);

	return prepare_end(&p, p.calls->sqlite3_prepare16_v2(db, sql, size, stmt, tail), db, NULL,
			   0, stmt);
}

int do_sqlite3_prepare16_v3(void *caller, sqlite3 *db, const void *sql, int size,
			    unsigned int flags, sqlite3_stmt **stmt, const void **tail)
{
	struct preparing p = prepare_begin(caller, db);

	return prepare_end(&p, p.calls->sqlite3_prepare16_v3(db, sql, size, flags, stmt, tail), db,
			   NULL, 0, stmt);
}

/* ---- a run of a statement ---- */

static void run_begin(const struct sqlite_calls *calls, struct sqlite_handle *h, sqlite3_stmt *stmt,
		      uint64_t now)
{
	const char *sql;

	h->running = true;
	h->begin = now;
	h->spent = h->rows = 0;
	h->changed = 0;
	if (h->sql || !settings.log_sql)
		return;
	sql = calls->sqlite3_sql(stmt);
	if (sql)
		h->sql = sqlite_text_name(h->protection, sql, strlen(sql), &h->cut);
}

static void run_end(const struct sqlite_calls *calls, struct sqlite_handle *h, sqlite3_stmt *stmt,
		    int code)
{
	const char *sql = h->sql || !settings.log_sql ? NULL : calls->sqlite3_sql(stmt);
	struct oplog_record r = {
	    .op = OP_SQL_STEP,
	    .flags = h->cut ? OPLOG_F_CUT : 0,
	    .time = h->begin,
	    .duration = h->spent,
	    .offset = h->changed,
	    .length = h->rows,
	    .result = sqlite_result(code),
	};

	h->running = false;
	sqlite_put_text(h, &r, sql, sql ? strlen(sql) : 0);
}

/* Total changes, not this statement's own: what triggers and foreign keys change counts, too. */
static int changes(const struct sqlite_calls *calls, const struct sqlite_handle *h)
{
	return h->read_only ? 0 : calls->sqlite3_total_changes(h->db);
}

static int step_protected(const struct sqlite_calls *calls, struct sqlite_handle *h,
			  sqlite3_stmt *stmt)
{
	uint64_t now = oplog_now();
	int before, ret, saved;

	if (!h->running)
		run_begin(calls, h, stmt, now);
	before = changes(calls, h);
	sqlite_depth++;
	ret = calls->sqlite3_step(stmt);
	sqlite_depth--;
	saved = errno;
	h->changed += (unsigned)changes(calls, h) - (unsigned)before;
	h->spent += oplog_now() - now;
	if (ret == SQLITE_ROW)
		h->rows++;
	else
		run_end(calls, h, stmt, ret);
	errno = saved;
	return ret;
}

static int step_attach(const struct sqlite_calls *calls, const struct sqlite_handle *h,
		       sqlite3_stmt *stmt)
{
	sqlite3 *db = h->db;
	int ret, saved;

	attach_begin();
	ret = calls->sqlite3_step(stmt);
	saved = errno;
	attach_end(calls, db);
	errno = saved;
	return ret;
}

static NOINLINE int step_known(void *caller, sqlite3_stmt *stmt)
{
	struct sqlite_handle *h = sqlite_handle_find(stmt);
	struct sqlite_calls *calls = sqlite_calls_for(caller, h);

	if (h && h->protected && !sqlite_depth)
		return step_protected(calls, h, stmt);
	if (h && h->attach && !sqlite_depth)
		return step_attach(calls, h, stmt);
	return calls->sqlite3_step(stmt);
}

int do_sqlite3_step(void *caller, sqlite3_stmt *stmt)
{
	if (sqlite_is_plain())
		return sqlite_copies[0].calls.sqlite3_step(stmt);
	return step_known(caller, stmt);
}

static NOINLINE int reset_known(void *caller, sqlite3_stmt *stmt)
{
	struct sqlite_handle *h = sqlite_handle_find(stmt);
	struct sqlite_calls *calls = sqlite_calls_for(caller, h);
	uint64_t begin;
	int ret, saved;

	if (!h || !h->running || sqlite_depth)
		return calls->sqlite3_reset(stmt);
	begin = oplog_now();
	sqlite_depth++;
	ret = calls->sqlite3_reset(stmt); /* which may commit */
	sqlite_depth--;
	saved = errno;
	h->spent += oplog_now() - begin;
	run_end(calls, h, stmt, ret);
	errno = saved;
	return ret;
}

int do_sqlite3_reset(void *caller, sqlite3_stmt *stmt)
{
	if (sqlite_is_plain())
		return sqlite_copies[0].calls.sqlite3_reset(stmt);
	return reset_known(caller, stmt);
}

int do_sqlite3_finalize(void *caller, sqlite3_stmt *stmt)
{
	struct sqlite_handle h;
	bool known = !sqlite_depth && sqlite_handle_take(stmt, &h);
	const struct sqlite_calls *calls = sqlite_calls_for(caller, known ? &h : NULL);
	int ret;

	if (!known || !h.protected)
		return calls->sqlite3_finalize(stmt);
	if (h.running) /* before it: the text goes away with it */
		run_end(calls, &h, stmt, SQLITE_OK);
	sqlite_depth++;
	ret = calls->sqlite3_finalize(stmt);
	sqlite_depth--;
	return ret;
}

/* ---- exec ---- */

struct counting {
	int (*row)(void *, int, char **, char **);
	void *context;
	uint64_t rows;
};

static int count_row(void *context, int columns, char **values, char **names)
{
	struct counting *c = context;

	c->rows++;
	return c->row(c->context, columns, values, names);
}

static int exec_protected(const struct sqlite_calls *calls, const struct sqlite_handle *db_handle,
			  sqlite3 *db, const char *sql, struct counting *c, char **message)
{
	struct sqlite_handle h = *db_handle;
	struct oplog_record r = {.op = OP_SQL_EXEC, .time = oplog_now()};
	int before = calls->sqlite3_total_changes(db), ret, saved;

	sqlite_depth++;
	ret = calls->sqlite3_exec(db, sql, c->row ? count_row : NULL, c->row ? c : c->context,
				  message);
	sqlite_depth--;
	saved = errno;
	r.duration = oplog_now() - r.time;
	r.offset = (unsigned)calls->sqlite3_total_changes(db) - (unsigned)before;
	r.length = c->rows;
	r.result = sqlite_result(ret);
	sqlite_put_text(&h, &r, sql, sql ? strlen(sql) : 0);
	errno = saved;
	return ret;
}

int do_sqlite3_exec(void *caller, sqlite3 *db, const char *sql,
		    int (*row)(void *, int, char **, char **), void *context, char **message)
{
	struct sqlite_handle *h = sqlite_handle_find(db);
	struct sqlite_calls *calls = sqlite_calls_for(caller, h);
	struct counting c = {row, context, 0};
	int ret, saved;

	if (!sqlite_depth && h && h->protected)
		return exec_protected(calls, h, db, sql, &c, message);
	if (sqlite_depth || !has_attach(sql))
		return calls->sqlite3_exec(db, sql, row, context, message);
	attach_begin();
	ret = calls->sqlite3_exec(db, sql, row, context, message);
	saved = errno;
	attach_end(calls, db);
	errno = saved;
	return ret;
}
