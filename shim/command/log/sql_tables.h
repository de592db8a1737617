/* SPDX-License-Identifier: MIT
 *
 * The tables of `chromashim log --sql`: their columns, and where a query is in the log.
 */
#ifndef COMMAND_LOG_SQL_TABLES_H
#define COMMAND_LOG_SQL_TABLES_H

#include "command/log/sql.h"
#include "command/log/who.h"
#include "command/log/words.h"

/* ---- columns (sql_columns.c) ---- */

enum column {
	C_TIME,
	C_TIME_NS,
	C_PID,
	C_TID,
	C_PROCESS,
	C_THREAD,
	C_OP,
	C_PATH,
	C_PATH2,
	C_SQL,
	C_COLLECTION,
	C_COLLECTION_ID,
	C_OFFSET,
	C_LENGTH,
	C_RESULT,
	C_ERRNO,
	C_DURATION,
	C_IN_FLIGHT,
	C_FAILED,
	C_TEXT,
	C_DETAIL,
	C_WORDS,
	C_CALLER,
	C_NUMBER,
	C_ADDED,
	C_UPDATED,
	C_UPSERTED,
	C_DELETED,
	C_OTHER,
	C_COUNT,
	C_FIRST,
	C_LAST,
	C_AT_LEAST,
	C_IDS,
	C_OUTCOME,
	C_PAGES,
	C_BYTES,
	C_COOKIE,
};

struct named_column {
	enum column column;
	const char *name, *type;
};

#define COLUMNS_MAX 24

struct sql_table {
	const char *name;
	enum oplog_which which;
	bool (*has)(const struct oplog_entry *e);
	struct named_column columns[COLUMNS_MAX];
};

#define SQL_TABLES 6u
extern const struct sql_table sql_log_tables[SQL_TABLES];

/* ---- where a query is ---- */

struct table {
	sqlite3_vtab base;
	struct sql *q;
	const struct sql_table *of;
};

/* What is asked for. */
struct wanted {
	uint64_t since, until; /* of time_ns; until is the first that is not */
	bool ops_given, ops[256];
	char *path, *collection; /* NULL: any; "": none */
	int64_t pid, tid;	 /* -1: any */
	bool nothing;
};

struct cursor {
	sqlite3_vtab_cursor base;
	struct oplog_reader *reader;
	struct oplog_entry e;
	struct log_meaning m;
	struct wanted wanted;
	struct log_who who;
	struct words words;
	bool explained, eof, needs_who, filters;
	uint64_t second; /* that `when` begins with */
	char when[32];
	int64_t rowid;
};

static inline struct sql *sql_of(const struct cursor *c)
{
	return ((struct table *)c->base.pVtab)->q;
}

static inline const struct sql_table *table_of(const struct cursor *c)
{
	return ((struct table *)c->base.pVtab)->of;
}

/* The value of column n in the row that it is at (sql_values.c); an SQLite code. */
int sql_value(sqlite3_vtab_cursor *base, sqlite3_context *out, int n);

#endif
