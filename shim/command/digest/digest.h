/* SPDX-License-Identifier: MIT
 *
 * The log in numbers: it is read once, from its beginning to its end, and what is in memory does
 * not grow with it. Time is cut into buckets that double their width as the log goes on, durations
 * fall into classes, and of rows with a name there are so many at most; what has no room in a table
 * is counted under one name together.
 *
 * report, blame, support and top show it, each in its way.
 */
#ifndef COMMAND_DIGEST_H
#define COMMAND_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command/base/latency.h"
#include "core/oplog/read.h"

#define DIGEST_BUCKETS 128u
#define DIGEST_ROWS 1024u /* of a table */
#define DIGEST_TOP 15u	  /* transactions that are told one by one */
#define DIGEST_EVENTS 64u /* of a kind, the newest */
#define DIGEST_TEXT 240u
#define DIGEST_LINE 1536u /* of what the library said: whole, with what to do */
#define DIGEST_TABLES 12u /* of a transaction */
#define DIGEST_OTHERS "(others)"

/* A number for each stretch of time. */
struct digest_series {
	uint64_t at[DIGEST_BUCKETS];
};

/* ---- rows with a name ---- */

enum digest_table {
	DIGEST_FILES,	    /* by path */
	DIGEST_COLLECTIONS, /* by id */
	DIGEST_SEGMENTS,    /* of vectors, by directory; what persists say */
	DIGEST_STATEMENTS,  /* by their text */
	DIGEST_PAGES,	    /* of the database, by the table that they belong to */
	DIGEST_CALLERS,	    /* by the line of the program that called Chroma */
	DIGEST_TABLE_COUNT,
};

/* What has no meaning in a table is 0. */
struct digest_row {
	char *name;
	uint64_t calls,
	    call_ns; /* a statement's runs, a segment's persists, a line's commits and persists */
	uint64_t max_ns;
	uint64_t writes, written; /* bytes */
	uint64_t syncs, sync_ns;
	uint64_t grown; /* bytes, since its size is known */
	uint64_t size, size_before;
	uint64_t most; /* its greatest size so far: growth is what goes beyond */
	bool size_known;
	uint64_t rows; /* changed by a statement */
	uint64_t added, updated, upserted, deleted, other, purged, commits;
	/* The greatest deletion by one commit. */
	uint64_t deleted_most, deleted_at;
	uint32_t deleted_by;	      /* pid */
	bool at_least;		      /* of some commits not all could be told */
	uint64_t first, last;	      /* when */
	struct digest_series by_time; /* bytes; records of a collection */
	struct digest_series grown_by_time;
};

struct digest_rows {
	struct digest_row **list;
	size_t count;
	uint32_t *places; /* of a hash: index in list plus 1 */
	size_t place_count;
};

/* ---- transactions ---- */

struct digest_transaction {
	uint64_t number, begin, duration, pages, bytes, syncs, sync_ns;
	uint32_t pid, tid;
	bool schema, rolled_back;
	char statement[DIGEST_TEXT]; /* the first that tells, "": none was seen */
	unsigned statements;
	const char *tables[DIGEST_TABLES];
	unsigned table_count;
};

/* ---- processes ---- */

struct digest_open {
	struct digest_transaction t; /* of a persist: number, begin, bytes, syncs */
	bool is_persist;
	char name[256];	  /* the database, or the segment's directory */
	uint64_t records; /* put into the queue and not committed yet */
};

#define DIGEST_OPEN 16u /* of a process at a time */

struct digest_process {
	struct oplog_header header;
	char command[DIGEST_TEXT]; /* its command line, or its program */
	uint64_t first, last;
	bool exited, wrote;
	bool starts; /* its start is in the log */
	int stopped_by;
	int exit_status; /* of one that ended by itself; -1: not known */
	uint64_t calls, written, syncs, sync_ns, commits, commit_ns, records, refused, in_flight;
	/* The last commit that put records into the queue. */
	uint64_t told_at, told_seq;
	char told_in[64];   /* the collection's id */
	bool told_is_guess; /* by the tables of a transaction only */
	struct digest_open open[DIGEST_OPEN];
	unsigned open_count;
	/* A statement that commits by itself began before its transaction. */
	char statement[DIGEST_TEXT];
	uint64_t statement_end;
	uint32_t statement_tid;
};

/* ---- what happened ---- */

enum digest_event_kind {
	DIGEST_START,
	DIGEST_END,
	DIGEST_REFUSAL,
	DIGEST_SPACE,
	DIGEST_UPGRADE, /* a migration, or the schema changed */
	DIGEST_SNAPSHOT,
	DIGEST_COLLECTION, /* made, renamed, configured, deleted */
	DIGEST_PERSIST_UNDONE,
	DIGEST_RECOVERED, /* a transaction that a dead process left was undone */
	DIGEST_VACUUM,
	DIGEST_PROTECTED, /* announced through the API */
	DIGEST_NOTE,
	DIGEST_EVENT_KINDS,
};

