/* SPDX-License-Identifier: MIT
 *
 * What the guardian finds in the log about backends that are gone: crashes, and persists that were
 * undone for them.
 *
 * That a process left no farewell is no crash yet: a stop by SIGTERM, for which it has no handler,
 * looks the same. A crash is what cut off something that was under way, or what the kernel, an
 * abort() or a reboot tells of. The others count where they come again and again.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/crash_cause.h"
#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "command/log/who.h"
#include "core/base/clock.h"
#include "core/oplog/oplog.h"
#include "core/store/events.h"

#define DAY (24 * 3600 * SECOND)
#define LOOK_BACK (30 * DAY) /* in the log */
#define LAST_CALLS (60 * SECOND)
#define LOOP_TIME (600 * SECOND)
#define LOOP_COUNT 3

struct found {
	struct store_event *told;
	int told_count;
	struct log_who who;
	struct guardian *g;
	uint64_t oldest; /* what is from before is not known to be told or not */
};

static bool is_told_of(const struct found *f, const char *name, uint64_t about)
{
	int i;

	for (i = 0; i < f->told_count; i++)
		if (f->told[i].about == about && !strcmp(f->told[i].name, name))
			return true;
	return about < f->oldest;
}

static int note_act(struct found *f, const struct oplog_entry *e)
{
	struct guardian *g = f->g;

	if (!log_who_note(&f->who, e))
		return -ENOMEM;
	if (e->op == OP_PERSIST_ROLLBACK && !is_told_of(f, "persist.undone", e->time))
		guardian_tell_about(g, "persist.undone", e->time,
				    "segment %.36s: an index write that was cut off or failed was "
				    "undone; its records are in Chroma's queue",
				    e->name ? e->name : "?");
	return 0;
}

/* ---- how it ended ---- */

/* What was begun and has no end, in its last minute. */
static bool was_in_the_middle(const struct guardian *g, const struct who_process *p)
{
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r = oplog_reader_open_which(g->s.data.storefd, OPLOG_BOTH, &reader), open = 0;

	if (r == 0)
		oplog_reader_since(reader, p->last > LAST_CALLS ? p->last - LAST_CALLS : 0);
	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0) {
		r = 0;
		if (!oplog_same_process(&p->header, e.header))
			continue;
		open += e.in_flight || e.op == OP_TXN_BEGIN || e.op == OP_PERSIST_BEGIN;
		if (open > 0)
			open -= e.op == OP_TXN_COMMIT || e.op == OP_TXN_ROLLBACK ||
				e.op == OP_PERSIST_COMMIT || e.op == OP_PERSIST_ROLLBACK;
	}
	oplog_reader_close(reader);
	return open > 0;
}

static bool is_fault(int signal)
{
	return signal == SIGABRT || signal == SIGSEGV || signal == SIGBUS || signal == SIGILL ||
	       signal == SIGFPE || signal == SIGTRAP || signal == SIGSYS;
}

/* Why it is a crash, as the end of a sentence; "": it is none that can be told; NULL: it lives, or
 * has ended by itself. */
static const char *crash_why(const struct guardian *g, const struct who_process *p,
			     char words[CRASH_WORDS])
{
	const char *end = log_who_end(p, g->s.data.storefd);

	if (p->exited)
		return is_fault(p->stopped_by) ? ", by a signal that it sent itself" : NULL;
	if (!strcmp(end, "reboot"))
		return ": the machine went down under it";
	if (strcmp(end, "death"))
		return NULL;
	switch (crash_ask_kernel(&p->header, p->last, words, NULL)) {
	case CRASH_OOM:
		return ": the kernel killed it for want of memory";
	case CRASH_FAULT:
		return ": the kernel ended it for a fault of its own";
	default:
		return was_in_the_middle(g, p) ? ", in the middle of a write" : "";
	}
}

static void tell_crash(struct found *f, const struct who_process *p, const char *why)
{
	char when[40];

	format_time_utc(when, sizeof(when), p->last);
	if (*why)
		guardian_tell_about(f->g, "crash.found", p->last,
				    "process %" PRIu32 " (%.60s) crashed%s; its last act was at "
				    "%s: `chromashim log --last-crash` tells what it was at",
				    p->header.pid, p->label, why, when);
	else
		guardian_tell_about(f->g, "backend.ended", p->last,
				    "process %" PRIu32 " (%.60s) was ended between two calls, by "
				    "a signal; its last act was at %s",
				    p->header.pid, p->label, when);
}

/* So that a first look does not tell of what nobody remembers: the newest alone. */
static void tell_crashes(struct found *f)
{
	const struct who_process *newest = NULL;
	uint64_t now = clock_read(CLOCK_REALTIME);
	char words[CRASH_WORDS];
	const char *why;
	size_t i;

	for (i = 0; i < f->who.count; i++) {
		const struct who_process *p = &f->who.list[i];

		if (!p->writer || is_told_of(f, "crash.found", p->last) ||
		    is_told_of(f, "backend.ended", p->last))
			continue;
		why = f->told_count || !newest || clock_is_later(p->last, newest->last, now)
			  ? crash_why(f->g, p, words)
			  : NULL;
		if (why && f->told_count)
			tell_crash(f, p, why);
		else if (why)
			newest = p;
	}
	if (newest && newest->last + DAY > now && !clock_was_ahead(newest->last, now))
		tell_crash(f, newest, crash_why(f->g, newest, words));
}

static bool is_death(const struct store_event *e)
{
	return !strcmp(e->name, "crash.found") || !strcmp(e->name, "backend.ended");
}

static void tell_loop(struct guardian *g)
{
	struct store_event *all = NULL;
	uint64_t now = clock_read(CLOCK_REALTIME);
	int n = events_list(g->s.data.storefd, &all), i, deaths = 0;
	bool told = false;

	for (i = 0; i < n; i++) {
		told |= !strcmp(all[i].name, "crash.loop") && all[i].time + LOOP_TIME > now;
		deaths += is_death(&all[i]) && all[i].about + LOOP_TIME > now;
	}
	free(all);
	if (deaths >= LOOP_COUNT && !told)
		guardian_tell(g, "crash.loop", 0,
			      "the backend died %d times within ten minutes: it is started again "
			      "and again. `chromashim log --last-crash` tells what ended it",
			      deaths);
}

void guardian_look_at_crashes(struct guardian *g)
{
	uint64_t now = clock_read(CLOCK_REALTIME);
	struct found f = {.g = g, .oldest = now > LOOK_BACK ? now - LOOK_BACK : 0};
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r = oplog_reader_open_which(g->s.data.storefd, OPLOG_ACTS, &reader);

	f.told_count = r < 0 ? 0 : events_list(g->s.data.storefd, &f.told);
	if (f.told_count < 0)
		f.told_count = 0;
	/* What is from before the ring, or has no room in it any more, nobody is told of. */
	if (f.told_count && f.told[0].time - DAY > f.oldest &&
	    !clock_was_ahead(f.told[0].time, now))
		f.oldest = f.told[0].time - (f.told_count < (int)EVENTS_SLOTS ? DAY : 0);
	if (r == 0)
		oplog_reader_since(reader, f.oldest);
	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0)
		r = note_act(&f, &e);
	if (r == 0)
		tell_crashes(&f);
	oplog_reader_close(reader);
	log_who_free(&f.who);
	free(f.told);
	tell_loop(g);
}
