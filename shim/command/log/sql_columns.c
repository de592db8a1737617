/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: which tables there are, with which records and columns.
 */
#include "command/log/sql_tables.h"

static bool has_all(const struct oplog_entry *e)
{
	return e->op != OP_THREAD && !(e->op == OP_START && e->arg);
}

static bool has_news(const struct oplog_entry *e)
{
	return words_is_news(e);
}

static bool has_records(const struct oplog_entry *e)
{
	return e->op == OP_RECORDS;
}

static bool has_transactions(const struct oplog_entry *e)
{
	return e->op >= OP_TXN_COMMIT && e->op <= OP_TXN_RECOVER;
}

static bool has_persists(const struct oplog_entry *e)
{
	return e->op >= OP_PERSIST_COMMIT && e->op <= OP_PERSIST_FREEZE;
}

#define WHEN_AND_WHO                                                                            \
	{C_TIME, "time", "TEXT"}, {C_TIME_NS, "time_ns", "INTEGER"}, {C_PID, "pid", "INTEGER"}, \
	{                                                                                       \
		C_TID, "tid", "INTEGER"                                                         \
	}

const struct sql_table sql_log_tables[SQL_TABLES] = {
    {"log",
     OPLOG_CALLS,
     has_all,
     {WHEN_AND_WHO,
      {C_OP, "op", "TEXT"},
      {C_PATH, "path", "TEXT"},
      {C_PATH2, "path2", "TEXT"},
      {C_SQL, "sql", "TEXT"},
      {C_OFFSET, "offset", "INTEGER"},
      {C_LENGTH, "length", "INTEGER"},
      {C_RESULT, "result", "INTEGER"},
      {C_ERRNO, "errno", "TEXT"},
      {C_DURATION, "duration_ns", "INTEGER"},
      {C_IN_FLIGHT, "in_flight", "INTEGER"},
      {C_TEXT, "text", "TEXT"},
      {C_DETAIL, "detail", "TEXT"}}},
    {"ops",
     OPLOG_BOTH,
     has_all,
     {WHEN_AND_WHO,
      {C_PROCESS, "process", "TEXT"},
      {C_OP, "op", "TEXT"},
      {C_PATH, "path", "TEXT"},
      {C_PATH2, "path2", "TEXT"},
      {C_SQL, "sql", "TEXT"},
      {C_COLLECTION, "collection", "TEXT"},
      {C_OFFSET, "offset", "INTEGER"},
      {C_LENGTH, "length", "INTEGER"},
      {C_RESULT, "result", "INTEGER"},
      {C_ERRNO, "errno", "TEXT"},
      {C_DURATION, "duration_ns", "INTEGER"},
      {C_IN_FLIGHT, "in_flight", "INTEGER"},
      {C_FAILED, "failed", "INTEGER"},
      {C_TEXT, "text", "TEXT"},
      {C_DETAIL, "detail", "TEXT"}}},
    {"acts",
     OPLOG_ACTS,
     has_news,
     {WHEN_AND_WHO,
      {C_PROCESS, "process", "TEXT"},
      {C_THREAD, "thread", "TEXT"},
      {C_OP, "op", "TEXT"},
      {C_COLLECTION, "collection", "TEXT"},
      {C_COUNT, "records", "INTEGER"},
      {C_DURATION, "duration_ns", "INTEGER"},
      {C_FAILED, "failed", "INTEGER"},
      {C_CALLER, "caller", "TEXT"},
      {C_WORDS, "words", "TEXT"}}},
    {"records",
     OPLOG_ACTS,
     has_records,
     {WHEN_AND_WHO,
      {C_PROCESS, "process", "TEXT"},
      {C_THREAD, "thread", "TEXT"},
      {C_NUMBER, "transaction_number", "INTEGER"},
      {C_COLLECTION, "collection", "TEXT"},
      {C_COLLECTION_ID, "collection_id", "TEXT"},
      {C_ADDED, "added", "INTEGER"},
      {C_UPDATED, "updated", "INTEGER"},
      {C_UPSERTED, "upserted", "INTEGER"},
      {C_DELETED, "deleted", "INTEGER"},
      {C_OTHER, "other", "INTEGER"},
      {C_COUNT, "records", "INTEGER"},
      {C_AT_LEAST, "at_least", "INTEGER"},
      {C_FIRST, "first_seq", "INTEGER"},
      {C_LAST, "last_seq", "INTEGER"},
      {C_CALLER, "caller", "TEXT"},
      {C_IDS, "ids", "TEXT"}}},
    {"transactions",
     OPLOG_BOTH,
     has_transactions,
     {WHEN_AND_WHO,
      {C_PROCESS, "process", "TEXT"},
      {C_NUMBER, "number", "INTEGER"},
      {C_PATH, "path", "TEXT"},
      {C_OUTCOME, "outcome", "TEXT"},
      {C_DURATION, "duration_ns", "INTEGER"},
      {C_PAGES, "pages", "INTEGER"},
      {C_BYTES, "bytes", "INTEGER"},
      {C_COOKIE, "schema_cookie", "INTEGER"}}},
    {"persists",
     OPLOG_ACTS,
     has_persists,
     {WHEN_AND_WHO,
      {C_PROCESS, "process", "TEXT"},
      {C_NUMBER, "number", "INTEGER"},
      {C_PATH, "segment", "TEXT"},
      {C_COLLECTION, "collection", "TEXT"},
      {C_OUTCOME, "outcome", "TEXT"},
      {C_DURATION, "duration_ns", "INTEGER"},
      {C_PAGES, "sync_ns", "INTEGER"},
      {C_COUNT, "elements", "INTEGER"},
      {C_BYTES, "preimage_bytes", "INTEGER"},
      {C_CALLER, "caller", "TEXT"},
      {C_WORDS, "words", "TEXT"}}},
};
