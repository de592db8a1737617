/* SPDX-License-Identifier: MIT
 *
 * The parts of `chromashim log --last-crash`: what was found out about one death.
 */
#ifndef COMMAND_LOG_CRASH_PARTS_H
#define COMMAND_LOG_CRASH_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "command/base/command.h"
#include "command/base/crash_cause.h"
#include "command/log/log.h"
#include "command/log/who.h"

/* A transaction or persist that is open. */
struct crash_open {
	uint64_t number, since;
	char name[256];
};

#define CRASH_OPEN_MAX 64 /* transactions and persists that are open at a time */
#define CRASH_OTHERS_MAX 16
#define CRASH_SNAPSHOTS_MAX 64

/* What ended it, as far as others have written it down (crash_end.c). */
struct crash_end {
	enum crash_cause cause;
	char words[512]; /* the kernel's */
	struct crash_memory memory;
	char by[160]; /* who it was ended by, or is looked after by; "": not known */
};

/* A snapshot, and what has changed since. */
struct crash_snapshot {
	uint64_t id, time;
	char state[32];
	uint64_t records; /* added, updated, deleted after it */
	bool untold;	  /* times do not tell what came after it */
};

struct crash {
	const struct log_options *options;
	const struct data_directory *data;
	struct log_who who;
	size_t dead; /* the one that is told of, in who.list */
	struct crash_open transactions[CRASH_OPEN_MAX], persists[CRASH_OPEN_MAX];
	unsigned transaction_count, persist_count, in_flight;
	uint64_t telling; /* records in the last seconds that matter */
	struct crash_end end;
	/* The last record that was acknowledged: of the dead one, or else of any. */
	struct {
		uint64_t time, seq, pid;
		char collection[256], words[512];
		bool own;
	} last;
	uint64_t last_commit; /* when it committed something */
	uint64_t acts_from;   /* the first act that tells of records */
	struct crash_snapshot snapshots[CRASH_SNAPSHOTS_MAX]; /* the newest first */
	unsigned snapshot_count;
	char outsiders[512]; /* processes without the library that it saw */
	char refused[512];   /* those that wanted to write beside it */
};

static inline struct who_process *crash_dead(struct crash *c)
{
	return &c->who.list[c->dead];
}

/* crash_end.c */
void crash_ask_others(struct crash *c);
/* "stop", "exit", "oom", "fault", "signal", "reboot" */
const char *crash_how(struct crash *c);
void crash_print_end(struct crash *c);

/* crash_loss.c: who else was there, and what snapshots are worth. */
void crash_load_snapshots(struct crash *c);
void crash_note_loss(struct crash *c, const struct oplog_entry *e);
void crash_print_last(struct crash *c);
void crash_print_others(struct crash *c);
void crash_print_snapshots(struct crash *c);
void crash_put_loss(struct crash *c, struct json *j);

#endif
