/* SPDX-License-Identifier: MIT
 *
 * report.html: the answers on top.
 */
#include "command/report/page.h"

#include <string.h>

#include "core/base/symbols.h"

static void put_question(struct page *p, const char *question)
{
	page_put(p, "<dt>%T</dt>\n<dd>", question);
}

static void put_who(struct page *p, const struct digest_process *who)
{
	page_put(p, "process %d (<code>%T</code>)", (uint64_t)who->header.pid, who->command);
}

static void answer_end(struct page *p)
{
	const struct answers *a = &p->answers;

	put_question(p, "What ended it, and when?");
	if (!a->last) {
		page_put(p, "Nothing did: %T.</dd>\n", answer_end_text(ANSWER_NONE));
		return;
	}
	page_put(p, "<strong>%t</strong>: ", a->last->last);
	put_who(p, a->last);
	page_put(p, ": %T.", answer_end_text(a->end));
	if (a->end == ANSWER_STOPPED) {
		const char *name = symbol_of_signal(a->last->stopped_by);

		page_put(p, " The signal was SIG%T.", name ? name : "?");
	}
	if (a->end == ANSWER_EXIT && a->last->exit_status > 0)
		page_put(p, " Its exit status was %d, which is no success.",
			 (uint64_t)a->last->exit_status);
	if (a->memory.resident)
		page_put(p, " It had %B in memory.", a->memory.resident);
	if (a->memory.limit)
		page_put(p, " The limit of its control group (container) is %B.", a->memory.limit);
	if (a->words[0])
		page_put(p, " The kernel\xe2\x80\x99s words: <code>%T</code>", a->words);
	if (a->oom_kills)
		page_put(p,
			 " The kernel has killed %N %T here because memory ran out; this may have "
			 "been one.",
			 a->oom_kills, a->oom_kills == 1 ? "process" : "processes");
	if (a->dead_count > 1)
		page_put(p, " In this time %N writing processes ended like that.",
			 (uint64_t)a->dead_count);
	if (a->living) {
		page_put(p, " Now ");
		put_who(p, a->living);
		page_put(p, " is at work.");
	}
	page_put(p, "</dd>\n");
}

static const struct digest_process *who_is_meant(const struct answers *a)
{
	return a->last ? a->last : a->living;
}

static void answer_told(struct page *p)
{
	const struct digest_process *who = who_is_meant(&p->answers);
	char name[DIGEST_TEXT];

	put_question(p, "What was the last change that was acknowledged?");
	if (!who || !who->told_at) {
		page_put(p, "None by it, as far as the log goes.</dd>\n");
		return;
	}
	page_put(p, "The one of <strong>%t</strong>", who->told_at);
	if (who->told_in[0])
		page_put(p, ", in collection <strong>%T</strong> (number %N of the queue)",
			 page_name(p, who->told_in, name), who->told_seq);
	if (who->told_is_guess)
		page_put(p, " (told by which table was written; this log does not name records)");
	page_put(p, ". Everything up to it is in the database.</dd>\n");
}

/* When an event of a kind came after a time, 0: none did. */
static uint64_t event_after(const struct digest *d, enum digest_event_kind kind, uint64_t time,
			    const char *name)
{
	const struct digest_events *e = &d->events[kind];
	uint64_t k = e->count > DIGEST_EVENTS ? e->count - DIGEST_EVENTS : 0;

	for (; k < e->count; k++) {
		const struct digest_event *one = &e->last[k % DIGEST_EVENTS];

		if (one->time >= time && (!name || !strcmp(one->name, name)))
			return one->time;
	}
	return 0;
}

static void put_open(struct page *p, const struct digest_process *who, const struct digest_open *o)
{
	char name[DIGEST_TEXT];
	uint64_t undone;

	if (o->is_persist) {
		undone = event_after(p->d, DIGEST_PERSIST_UNDONE, who->last, o->name);
		page_put(p, "<li>The index of <strong>%T</strong> was being written. ",
			 page_name(p, o->name, name));
		if (undone)
			page_put(p,
				 "That was undone at %t; its records were still in the queue and "
				 "are there.</li>\n",
				 undone);
		else if (p->answers.to_undo)
			page_put(p, "The next start under chromashim undoes it; its records are "
				    "still in the queue.</li>\n");
		else
			page_put(p, "It was undone since; its records were still in the "
				    "queue.</li>\n");
		return;
	}
	undone = event_after(p->d, DIGEST_RECOVERED, who->last, NULL);
	page_put(p, "<li>A transaction had been open for %D",
		 who->last > o->t.begin ? who->last - o->t.begin : 0);
	if (o->t.statement[0])
		page_put(p, " (<code>%T</code>)", o->t.statement);
	if (undone)
		page_put(p, ". It was undone at %t, as if it had never been.</li>\n", undone);
	else
		page_put(p, ". SQLite undoes it at the next start, as if it had never been: it was "
			    "not acknowledged.</li>\n");
}

static void answer_flight(struct page *p)
{
	const struct digest_process *who = p->answers.last;
	unsigned i, told = 0;

	put_question(p, "What was under way, and what became of it?");
	for (i = 0; who && i < who->open_count; i++) {
		if (digest_is_first_making(p->in, &who->open[i]))
			continue;
		if (!told++)
			page_put(p, "<ul>\n");
		put_open(p, who, &who->open[i]);
	}
	if (told)
		page_put(p, "</ul>\n");
	else
		page_put(p,
			 "Nothing was cut off: no transaction and no index write was under way.");
	if (who && who->in_flight)
		page_put(p,
			 who->in_flight == 1 ? " %N single call had begun and not ended."
					     : " %N single calls had begun and not ended.",
			 who->in_flight);
	page_put(p, "</dd>\n");
}