struct digest_event {
	uint64_t time;
	uint32_t pid;
	uint16_t op;
	uint64_t number;
	char name[DIGEST_TEXT];
	char text[DIGEST_LINE];
};

struct digest_events {
	uint64_t count;
	struct digest_event last[DIGEST_EVENTS]; /* a ring: count % DIGEST_EVENTS is the next */
	struct digest_series by_time;
};

/* ---- a moment, and what came after it ---- */

struct digest_moment {
	uint64_t time;
	uint64_t records, commits; /* between it and the next one, and after the last */
};

/* ---- the whole ---- */

struct digest {
	uint64_t since, until; /* until 0: no end */
	uint64_t start, width; /* of the first bucket, ns */
	uint64_t first, last;  /* of what was read */
	uint64_t entries, in_flight;
	uint64_t grown; /* by files whose size is known; a journal comes and goes */
	uint64_t written, records, commits, rolled_back, syncs, sync_ns, persists, refused;
	bool has_acts; /* the log tells records by collection */
	struct latency ops[256], sync, transaction, persist;
	uint64_t op_failed[256], op_bytes[256];
	struct digest_rows tables[DIGEST_TABLE_COUNT];
	struct digest_process **processes;
	size_t process_count, process_at;
	struct digest_transaction slow[DIGEST_TOP], large[DIGEST_TOP];
	unsigned slow_count, large_count;
	struct digest_events events[DIGEST_EVENT_KINDS];
	struct digest_series entries_by_time, written_by_time, records_by_time, commits_by_time,
	    syncs_by_time, slowest_by_time, grown_by_time;
	struct digest_series free_by_time; /* on the disk, the least + 1; 0: not told */
	struct digest_moment *moments; /* by time; the owner fills them in before the first entry */
	size_t moment_count;
	/* To which table a page belongs, of the database; may be NULL. The name lives on. */
	const char *(*table_of)(void *context, const char *database, uint64_t offset);
	void *table_context;
};

/* since, until, moments and table_of are filled in afterwards. NULL: no memory. */
struct digest *digest_new(void);
void digest_free(struct digest *d);

/* Entries come in the order of time. 0 or -ENOMEM. */
int digest_add(struct digest *d, const struct oplog_entry *e);

/* Rows of a table, by a number of theirs, the greatest first. As many as fit; how many. */
typedef uint64_t digest_key(const struct digest_row *row);
size_t digest_best(const struct digest *d, enum digest_table table, digest_key *key,
		   const struct digest_row **out, size_t room);
/* NULL: there is none. */
const struct digest_row *digest_find(const struct digest *d, enum digest_table table,
				     const char *name);

/* Changes of records after a moment of the list. */
uint64_t digest_records_since(const struct digest *d, uint64_t time);
uint64_t digest_commits_since(const struct digest *d, uint64_t time);

static inline uint64_t digest_changes(const struct digest_row *row)
{
	return row->added + row->updated + row->upserted + row->deleted + row->other;
}

static inline bool digest_is_sync(unsigned op)
{
	return op >= OP_FSYNC && op <= OP_MSYNC;
}

static inline bool digest_is_write(unsigned op)
{
	return op >= OP_WRITE && op <= OP_SPLICE;
}

static inline unsigned digest_bucket(const struct digest *d, uint64_t time)
{
	uint64_t i = time > d->start ? (time - d->start) / d->width : 0;

	return i < DIGEST_BUCKETS ? (unsigned)i : DIGEST_BUCKETS - 1;
}

/* Those that have an end, from the first record to the last. */
static inline unsigned digest_buckets(const struct digest *d)
{
	return d->entries ? digest_bucket(d, d->last) + 1 : 0;
}

/* ---- parts of digest_add(); for digest/ only ---- */

struct digest_row *digest_row(struct digest *d, enum digest_table table, const char *name);
void digest_rows_free(struct digest_rows *rows);
/* Makes room for a time: the buckets get wider. */
void digest_reach(struct digest *d, uint64_t time);
struct digest_process *digest_process(struct digest *d, const struct oplog_header *h);
int digest_call(struct digest *d, struct digest_process *p, const struct oplog_entry *e);
int digest_work(struct digest *d, struct digest_process *p, const struct oplog_entry *e);
int digest_act(struct digest *d, struct digest_process *p, const struct oplog_entry *e);
int digest_happened(struct digest *d, struct digest_process *p, const struct oplog_entry *e);
/* One line, without runs of blanks; cut to fit into `room` bytes. */
void digest_text(char *out, size_t room, const char *text, size_t size);

#endif
