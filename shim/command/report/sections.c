/* SPDX-License-Identifier: MIT
 *
 * report.html: what is told in words and tables.
 */
#include "command/report/page.h"

#include <string.h>

/* ---- transactions ---- */

static void put_about(struct page *p, const struct digest_transaction *t)
{
	unsigned i;

	if (t->statement[0])
		page_put(p, "<code>%T</code>", t->statement);
	if (t->statements > 1)
		page_put(p, " and %N more", (uint64_t)t->statements - 1);
	for (i = 0; !t->statement[0] && i < t->table_count; i++)
		page_put(p, i ? ", %T" : "%T", t->tables[i]);
	if (!t->statement[0] && !t->table_count)
		page_put(p, "not known");
	if (t->schema)
		page_put(p, " (tables changed)");
	if (t->rolled_back)
		page_put(p, " (undone)");
}

static void put_transactions(struct page *p, const char *caption,
			     const struct digest_transaction *list, unsigned count)
{
	unsigned i;

	page_table(p, caption,
		   "When|#Took|#Of it in syncs|#Pages|#Written|#Process|What it was about");
	for (i = 0; i < count; i++) {
		const struct digest_transaction *t = &list[i];

		page_put(
		    p,
		    "<tr><td>%t</td><td class=\"n\" data-n=\"%d\">%D</td><td class=\"n\">%D</td>"
		    "<td class=\"n\">%N</td><td class=\"n\" data-n=\"%d\">%B</td><td "
		    "class=\"n\">%d</td><td class=\"w\">",
		    t->begin, t->duration, t->duration, t->sync_ns, t->pages, t->bytes, t->bytes,
		    (uint64_t)t->pid);
		put_about(p, t);
		page_put(p, "</td></tr>\n");
	}
	page_table_end(p);
}

void page_transactions(struct page *p)
{
	page_section(
	    p, "transactions", "The slowest and the largest transactions",
	    "A page is a piece of the database of 4096 bytes, as a rule; a transaction "
	    "writes whole pages. What a transaction was about is told by its statement, or "
	    "by the tables of the pages that it wrote.");
	page_put(p,
		 "<p><span data-n=\"%d\">%N</span> %T committed and <span "
		 "data-n=\"%d\">%N</span> undone.</p>\n",
		 p->d->commits, p->d->commits,
		 p->d->commits == 1 ? "transaction was" : "transactions were", p->d->rolled_back,
		 p->d->rolled_back);
	put_transactions(p, "The slowest transactions", p->d->slow, p->d->slow_count);
	put_transactions(p, "The transactions that wrote most", p->d->large, p->d->large_count);
	page_section_end(p);
}

/* ---- lines of the program ---- */

#define CALLERS_TOLD 30

static uint64_t by_time(const struct digest_row *row)
{
	return row->call_ns + 1;
}

bool page_has_callers(const struct page *p)
{
	return p->d->tables[DIGEST_CALLERS].count > 0;
}

/* Nothing where none were told. */
void page_callers(struct page *p)
{
	const struct digest_row *rows[CALLERS_TOLD];
	size_t count = digest_best(p->d, DIGEST_CALLERS, by_time, rows, CALLERS_TOLD), i;

	if (!count)
		return;
	page_section(
	    p, "callers", "Which lines of the program did it",
	    "The lines that called Chroma (CHROMASHIM_LOG_CALLER), with what their "
	    "transactions and index writes took. Where several threads did the same to one "
	    "collection at once, no line is told.");
	page_table(p, "Lines of the program, by time",
		   "Line|#Added|#Updated|#Upserted|#Deleted|#Commits|#Took|#Slowest|#Index writes");
	for (i = 0; i < count; i++) {
		const struct digest_row *row = rows[i];

		page_put(p,
			 "<tr><th scope=\"row\"><code>%T</code></th><td class=\"n\">%N</td>"
			 "<td class=\"n\">%N</td><td class=\"n\">%N</td><td class=\"n\">%N</td>"
			 "<td class=\"n\">%N</td>",
			 row->name, row->added, row->updated, row->upserted, row->deleted,
			 row->commits);
		page_put(p,
			 "<td class=\"n\" data-n=\"%d\">%D</td><td class=\"n\">%D</td>"
			 "<td class=\"n\">%N</td></tr>\n",
			 row->call_ns, row->call_ns, row->max_ns, row->syncs);
	}
	page_table_end(p);
	page_section_end(p);
}

/* ---- snapshots ---- */

/* A reason in words; what a program has announced is its own. */
static const char *why(const char *reason)
{
	static const struct {
		const char *reason, *words;
	} known[] = {
	    {"schedule", "it was time"},
	    {"manual", "asked for"},
	    {"stop", "the backend had ended"},
	    {"bulk", "before much changed"},
	    {"schema", "before tables changed"},
	    {"migration", "before an upgrade"},
	    {"remove", "before files were removed"},
	    {"restore", "before a restore"},
	    {"recover", "before a repair"},
	    {"damage", "to keep the damage"},
	};
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i].reason, reason))
			return known[i].words;
	return reason;
}

