/* SPDX-License-Identifier: MIT
 *
 * What the guardian counts in the log: how long commits and syncs took, since it began, and who
 * works on the directory now. Once a minute it reads what has come; that is the newest segments.
 */
#include <stdlib.h>
#include <time.h>

#include "command/guard/metrics.h"
#include "core/base/clock.h"
#include "core/oplog/read.h"

#define EVERY (60 * SECOND)
#define LONGEST (120 * SECOND) /* what took longer is not counted */
#define SETTLED (1 * SECOND)   /* what has ended that long ago stands in the log */

const double guard_bucket_ends[GUARD_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
						 0.1,	 0.25,	0.5,	1,     2.5,  5,	    10};

static void histogram_add(struct guard_histogram *h, uint64_t ns)
{
	unsigned i;

	for (i = 0; i < GUARD_BUCKETS && (double)ns > guard_bucket_ends[i] * 1e9; i++)
		;
	if (i < GUARD_BUCKETS)
		h->buckets[i]++;
	h->count++;
	h->sum += ns;
}

static void note(struct guard_log *log, const struct oplog_entry *e, uint64_t until)
{
	/* A transaction is told when it has ended, a call when it was entered. */
	uint64_t end = e->op == OP_TXN_COMMIT ? e->time : e->time + e->duration;

	if (e->in_flight || end <= log->until || end > until)
		return;
	if (e->op == OP_TXN_COMMIT)
		histogram_add(&log->commits, e->duration);
	else if (e->op >= OP_FSYNC && e->op <= OP_MSYNC)
		histogram_add(&log->syncs, e->duration);
}

static unsigned count_living(struct oplog_reader *reader)
{
	unsigned n = 0;
	size_t i, k;

	for (i = 0; i < oplog_reader_segments(reader); i++) {
		const struct oplog_segment_info *s = oplog_reader_segment(reader, i);

		if (s->error || s->life != OPLOG_LIVE)
			continue;
		for (k = 0; k < i; k++) {
			const struct oplog_segment_info *b = oplog_reader_segment(reader, k);

			if (!b->error && oplog_same_process(&b->header, &s->header))
				break;
		}
		n += k == i;
	}
	return n;
}

void metrics_read_log(struct guardian *g, bool last)
{
	uint64_t now = clock_read(CLOCK_REALTIME), until = now - SETTLED;
	struct guard_log *log = &g->log;
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r;

	if (!log->until)
		log->until = g->started;
	/* Back or forward, as a clock is set: not what has been is counted, but what comes. */
	if (log->until > now)
		log->until = until;
	if (log->read_at && now >= log->read_at && now < log->read_at + EVERY && !last)
		return;
	log->read_at = now;
	r = oplog_reader_open(g->s.data.storefd, &reader);
	if (r < 0)
		return;
	log->processes = count_living(reader);
	log->lost = oplog_reader_lost(reader);
	oplog_reader_since(reader, log->until > LONGEST ? log->until - LONGEST : 0);
	while ((r = oplog_reader_next(reader, &e)) > 0)
		note(log, &e, until);
	if (until > log->until)
		log->until = until;
	oplog_reader_close(reader);
}
