/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: its parts.
 */
#ifndef COMMAND_LOG_SQL_H
#define COMMAND_LOG_SQL_H

#include <sqlite3.h>

#include "command/base/command.h"
#include "command/log/log.h"

struct sql {
	const struct log_options *options;
	const struct data_directory *data;
	sqlite3 *db;
	int error;  /* the log could not be read, -errno */
	int status; /* EXIT_WARNINGS: what was read is damaged */
	bool reported;
	bool writes;		   /* the statement is refused for that */
	struct sql_groups *groups; /* of the query that is grouped */
};

/* Tables over the log, read as they are asked: ops, acts, records, transactions, persists, log
 * (sql_tables.c). An SQLite code. */
int sql_tables_register(struct sql *q);
extern const char sql_tables_help[];

/* Tables that are small, filled in if the query names them: processes, snapshots, findings
 * (sql_small.c). An SQLite code. */
int sql_small_fill(struct sql *q, const char *query);

/*
 * A query that groups one of the tables: SQLite would sort all of its rows first. 1: it was
 * answered by grouping them while they are read, and *out gives its rows; 0: it is none of that
 * kind, or cannot be told; or -SQLite code. (sql_group.c)
 */
int sql_group(struct sql *q, const char *query, sqlite3_stmt **out);
int sql_group_register(struct sql *q);

/* Prints all rows of a statement; an SQLite code, as sqlite3_step() ended (sql_print.c). */
int sql_print(struct sql *q, sqlite3_stmt *s, FILE *out);

/* The exit status. */
int log_sql(const struct log_options *options, const struct data_directory *t, const char *query);
/* The same into a SQLite file of its own, with all tables. */
int log_sql_export(const struct log_options *options, const struct data_directory *t,
		   const char *path);

#endif