void page_snapshots(struct page *p)
{
	const struct snapshots *s = &p->in->snapshots;
	char state[32];
	size_t i;

	page_section(p, "snapshots", "Snapshots",
		     "A snapshot is the whole directory as it was at one moment. One that is "
		     "verified was opened and looked through, and can be gone back to.");
	if (!s->count) {
		page_put(p, "<p>There is none.</p>\n");
		page_section_end(p);
		return;
	}
	page_table(p, "Snapshots, and what going back to each would lose",
		   "#Number|Taken|State|Why|#Records|#Size|Would lose");
	for (i = 0; i < s->count; i++) {
		const struct manifest *m = &s->list[i];

		page_put(
		    p,
		    "<tr><th scope=\"row\" class=\"n\">%d</th><td>%t</td><td class=\"s\">%T</td>"
		    "<td class=\"s\">%T</td><td class=\"n\">%N</td><td class=\"n\">%B</td><td "
		    "class=\"w\">",
		    m->header.id, m->header.time, snapshots_state(m, state, sizeof(state)),
		    why(m->reason ? m->reason : ""), manifest_records(m), manifest_total_size(m));
		if (page_can_restore(m))
			page_loss(p, m);
		else
			page_put(p, "%T",
				 m->trouble && m->trouble[0] ? m->trouble : "not yet copied");
		page_put(p, "</td></tr>\n");
	}
	page_table_end(p);
	page_section_end(p);
}

/* ---- processes ---- */

#define PROCESSES_TOLD 40

static const char *how_it_ended(const struct page *p, const struct digest_process *who,
				char out[32])
{
	if (!who->exited)
		return oplog_header_life(p->in->data.storefd, &who->header) == OPLOG_LIVE
			   ? "at work"
			   : "died";
	if (who->stopped_by)
		return "stopped";
	if (who->exit_status <= 0)
		return "by itself";
	snprintf(out, 32, "status %d", who->exit_status);
	return out;
}

void page_processes(struct page *p)
{
	const struct digest *d = p->d;
	size_t first = d->process_count > PROCESSES_TOLD ? d->process_count - PROCESSES_TOLD : 0, i;
	char how[32];

	page_section(p, "processes", "Who was here",
		     "Every process that had the directory open under chromashim, the newest last. "
		     "Only one may write at a time.");
	page_table(p, "Processes",
		   "#Process|Command|From|To|How it ended|#Records|#Transactions|#Written|#Time in "
		   "syncs|#Refused");
	for (i = first; i < d->process_count; i++) {
		const struct digest_process *who = d->processes[i];

		page_put(
		    p,
		    "<tr><th scope=\"row\" class=\"n\">%d</th><td><code>%T</code></td><td>%t</td>"
		    "<td>%t</td><td class=\"s\">%T</td><td class=\"n\" data-n=\"%d\">%N</td><td "
		    "class=\"n\" "
		    "data-n=\"%d\">%N</td><td class=\"n\" data-n=\"%d\">%B</td><td "
		    "class=\"n\" data-n=\"%d\">%D</td><td class=\"n\" data-n=\"%d\">%N</td></tr>\n",
		    (uint64_t)who->header.pid, who->command, who->first, who->last,
		    how_it_ended(p, who, how), who->records, who->records, who->commits,
		    who->commits, who->written, who->written, who->sync_ns, who->sync_ns,
		    who->refused, who->refused);
	}
	page_table_end(p);
	page_section_end(p);
}

/* ---- what check says ---- */

void page_findings(struct page *p)
{
	size_t i;

	if (!p->checked)
		return;
	page_section(p, "findings", "The directory as it is now",
		     "What chromashim finds when it looks through the files (chromashim check), "
		     "whatever the log says.");
	if (!p->finding_count)
		page_put(
		    p, "<p>It is whole: nothing is wrong with %N collections and %N records.</p>\n",
		    p->summary.collections, p->summary.records);
	else
		page_put(p, "<ul class=\"findings\">\n");
	for (i = 0; i < p->finding_count; i++) {
		const struct page_finding *f = &p->findings[i];
		const struct diagnose_kind *kind = &diagnose_kinds[f->code];

		page_put(
		    p,
		    "<li><strong>%T: %T</strong>%T%T%T%T<br>%T<br><em>What helps:</em> %T</li>\n",
		    diagnose_severity_names[kind->severity], kind->code, f->where[0] ? ", " : "",
		    f->where, f->detail[0] ? ": " : "", f->detail, kind->means, kind->helps);
	}
	if (p->finding_count)
		page_put(p, "</ul>\n");
	page_section_end(p);
}
