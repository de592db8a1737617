/* SPDX-License-Identifier: MIT
 *
 * `chromashim report`: what happened when.
 */
#include "command/report/strips.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "core/oplog/oplog.h"

static const struct {
	enum digest_event_kind kind;
	const char *name, *class;
} lanes[] = {
    {DIGEST_START, "Started", "ok"},
    {DIGEST_END, "Ended in order", "ok"},
    {DIGEST_REFUSAL, "Refused", "bad"},
    {DIGEST_SPACE, "Little room on the disk", "bad"},
    {DIGEST_PERSIST_UNDONE, "Index write undone", "warn"},
    {DIGEST_RECOVERED, "Transaction undone", "warn"},
    {DIGEST_UPGRADE, "Tables changed (upgrade)", "note"},
    {DIGEST_SNAPSHOT, "Snapshots", "note"},
    {DIGEST_COLLECTION, "Collections made, changed, deleted", "note"},
    {DIGEST_VACUUM, "Vacuum", "note"},
    {DIGEST_PROTECTED, "Announced by the program", "note"},
    {DIGEST_NOTE, "Notes", "note"},
};

static void put_mark(struct page *p, const char *class, uint64_t time, uint64_t n)
{
	page_put(
	    p, "<rect class=\"%T\" x=\"%d\" width=\"1\" height=\"10\"><title>%c: %N</title></rect>",
	    class, (uint64_t)digest_bucket(p->d, time), time, n);
}

static void put_deaths(struct page *p)
{
	struct digest_series deaths = {0};
	size_t i;
	char says[64];

	if (!p->answers.dead_count)
		return;
	snprintf(says, sizeof(says), "Died: %zu", p->answers.dead_count);
	strip_begin(p, "Died", digest_buckets(p->d), 10, "lane", says);
	for (i = 0; i < p->answers.dead_count; i++)
		deaths.at[digest_bucket(p->d, p->answers.dead[i]->last)]++;
	for (i = 0; i < digest_buckets(p->d); i++)
		if (deaths.at[i])
			put_mark(p, "bad", strip_time(p->d, (unsigned)i), deaths.at[i]);
	strip_end_number(p, p->answers.dead_count);
}

static void put_lanes(struct page *p)
{
	char says[160];
	size_t i;
	unsigned b;

	put_deaths(p);
	for (i = 0; i < sizeof(lanes) / sizeof(lanes[0]); i++) {
		const struct digest_events *e = &p->d->events[lanes[i].kind];

		if (!e->count)
			continue;
		snprintf(says, sizeof(says), "%s: %" PRIu64, lanes[i].name, e->count);
		strip_begin(p, lanes[i].name, digest_buckets(p->d), 10, "lane", says);
		for (b = 0; b < digest_buckets(p->d); b++)
			if (e->by_time.at[b])
				put_mark(p, lanes[i].class, strip_time(p->d, b), e->by_time.at[b]);
		strip_end_number(p, e->count);
	}
}

static const char *format_amount(char out[32], char unit, uint64_t n)
{
	if (unit == 'B')
		return format_bytes(out, 32, n);
	if (unit == 'D')
		return format_duration(out, 32, n);
	snprintf(out, 32, "%" PRIu64, n);
	return out;
}

/* Bars, as high as there is much. */
static void put_bars(struct page *p, const char *name, const struct digest_series *s, char unit,
		     uint64_t total)
{
	unsigned buckets = digest_buckets(p->d), i, at = strip_busiest(s, buckets);
	char says[200], when[40], text[32], most[32];

	if (!s->at[at])
		return;
	snprintf(says, sizeof(says), "%s, most at %.8s: %s", name,
		 format_time(when, sizeof(when), strip_time(p->d, at), p->utc) + 11,
		 format_amount(most, unit, s->at[at]));
	strip_begin(p, name, buckets, 1000, "bars", says);
	for (i = 0; i < buckets; i++) {
		uint64_t h = s->at[i] * 1000 / s->at[at];

		if (!s->at[i])
			continue;
		h = h < 30 ? 30 : h;
		page_put(p,
			 "<rect x=\"%d\" y=\"%d\" width=\"1\" height=\"%d\"><title>%c: "
			 "%T</title></rect>",
			 (uint64_t)i, 1000 - h, h, strip_time(p->d, i),
			 format_amount(text, unit, s->at[i]));
	}
	if (unit == 'N')
		strip_end_number(p, total);
	else
		strip_end_text(p, format_amount(text, unit, total));
}

static const char *event_word(const struct digest_event *e)
{
	static const char *const collection[] = {"collection changed", "collection created",
						 "collection renamed", "collection configured",
						 "collection deleted"};

	switch (e->op) {
	case OP_START:
		return "process started";
	case OP_EXIT:
		return e->number ? "process stopped in order" : "process ended";
	case OP_REFUSE_WRITER:
		return "a second writer was refused";
	case OP_REFUSE_SPACE:
		return "a write was refused: no room on the disk";
	case OP_REFUSE_DESTROYER:
		return "a call that would have destroyed data was refused";
	case OP_WARN_SPACE:
		return "little room on the disk";
	case OP_MIGRATION:
		return "upgrade of the tables";
	case OP_TXN_COMMIT:
		return "tables changed";
	case OP_TXN_RECOVER:
		return "a transaction of a dead process was undone";
	case OP_SNAPSHOT_PIN:
		return "snapshot taken";
	case OP_SNAPSHOT_STATE:
		return "snapshot broken";
	case OP_COLLECTION:
		return collection[e->number <= 4 ? e->number : 0];
	case OP_PERSIST_ROLLBACK:
		return "an index write that was cut off was undone";
	case OP_PERSIST_FREEZE:
		return "an index is frozen until the process ends";
	case OP_VACUUM:
		return "the database was written anew";
	case OP_PROTECT_BEGIN:
		return "announced by the program";
	default:
		return "note";
	}
}

