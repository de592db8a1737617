/* SPDX-License-Identifier: MIT
 *
 * report.html: what is nobody's fault, and yet what people look for.
 */
#include "command/report/page.h"

#include <string.h>

#include "core/chroma/written_by.h"

#define MANY_DELETED 100

static void begin_note(struct page *p, unsigned *told)
{
	page_put(p, (*told)++ ? "<li>" : "<ul class=\"findings\">\n<li>");
}

static const struct manifest *snapshot_before(const struct page *p, uint64_t time)
{
	const struct snapshots *s = &p->in->snapshots;
	const struct manifest *best = NULL;
	size_t i;

	for (i = 0; i < s->count; i++)
		if (page_can_restore(&s->list[i]) && s->list[i].header.time < time)
			best = &s->list[i];
	return best;
}

static void put_way_back(struct page *p, uint64_t time)
{
	const struct manifest *m = snapshot_before(p, time);

	if (m)
		page_put(p, " Snapshot %d of %t is from before.", m->header.id, m->header.time);
	else
		page_put(p, " There is no snapshot from before.");
}

static void note_deletions(struct page *p, unsigned *told)
{
	const struct digest_rows *rows = &p->d->tables[DIGEST_COLLECTIONS];
	char name[DIGEST_TEXT];
	size_t i;

	for (i = 0; i < rows->count; i++) {
		const struct digest_row *row = rows->list[i];

		if (row->deleted < MANY_DELETED || row->deleted_most < row->deleted / 2)
			continue;
		begin_note(p, told);
		page_put(p,
			 "<strong>Many records were deleted:</strong> %N from collection "
			 "<strong>%T</strong>, most of them at %t by process %d (%N in one go).",
			 row->deleted, page_name(p, row->name, name), row->deleted_at,
			 (uint64_t)row->deleted_by, row->deleted_most);
		put_way_back(p, row->deleted_at);
		page_put(p, "</li>\n");
	}
}

static void note_collections(struct page *p, unsigned *told)
{
	const struct digest_events *e = &p->d->events[DIGEST_COLLECTION];
	uint64_t k = e->count > DIGEST_EVENTS ? e->count - DIGEST_EVENTS : 0;
	unsigned shown = 0;

	for (; k < e->count; k++) {
		const struct digest_event *one = &e->last[k % DIGEST_EVENTS];

		if (one->number != OPLOG_COLLECTION_DELETED || shown++ >= 8)
			continue;
		begin_note(p, told);
		page_put(p,
			 "<strong>A collection was deleted:</strong> <strong>%T</strong> at %t by "
			 "process %d.",
			 one->text, one->time, (uint64_t)one->pid);
		put_way_back(p, one->time);
		page_put(p, "</li>\n");
	}
}

/* Whether a process has made the tables, which begins with the first migration. */
static bool has_made_tables(const struct digest_events *e, uint32_t pid)
{
	uint64_t k = e->count > DIGEST_EVENTS ? e->count - DIGEST_EVENTS : 0;

	for (; k < e->count; k++) {
		const struct digest_event *one = &e->last[k % DIGEST_EVENTS];

		if (one->op == OP_MIGRATION && one->pid == pid && strstr(one->text, " 00001"))
			return true;
	}
	return false;
}

static void note_upgrades(struct page *p, unsigned *told)
{
	const struct digest_events *e = &p->d->events[DIGEST_UPGRADE];
	uint64_t k = e->count > DIGEST_EVENTS ? e->count - DIGEST_EVENTS : 0, count = 0;
	const struct digest_event *first = NULL, *last = NULL;

	for (; k < e->count; k++) {
		const struct digest_event *one = &e->last[k % DIGEST_EVENTS];

		if (one->op != OP_MIGRATION || has_made_tables(e, one->pid))
			continue;
		count++;
		first = first ? first : one;
		last = one;
	}
	if (!last)
		return;
	begin_note(p, told);
	page_put(
	    p,
	    "<strong>A newer Chroma has upgraded the tables</strong> at %t (process %d, %N "
	    "steps, the last <code>%T</code>). An older Chroma may not be able to open them any "
	    "more.",
	    last->time, (uint64_t)last->pid, count, last->text);
	put_way_back(p, first->time);
	page_put(p, "</li>\n");
}

static void note_restores(struct page *p, unsigned *told)
{
	const struct snapshots *s = &p->in->snapshots;
	size_t i;

	for (i = 0; i < s->count; i++) {
		if (!s->list[i].reason || strcmp(s->list[i].reason, "restore") != 0)
			continue;
		begin_note(p, told);
		page_put(
		    p,
		    "<strong>The directory was restored</strong> from a snapshot after %t; what "
		    "was there before is snapshot %d.</li>\n",
		    s->list[i].header.time, s->list[i].header.id);
	}
}

static void note_growth(struct page *p, unsigned *told)
{
	const struct digest_row *row = digest_find(p->d, DIGEST_FILES, CHROMA_DATABASE);

	if (!row || !row->size_known || row->grown < (UINT64_C(64) << 20) ||
	    row->grown < row->size_before)
		return;
	begin_note(p, told);
	page_put(p,
		 "<strong>The database has grown</strong> from %B to %B. <a href=\"#growth\">What "
		 "grew</a></li>\n",
		 row->size_before, row->size);
}

/* The last one of each kind; how many there were is said above. */
static void note_refusals(struct page *p, unsigned *told)
{
	static const struct {
		uint16_t op;
		const char *says;
	} kinds[] = {{OP_REFUSE_WRITER, "A second process wanted to write, and was refused"},
		     {OP_REFUSE_SPACE, "A write was refused, since the disk was nearly full"},
		     {OP_REFUSE_DESTROYER, "What would have destroyed data was refused"}};
	const struct digest_events *e = &p->d->events[DIGEST_REFUSAL];
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		uint64_t k = e->count > DIGEST_EVENTS ? e->count - DIGEST_EVENTS : 0;
		const struct digest_event *last = NULL;

		for (; k < e->count; k++)
			if (e->last[k % DIGEST_EVENTS].op == kinds[i].op)
				last = &e->last[k % DIGEST_EVENTS];
		if (!last)
			continue;
		begin_note(p, told);
		page_put(p, "<strong>%T</strong> at %t (process %d): %T</li>\n", kinds[i].says,
			 last->time, (uint64_t)last->pid, last->text);
	}
}

/* In the library's own words. */
static void note_older(struct page *p, unsigned *told)
{
	const struct digest_events *e = &p->d->events[DIGEST_NOTE];
	uint64_t k = e->count > DIGEST_EVENTS ? e->count - DIGEST_EVENTS : 0;
	const struct digest_event *last = NULL;

	for (; k < e->count; k++)
		if (strstr(e->last[k % DIGEST_EVENTS].text, OLDER_CHROMA))
			last = &e->last[k % DIGEST_EVENTS];
	if (!last)
		return;
	begin_note(p, told);
	page_put(p, "<strong>An older Chroma was started here</strong> at %t (process %d): %T",
		 last->time, (uint64_t)last->pid, last->text);
	page_put(p, "</li>\n");
}

void page_notes(struct page *p)
{
	unsigned told = 0;

	note_deletions(p, &told);
	note_collections(p, &told);
	note_upgrades(p, &told);
	note_older(p, &told);
	note_restores(p, &told);
	note_growth(p, &told);
	note_refusals(p, &told);
	if (told)
		page_put(p, "</ul>\n");
}
