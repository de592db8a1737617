/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --last-crash`: the last record that was acknowledged, who else had the directory,
 * and what each snapshot would lose.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <bsd/string.h>

#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "command/log/crash_parts.h"
#include "command/log/words.h"
#include "core/base/clock.h"
#include "core/oplog/acts.h"
#include "core/oplog/oplog.h"

#define SNAPSHOTS_TOLD 8

/* ---- what the acts tell ---- */

void crash_load_snapshots(struct crash *c)
{
	struct snapshots s = {.data = *c->data, .pins = {.dirfd = -1}, .only_heads = true};
	char state[64];
	size_t i;

	if (snapshots_load(&s, SNAPSHOT_LOOK, false, 0) < 0)
		return;
	for (i = s.count; i-- > 0 && c->snapshot_count < CRASH_SNAPSHOTS_MAX;) {
		struct crash_snapshot *to = &c->snapshots[c->snapshot_count++];

		to->id = s.list[i].header.id;
		to->time = s.list[i].header.time;
		strlcpy(to->state, snapshots_state(&s.list[i], state, sizeof(state)),
			sizeof(to->state));
		to->untold = !snapshots_time_tells(&s, i);
	}
	snapshots_unload(&s);
}

static void note_last(struct crash *c, const struct oplog_entry *e)
{
	const struct who_process *p = crash_dead(c);
	struct words words = {.names = c->options->filter.names};
	bool own = oplog_same_process(&p->header, e->header);
	char text[WORDS_ROOM];
	const char *name;

	if (c->last.own && !own)
		return;
	c->last.own = own;
	c->last.time = e->time;
	c->last.seq = e->length;
	c->last.pid = e->header->pid;
	name = words_collection(&words, e);
	strlcpy(c->last.collection, name ? name : "", sizeof(c->last.collection));
	strlcpy(c->last.words, words_of(&words, e, text), sizeof(c->last.words));
	words_free(&words);
}

/* "open without the shim: process 812 (…)": a note of it. */
static void note_outsider(struct crash *c, const struct oplog_entry *e)
{
	static const char prefix[] = "open without the shim: ";
	const char *text = e->text;

	if (strncmp(text, prefix, sizeof(prefix) - 1) != 0 ||
	    strstr(c->outsiders, text + sizeof(prefix) - 1))
		return;
	if (*c->outsiders)
		strlcat(c->outsiders, "; ", sizeof(c->outsiders));
	strlcat(c->outsiders, text + sizeof(prefix) - 1, sizeof(c->outsiders));
}

/* "… writing is refused: process 812 (…)", told by the one that was refused. */
static void note_refused(struct crash *c, const struct oplog_entry *e)
{
	const struct who_process *p = crash_dead(c), *other = log_who_find(&c->who, e->header);
	char named[32], who[128];

	snprintf(named, sizeof(named), " process %" PRIu32 " (", p->header.pid);
	if (!other || e->time < p->first || !strstr(e->text, named))
		return;
	snprintf(who, sizeof(who), "%.80s (pid %" PRIu32 ")", other->label, e->header->pid);
	if (strstr(c->refused, who))
		return;
	if (*c->refused)
		strlcat(c->refused, ", ", sizeof(c->refused));
	strlcat(c->refused, who, sizeof(c->refused));
}

void crash_note_loss(struct crash *c, const struct oplog_entry *e)
{
	const struct who_process *p = crash_dead(c);
	unsigned i;

	if (e->op == OP_REFUSE_WRITER)
		note_refused(c, e);
	if (e->op == OP_NOTE && oplog_same_process(&p->header, e->header))
		note_outsider(c, e);
	if (e->op == OP_TXN_COMMIT && oplog_same_process(&p->header, e->header))
		c->last_commit = e->time;
	if (e->op != OP_RECORDS)
		return;
	if (!c->acts_from)
		c->acts_from = e->time;
	for (i = 0; i < c->snapshot_count && e->result > 0; i++)
		if (e->time > c->snapshots[i].time)
			c->snapshots[i].records += (uint64_t)e->result;
	if (e->time <= p->last)
		note_last(c, e);
}

/* ---- in words ---- */

void crash_print_last(struct crash *c)
{
	char when[40], shown[512];

	printf("Last:      ");
	if (c->last.time) {
		terminal_fit(shown, sizeof(shown), c->last.words, 0);
		printf("the last write that was acknowledged is %s, at %s%s\n", shown,
		       format_time(when, sizeof(when), c->last.time, c->options->utc),
		       c->last.own ? "" : ", by another process: this one wrote no records");
	} else if (c->last_commit) {
		printf("its last transaction was committed at %s; the log does not tell which "
		       "records it had\n",
		       format_time(when, sizeof(when), c->last_commit, c->options->utc));
	} else {
		printf("it has committed nothing, as far as the log goes back\n");
	}
}

/* Whether the other one had the directory when this one ended. */
static bool was_there(struct crash *c, const struct who_process *other)
{
	const struct who_process *p = crash_dead(c);

	return other != p && other->first <= p->last &&
	       (other->last >= p->last ||
		(!other->exited &&
		 oplog_header_life(c->data->storefd, &other->header) == OPLOG_LIVE));
}

void crash_print_others(struct crash *c)
{
	char shown[600];
	unsigned count = 0;
	size_t i;

	printf("Others:    ");
	for (i = 0; i < c->who.count && count < CRASH_OTHERS_MAX; i++) {
		const struct who_process *p = &c->who.list[i];

		if (!was_there(c, p))
			continue;
		terminal_fit(shown, sizeof(shown), p->label, 0);
		printf("%s%s (pid %" PRIu32 "%s)", count++ ? ", " : "", shown, p->header.pid,
		       p->writer ? ", the writer" : "");
	}
	if (*c->outsiders) {
		terminal_fit(shown, sizeof(shown), c->outsiders, 0);
		printf("%s%s, without the library", count++ ? ", " : "", shown);
	}
	if (count)
		printf(" had the directory open as well");
	else
		printf("nobody else had the directory open at its end, as far as the log tells");
	if (*c->refused) {
		terminal_fit(shown, sizeof(shown), c->refused, 0);
		printf("; refused as a second writer: %s", shown);
	}
	putchar('\n');
}

static void print_snapshot(struct crash *c, const struct crash_snapshot *s)
{
	const struct who_process *p = crash_dead(c);
	uint64_t end = c->last.time > p->last ? c->last.time : p->last;
	char when[40], took[32];

	printf("snapshot %" PRIu64 " of %s (%s): ", s->id,
	       format_time(when, sizeof(when), s->time, c->options->utc), s->state);
	if (s->untold) {
		printf("what would be lost cannot be told, since the clock was set back\n");
		return;
	}
	if (!c->acts_from)
		printf("%s", s->time >= end ? "nothing would be lost" : "");
	else if (!s->records)
		printf("no record would be lost");
	else
		printf("%s%" PRIu64 " change%s of records would be lost",
		       c->acts_from > s->time + 60 * SECOND ? "at least " : "", s->records,
		       s->records == 1 ? "" : "s");
	if (s->time < end && (s->records || !c->acts_from))
		printf("%sthe last %s%s", s->records ? ", " : "",
		       format_duration(took, sizeof(took), end - s->time),
		       c->acts_from ? "" : " would be lost");
	putchar('\n');
}

void crash_print_snapshots(struct crash *c)
{
	unsigned i;

	printf("Snapshots: ");
	if (!c->snapshot_count)
		printf("there are none\n");
	for (i = 0; i < c->snapshot_count && i < SNAPSHOTS_TOLD; i++) {
		printf("%s", i ? "           " : "");
		print_snapshot(c, &c->snapshots[i]);
	}
	if (i < c->snapshot_count)
		printf("           and %u older ones\n", c->snapshot_count - i);
}

/* ---- as members of an object ---- */

static void put_time(struct json *j, const char *key, uint64_t time)
{
	char when[40];

	json_key(j, key);
	json_string(j, time ? format_time_utc(when, sizeof(when), time) : NULL);
}

static void put_last(struct crash *c, struct json *j)
{
	json_key(j, "last_acknowledged");
	if (!c->last.time) {
		json_null(j);
		return;
	}
	json_begin(j, '{');
	put_time(j, "time", c->last.time);
	json_key(j, "collection");
	json_string(j, c->last.collection);
	json_put_uint(j, "seq", c->last.seq);
	json_put_uint(j, "pid", c->last.pid);
	json_key(j, "words");
	json_string(j, c->last.words);
	json_end(j, '}');
}

void crash_put_loss(struct crash *c, struct json *j)
{
	unsigned i;
	size_t n;

	put_last(c, j);
	put_time(j, "last_commit", c->last_commit);
	json_key(j, "others");
	json_begin(j, '[');
	for (n = 0; n < c->who.count; n++)
		if (was_there(c, &c->who.list[n]))
			json_uint(j, c->who.list[n].header.pid);
	json_end(j, ']');
	json_put_text(j, "outsiders", c->outsiders);
	json_put_text(j, "refused", c->refused);
	json_key(j, "snapshots");
	json_begin(j, '[');
	for (i = 0; i < c->snapshot_count; i++) {
		json_begin(j, '{');
		json_put_uint(j, "id", c->snapshots[i].id);
		put_time(j, "time", c->snapshots[i].time);
		json_key(j, "state");
		json_string(j, c->snapshots[i].state);
		json_key(j, "records_lost");
		if (c->snapshots[i].untold)
			json_null(j);
		else
			json_uint(j, c->snapshots[i].records);
		json_end(j, '}');
	}
	json_end(j, ']');
}
