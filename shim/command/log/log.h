/* SPDX-License-Identifier: MIT
 *
 * The parts of `chromashim log`: which records, and into what they are put.
 */
#ifndef COMMAND_LOG_H
#define COMMAND_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>

#include "core/base/json.h"
#include "core/chroma/collection_names.h"
#include "core/oplog/read.h"

/* ---- which records ---- */

struct log_filter {
	uint64_t since, until; /* ns of CLOCK_REALTIME; until 0: no end */
	const char *ops;       /* comma list of globs, or NULL */
	const char *path;      /* glob, or NULL */

	const char *collection, *id; /* a name or an id; a record's id; or NULL */
	uint64_t slower_than;	     /* ns */
	struct collection_names *names;
	const uint8_t *store_id;

	uint32_t pid, tid; /* 0: any */
	bool failed, in_flight, protected_only;
	bool verbose; /* the log's own records as well */
};

#define LOG_DEATH "death" /* no operation: the end of a process that did not end by itself */

/* Whether each item of a comma list of globs fits some operation; else the first that does not. */
bool log_ops_known(const char *list, char unknown[64]);
bool log_filter_wants(const struct log_filter *f, const struct oplog_entry *e);
/* Whether the name of an operation is in a comma list of globs; NULL: any. */
bool log_op_fits(const char *list, const char *name);
/* Whether some item of the list is of calls alone. */
bool log_ops_are_calls(const char *list);

/* A glob without '/' also fits the last part of a path. */
bool log_path_fits(const char *glob, const char *path);

/* Whether a statement changes something by itself: what a transaction is known by. */
bool log_is_telling(const char *sql);

/* Did the call fail, as its caller saw it? */
bool log_has_failed(const struct oplog_entry *e);

/* ---- what a record says ---- */

struct log_detail {
	const char *key;
	bool is_text;
	int64_t number;
	char text[96];
};

#define LOG_DETAILS 10

/* What a record's numbers mean. */
struct log_meaning {
	char op[24];
	const char *path, *path2; /* NULL: none */
	char path_room[24];	  /* "#12", a name that was never told */
	char path2_room[24];
	const char *sql;
	bool has_offset, has_length, has_result, has_duration;
	int64_t offset;
	uint64_t length;
	int64_t result;
	const char *error; /* name of the errno, or NULL */
	unsigned details;
	struct log_detail detail[LOG_DETAILS];
};

/* Pointers of *m_out live as long as those of *e, and as m_out stays where it is. */
void log_explain(const struct oplog_entry *e, struct log_meaning *m_out);

/* ---- into what ---- */

struct log_options {
	struct log_filter filter;
	bool json, csv, table, follow, utc, quiet;
	bool spent, relative; /* -T, -r */
	bool counts;	      /* -c: a summary as strace has it */
	uint32_t top;	      /* that many of the longest; 0: all, in order */
	const char *dir;      /* the data directory */
	int dirfd, storefd;
	struct oplog_reader *reader; /* that entries come from, or NULL */
	FILE *out;		     /* NULL: stdout */
};

/* Where records go: text, JSON, statistics, transactions, SQL. */
struct log_sink {
	/* An entry is lent for the call. 0 or -errno. */
	int (*entry)(struct log_sink *sink, const struct oplog_entry *e);
	/* All records were given. 0 or an exit status, after a message. */
	int (*end)(struct log_sink *sink);
	void (*free)(struct log_sink *sink);
	/* Wants to see what the filter drops, and filters by itself. */
	bool unfiltered;
};

/* NULL: no memory. */
struct log_sink *log_text_sink(const struct log_options *options);
struct log_sink *log_json_sink(const struct log_options *options);
struct log_sink *log_acts_sink(const struct log_options *options);
struct log_sink *log_processes_sink(const struct log_options *options);
struct log_sink *log_stats_sink(const struct log_options *options);
struct log_sink *log_transactions_sink(const struct log_options *options);

/* The members of an entry in an object that is open. */
void log_put_members(struct json *j, const struct oplog_entry *e, const struct log_meaning *m);
/* The beginning of a line: a time, or with -r what has passed since *last. */
void log_put_time(const struct log_options *options, FILE *out, uint64_t time, uint64_t *last);

/* Says what was wrong with a log that was read to its end. The exit status. */
int log_report_problems(struct oplog_reader *reader, bool quiet);

/* ---- pages to tables ---- */

struct log_tables;

/*
 * Which table or index a page of `database` (in dir) belongs to now, by SQLite's dbstat. The page
 * size in bytes is 0 if the database cannot be read. Never NULL but without memory.
 */
struct log_tables *log_tables_open(const char *dir, const char *database);
void log_tables_close(struct log_tables *tables);
uint32_t log_tables_page_size(const struct log_tables *tables);
const char *log_tables_find(const struct log_tables *tables, uint32_t page); /* NULL: unknown */

#endif
