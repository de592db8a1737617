/* SPDX-License-Identifier: MIT
 *
 * The parts of `chromashim top`.
 */
#ifndef COMMAND_TOP_H
#define COMMAND_TOP_H

#include "command/digest/input.h"

#define TOP_HISTORY 60u /* intervals of the small pictures */
#define TOP_COLLECTIONS 5u

/* What the log had told by a moment. */
struct top_sums {
	uint64_t time; /* ns, CLOCK_MONOTONIC */
	uint64_t entries, acts, records, written, commits, syncs, sync_ns, refused;
};

struct top_collection {
	char name[DIGEST_TEXT];
	uint64_t records; /* in the interval */
};

/* What is shown of one interval. */
struct top_view {
	uint64_t now;			     /* ns, CLOCK_REALTIME */
	uint64_t took;			     /* of the interval, ns */
	struct top_sums in;		     /* in it */
	uint64_t slowest;		     /* transaction that ended in it */
	const struct digest_process *writer; /* NULL: nobody writes now */
	uint64_t memory;		     /* of it, bytes; 0: not known */
	char persist[DIGEST_TEXT];	     /* "": none is under way */
	uint64_t persist_ns;
	uint64_t transaction_ns;	    /* open for so long; 0: none is */
	const struct digest_event *refusal; /* the last one, NULL: none */
	unsigned snapshots, verified, broken;
	uint64_t copying, progress; /* the snapshot that is being copied, 0: none; percent */
	uint64_t newest;	    /* of a verified one; 0: none */
	uint64_t disk_free, disk_total, database;
	struct top_collection collections[TOP_COLLECTIONS];
	unsigned collection_count;
};

struct top {
	struct digest_input in;
	struct oplog_reader *reader;
	struct top_sums sums, before;
	uint64_t slowest;
	uint64_t records_of[DIGEST_ROWS + 1]; /* of each collection, by the interval before */
	struct top_view view;
	uint64_t records_history[TOP_HISTORY], written_history[TOP_HISTORY];
	unsigned shown; /* intervals */
	bool json, utc;
};

/* ---- gather.c ---- */

/* Opens the directory, and reads what the log has until now. As digest_input_open(). */
int top_open(struct top *t, const char *dir);
void top_close(struct top *t);
/* What has come since, into t->view. 0 or -errno. */
int top_gather(struct top *t);

/* ---- draw.c ---- */

void top_line(const struct top *t);
void top_json(const struct top *t);
void top_draw(const struct top *t, unsigned columns, unsigned rows);

/* ---- screen.c: the terminal, given back whatever happens ---- */

/* False: stdout or stdin is no terminal. */
bool screen_open(void);
void screen_close(void);
/* Waits; true when the user wants to leave (q, or a signal). */
bool screen_wait(uint64_t ns);
bool screen_is_left(void);
void screen_size(unsigned *columns_out, unsigned *rows_out);
/* Also where there is no terminal: SIGINT and SIGTERM end the waiting. */
void screen_catch_signals(void);

#endif
