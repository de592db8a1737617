/* SPDX-License-Identifier: MIT
 *
 * The log in numbers.
 */
#include "command/digest/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/string.h>

#include "core/oplog/oplog.h"

#define WIDTH UINT64_C(1000000) /* of a bucket at first: 1 ms */
#define PROCESSES 512u

struct digest *digest_new(void)
{
	struct digest *d = calloc(1, sizeof(*d));

	if (d)
		d->width = WIDTH;
	return d;
}

void digest_free(struct digest *d)
{
	size_t i;

	if (!d)
		return;
	for (i = 0; i < DIGEST_TABLE_COUNT; i++)
		digest_rows_free(&d->tables[i]);
	for (i = 0; i < sizeof(d->ops) / sizeof(d->ops[0]); i++)
		latency_free(&d->ops[i]);
	latency_free(&d->sync);
	latency_free(&d->transaction);
	latency_free(&d->persist);
	for (i = 0; i < d->process_count; i++)
		free(d->processes[i]);
	free(d->processes);
	free(d->moments);
	free(d);
}

/* ---- processes ---- */

/* The last of the table is of all that had no room. */
struct digest_process *digest_process(struct digest *d, const struct oplog_header *h)
{
	struct digest_process *p;
	size_t i;

	if (d->process_count && oplog_same_process(&d->processes[d->process_at]->header, h))
		return d->processes[d->process_at];
	for (i = d->process_count; i-- > 0;) {
		if (!oplog_same_process(&d->processes[i]->header, h))
			continue;
		d->process_at = i;
		return d->processes[i];
	}
	if (d->process_count == PROCESSES)
		return d->processes[PROCESSES - 1];
	if (!d->processes)
		d->processes = calloc(PROCESSES, sizeof(*d->processes));
	p = d->processes ? calloc(1, sizeof(*p)) : NULL;
	if (!p)
		return NULL;
	p->header = *h;
	strlcpy(p->command, h->program, sizeof(p->command));
	if (d->process_count == PROCESSES - 1)
		strlcpy(p->command, DIGEST_OTHERS, sizeof(p->command));
	d->process_at = d->process_count;
	d->processes[d->process_count++] = p;
	return p;
}

static void note_process(struct digest_process *p, const struct oplog_entry *e)
{
	if (!p->first)
		p->first = e->time;
	p->last = e->time;
	p->calls++;
	p->in_flight += e->in_flight;
	/* The header says what is now: at its end it has given the right to write back. */
	p->wrote = p->wrote || (e->header->features & OPLOG_HAS_WRITER) != 0 ||
		   (e->op == OP_TXN_COMMIT && e->length);
	/* Both logs tell of an end, and what the other one says may come after it. */
	if (e->op == OP_EXIT || (e->op == OP_EXEC && e->result >= 0)) {
		p->exited = true;
		p->stopped_by = e->op == OP_EXIT ? (int)e->arg : 0;
		p->exit_status = e->op == OP_EXIT && e->offset == 0 ? (int)e->result : -1;
	} else if (e->op == OP_START || !oplog_is_act(e->op)) {
		p->exited = false;
	}
}

/* ---- moments ---- */

static struct digest_moment *moment_before(const struct digest *d, uint64_t time)
{
	size_t i = d->moment_count;

	while (i > 0 && d->moments[i - 1].time >= time)
		i--;
	return i ? &d->moments[i - 1] : NULL;
}

static void note_moment(struct digest *d, uint64_t time, uint64_t records, uint64_t commits)
{
	struct digest_moment *m = moment_before(d, time);

	if (!m)
		return;
	m->records += records;
	m->commits += commits;
}

uint64_t digest_records_since(const struct digest *d, uint64_t time)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < d->moment_count; i++)
		sum += d->moments[i].time >= time ? d->moments[i].records : 0;
	return sum;
}

uint64_t digest_commits_since(const struct digest *d, uint64_t time)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < d->moment_count; i++)
		sum += d->moments[i].time >= time ? d->moments[i].commits : 0;
	return sum;
}

/* ---- all of it ---- */

static int note_operation(struct digest *d, const struct oplog_entry *e)
{
	unsigned op = e->op < 256 ? e->op : 0;

	if (e->in_flight) {
		d->in_flight++;
		return 0;
	}
	if (digest_is_sync(op) && latency_add(&d->sync, e->duration) < 0)
		return -ENOMEM;
	return latency_add(&d->ops[op], e->duration);
}

int digest_add(struct digest *d, const struct oplog_entry *e)
{
	uint64_t records = d->records, commits = d->commits;
	struct digest_process *p;
	int r;

	if (e->time < d->since || (d->until && e->time >= d->until))
		return 0;
	if (!d->entries++) {
		d->first = d->start = e->time;
		d->last = e->time;
	}
	if (e->time > d->last)
		d->last = e->time;
	digest_reach(d, e->time);
	p = digest_process(d, e->header);
	if (!p)
		return -ENOMEM;
	note_process(p, e);
	d->entries_by_time.at[digest_bucket(d, e->time)]++;
	r = note_operation(d, e);
	if (r == 0)
		r = digest_call(d, p, e);
	if (r == 0)
		r = digest_work(d, p, e);
	if (r == 0)
		r = digest_act(d, p, e);
	if (r == 0)
		r = digest_happened(d, p, e);
	if (d->records != records || d->commits != commits)
		note_moment(d, e->time, d->records - records, d->commits - commits);
	return r;
}