/* Whether two were there at the same time. */
static bool overlap(const struct digest_process *a, const struct digest_process *b)
{
	return a->first <= b->last && b->first <= a->last;
}

static void answer_others(struct page *p)
{
	const struct digest_process *who = who_is_meant(&p->answers);
	unsigned told = 0;
	size_t i;

	put_question(p, "Who else had the directory open?");
	for (i = 0; who && i < p->d->process_count; i++) {
		const struct digest_process *other = p->d->processes[i];

		if (other == who || !overlap(who, other))
			continue;
		if (!told++)
			page_put(p, "<ul>\n");
		if (told > 8)
			continue;
		page_put(p, "<li>");
		put_who(p, other);
		page_put(p,
			 other->refused ? ", which was <strong>refused</strong> %x"
					: ", which was not refused anything",
			 other->refused);
		page_put(p, "</li>\n");
	}
	if (told > 8)
		page_put(p, "<li>and %N more</li>\n", (uint64_t)told - 8);
	if (told)
		page_put(p, "</ul>\n");
	else
		page_put(p, "Nobody under chromashim.");
	if (p->checked && p->summary.processes)
		page_put(p, " Just now process %d (<code>%T</code>) has the database open.",
			 (uint64_t)p->summary.first_process, p->summary.first_command);
	page_put(p, "</dd>\n");
}

void page_loss(struct page *p, const struct manifest *m)
{
	const struct snapshots *s = &p->in->snapshots;
	uint64_t records = digest_records_since(p->d, m->header.time),
		 commits = digest_commits_since(p->d, m->header.time),
		 end = p->d->last > m->header.time ? p->d->last - m->header.time : 0;

	if (!snapshots_time_tells(s, (size_t)(m - s->list)))
		page_put(p, "what cannot be told, since the clock was set back");
	else if (!(p->d->has_acts ? records : commits))
		page_put(p, "nothing");
	else if (p->d->has_acts)
		page_put(p, "%N changes of records of the last %D", records, end);
	else
		page_put(p, "what %N transactions of the last %D did", commits, end);
}

static void answer_loss(struct page *p)
{
	const struct snapshots *s = &p->in->snapshots;
	const struct manifest *newest = NULL;
	size_t i;

	put_question(p, "What would be lost by going back to a snapshot?");
	for (i = 0; i < s->count; i++)
		if (page_can_restore(&s->list[i]))
			newest = &s->list[i];
	if (!newest) {
		page_put(p, "There is no snapshot to go back to.</dd>\n");
		return;
	}
	page_put(p, "The newest, number %N of %t, would lose <strong>", newest->header.id,
		 newest->header.time);
	page_loss(p, newest);
	page_put(p, "</strong>. Nothing is lost by not going back. <a href=\"#snapshots\">All "
		    "snapshots</a></dd>\n");
}

/* "1 process died", "3 processes died"; nothing of none. */
static void put_count(struct page *p, unsigned *told, uint64_t n, const char *one, const char *many)
{
	if (n)
		page_put(p, "%T%N %T", (*told)++ ? ", " : "", n, n == 1 ? one : many);
}

static void put_wrong(struct page *p)
{
	const struct digest *d = p->d;
	unsigned told = 0;

	put_count(p, &told, p->answers.dead_count, "process that wrote died",
		  "processes that wrote died");
	put_count(p, &told, d->refused, "call was refused", "calls were refused");
	put_count(p, &told, d->events[DIGEST_PERSIST_UNDONE].count, "index write was undone",
		  "index writes were undone");
	put_count(p, &told, d->events[DIGEST_SPACE].count, "warning came of little room",
		  "warnings came of little room");
	page_put(p, ".");
}

static void put_verdict(struct page *p)
{
	uint64_t damage = p->summary.findings[DIAGNOSE_DAMAGE];

	if (damage)
		page_put(
		    p,
		    "<p class=\"verdict bad\"><strong>The directory is damaged now</strong> (%N "
		    "%T). <a href=\"#findings\">What it is, and what helps</a></p>\n",
		    damage, damage == 1 ? "finding" : "findings");
	if (answers_are_bad(&p->answers, p->d)) {
		page_put(p,
			 "<p class=\"verdict %T\"><strong>Something went wrong</strong> in this "
			 "time: ",
			 damage ? "bad" : "warn");
		put_wrong(p);
		page_put(p, "%T</p>\n",
			 p->checked && !damage ? " The directory is whole now." : "");
	} else if (!damage) {
		page_put(
		    p,
		    "<p class=\"verdict ok\"><strong>Nothing went wrong</strong> in this time: no "
		    "process died, nothing was refused, nothing had to be undone.%T</p>\n",
		    p->checked ? " The directory is whole." : "");
	}
}

void page_answers(struct page *p)
{
	page_section(p, "answers", "In short",
		     "The five questions after a bad night, answered from the log.");
	put_verdict(p);
	page_notes(p);
	page_put(p, "<dl class=\"answers\">\n");
	answer_end(p);
	answer_told(p);
	answer_flight(p);
	answer_others(p);
	answer_loss(p);
	page_put(p, "</dl>\n");
	page_section_end(p);
}
