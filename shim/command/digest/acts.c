/* SPDX-License-Identifier: MIT
 *
 * The log in numbers: what commits did, in Chroma's words.
 */
#include "command/digest/digest.h"

#include <errno.h>
#include <string.h>

#include <bsd/string.h>

/* What the texts of a record say; nothing of one that was damaged. */
static struct oplog_records counts_of(const struct oplog_entry *e)
{
	struct oplog_records n = {0};

	if (e->text_size >= sizeof(n))
		memcpy(&n, e->text, sizeof(n));
	return n;
}

/* It is acknowledged once its transaction is committed, which the log tells before or after. */
static void note_told(struct digest_process *p, const struct oplog_entry *e, uint64_t count)
{
	struct digest_open *o = NULL;
	unsigned i;

	for (i = 0; i < p->open_count && !o; i++)
		if (!p->open[i].is_persist && p->open[i].t.number == e->arg)
			o = &p->open[i];
	if (o)
		o->records += count;
	else
		p->told_at = e->time;
	p->told_seq = e->length;
	p->told_is_guess = false;
	strlcpy(p->told_in, e->name ? e->name : "", sizeof(p->told_in));
}

static void add_counts(struct digest_row *row, const struct oplog_records *n)
{
	row->added += n->added;
	row->updated += n->updated;
	row->upserted += n->upserted;
	row->deleted += n->deleted;
	row->other += n->other;
	row->commits++;
}

static int note_records(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	struct digest_row *row =
	    digest_row(d, DIGEST_COLLECTIONS, e->name ? e->name : DIGEST_OTHERS);
	uint64_t count = e->result > 0 ? (uint64_t)e->result : 0;
	struct oplog_records n = counts_of(e);

	if (!row)
		return -ENOMEM;
	add_counts(row, &n);
	if (n.deleted > row->deleted_most) {
		row->deleted_most = n.deleted;
		row->deleted_at = e->time;
		row->deleted_by = e->header->pid;
	}
	row->at_least = row->at_least || n.more;
	row->by_time.at[digest_bucket(d, e->time)] += count;
	row->first = row->first ? row->first : e->time;
	row->last = e->time;
	d->has_acts = true;
	d->records += count;
	d->records_by_time.at[digest_bucket(d, e->time)] += count;
	p->records += count;
	note_told(p, e, count);
	return 0;
}

static int note_purge(struct digest *d, const struct oplog_entry *e)
{
	struct digest_row *row =
	    digest_row(d, DIGEST_COLLECTIONS, e->name ? e->name : DIGEST_OTHERS);

	if (!row)
		return -ENOMEM;
	row->purged += e->result > 0 ? (uint64_t)e->result : 0;
	return 0;
}

/* The least of a stretch of time. */
static void note_disk(struct digest *d, const struct oplog_entry *e)
{
	uint64_t *at = &d->free_by_time.at[digest_bucket(d, e->time)];
	uint64_t left = e->offset > 0 ? (uint64_t)e->offset + 1 : 1;

	if (!*at || left < *at)
		*at = left;
}

/* How long the line was at it: a persist of Chroma before 1.0 is part of a transaction. */
static void note_time(struct digest_row *row, const struct oplog_entry *e)
{
	uint64_t begin = e->time > e->duration ? e->time - e->duration : 0;

	if (begin < row->last)
		begin = row->last;
	row->call_ns += e->time > begin ? e->time - begin : 0;
	row->max_ns = e->duration > row->max_ns ? e->duration : row->max_ns;
	row->first = row->first ? row->first : e->time;
	row->last = e->time;
}

/* A commit that changed records or a collection, or a persist. */
static int note_caller(struct digest *d, const struct oplog_entry *e)
{
	struct digest_row *row = digest_row(d, DIGEST_CALLERS, e->caller);
	struct oplog_records n;

	if (!row)
		return -ENOMEM;
	if (e->op == OP_RECORDS) {
		n = counts_of(e);
		add_counts(row, &n);
	}
	row->syncs += e->op == OP_PERSIST_COMMIT;
	if (e->op == OP_PERSIST_COMMIT && e->offset > 0)
		row->sync_ns += (uint64_t)e->offset;
	if (e->op != OP_RECORDS && e->op != OP_PERSIST_COMMIT && e->op != OP_COLLECTION)
		return 0;
	row->calls++;
	note_time(row, e);
	return 0;
}

int digest_act(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	if (e->caller && note_caller(d, e) < 0)
		return -ENOMEM;
	switch (e->op) {
	case OP_RECORDS:
		return note_records(d, p, e);
	case OP_PURGE:
		return note_purge(d, e);
	case OP_DISK:
		note_disk(d, e);
		return 0;
	default:
		return 0;
	}
}