static void put_event(struct page *p, const struct digest_event *e)
{
	char name[DIGEST_TEXT];

	page_put(p, "<tr><td>%t</td><th scope=\"row\">%T</th><td>", e->time, event_word(e));
	if (e->op == OP_SNAPSHOT_PIN && e->number)
		page_put(p, "number %N ", e->number);
	if (e->name[0] && e->op != OP_COLLECTION)
		page_put(p, "%T ", page_name(p, e->name, name));
	page_put(p, "%T</td><td class=\"n\">%d</td></tr>\n", e->text, (uint64_t)e->pid);
}

struct happening {
	uint64_t time;
	const struct digest_event *event;
	const struct digest_process *dead; /* instead */
};

static int compare_happenings(const void *a, const void *b)
{
	const struct happening *x = a, *y = b;

	return x->time < y->time ? -1 : x->time > y->time;
}

/* The steps of an upgrade come one right after the other. */
static size_t count_steps(const struct happening *list, size_t count, size_t from)
{
	size_t n = 1;

	while (list[from].event && list[from].event->op == OP_MIGRATION && from + n < count &&
	       list[from + n].event && list[from + n].event->op == OP_MIGRATION &&
	       list[from + n].event->pid == list[from].event->pid)
		n++;
	return n;
}

static void put_steps(struct page *p, const struct digest_event *first, size_t steps,
		      const struct digest_event *last)
{
	page_put(p,
		 "<tr><td>%t</td><th scope=\"row\">%T</th><td>%N steps, the last %T</td><td "
		 "class=\"n\">%d</td></tr>\n",
		 first->time, event_word(first), (uint64_t)steps, last->text, (uint64_t)first->pid);
}

static void put_death(struct page *p, const struct digest_process *dead)
{
	page_put(p,
		 "<tr><td>%t</td><th scope=\"row\">process died</th><td>%T</td><td "
		 "class=\"n\">%d</td></tr>\n",
		 dead->last, dead->command, (uint64_t)dead->header.pid);
}

/* The newest of each kind; their number. The caller's to free. */
static size_t collect_happenings(const struct page *p, struct happening **out)
{
	size_t room = p->answers.dead_count + DIGEST_EVENT_KINDS * DIGEST_EVENTS, count = 0, i;
	struct happening *list = calloc(room + 1, sizeof(*list));

	for (i = 0; list && i < p->answers.dead_count; i++, count++)
		list[count] = (struct happening){.time = p->answers.dead[i]->last,
						 .dead = p->answers.dead[i]};
	for (i = 0; list && i < DIGEST_EVENT_KINDS; i++) {
		const struct digest_events *e = &p->d->events[i];
		uint64_t k = e->count > DIGEST_EVENTS ? e->count - DIGEST_EVENTS : 0;

		for (; k < e->count; k++, count++)
			list[count] = (struct happening){.time = e->last[k % DIGEST_EVENTS].time,
							 .event = &e->last[k % DIGEST_EVENTS]};
	}
	if (list)
		qsort(list, count, sizeof(*list), compare_happenings);
	*out = list;
	return count;
}

static void put_event_table(struct page *p)
{
	struct happening *list;
	size_t count = collect_happenings(p, &list), i, steps;

	page_table_below(p, "Event by event", "What happened: the newest of each kind",
			 "When|What|About|#Process");
	for (i = 0; i < count; i += steps) {
		steps = count_steps(list, count, i);
		if (list[i].dead)
			put_death(p, list[i].dead);
		else if (steps > 1)
			put_steps(p, list[i].event, steps, list[i + steps - 1].event);
		else
			put_event(p, list[i].event);
	}
	page_table_below_end(p);
	free(list);
}

/* Of the last stretch of time that has one. */
static uint64_t last_of(const struct page *p, const struct digest_series *s)
{
	unsigned i = digest_buckets(p->d);

	while (i > 1 && !s->at[i - 1])
		i--;
	return i ? s->at[i - 1] : 0;
}

void page_time_line(struct page *p)
{
	struct digest *d = p->d;

	page_section(p, "time", "What happened, and when",
		     "Marks are single events; bars below them say how much was done. A record is "
		     "one entry of a collection: an id with its vector, its document and its "
		     "metadata.");
	page_put(p, "<figure><figcaption>Events and amounts by time</figcaption>\n");
	put_lanes(p);
	put_bars(p, "Records changed", &d->records_by_time, 'N', d->records);
	put_bars(p, "Transactions", &d->commits_by_time, 'N', d->commits);
	put_bars(p, "Bytes written", &d->written_by_time, 'B', d->written);
	put_bars(p, "Bytes that files grew by", &d->grown_by_time, 'B', d->grown);
	put_bars(p, "Syncs", &d->syncs_by_time, 'N', d->syncs);
	put_bars(p, "Slowest transaction", &d->slowest_by_time, 'D', d->transaction.max);
	put_bars(p, "Free on the disk, the least", &d->free_by_time, 'B',
		 last_of(p, &d->free_by_time));
	strip_axis(p);
	page_put(p, "</figure>\n");
	put_event_table(p);
	page_section_end(p);
}
