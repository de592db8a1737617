/* SPDX-License-Identifier: MIT
 *
 * report.html: what to change, and why. Nothing is said for which the log has no numbers.
 */
#include "command/report/page.h"

#include <inttypes.h>
#include <string.h>

#include "command/base/terminal.h"

#define FEW_RECORDS 5	 /* in a transaction */
#define MANY_COMMITS 200 /* before their size matters */
#define MANY_PERSISTS 5	 /* of one collection */
#define SLOW_SYNC UINT64_C(20000000)

static void begin(struct page *p, unsigned *count, const char *title)
{
	if (!(*count)++)
		page_put(p, "<ol class=\"advice\">\n");
	page_put(p, "<li><strong>%T</strong><br>", title);
}

static void end(struct page *p)
{
	page_put(p, "</li>\n");
}

static const struct page_collection *of_segment(const struct page *p, const char *segment)
{
	size_t i;

	for (i = 0; i < p->collection_count; i++)
		if (!strcmp(p->collections[i].vector_segment, segment))
			return &p->collections[i];
	return NULL;
}

/* Persists of a collection that come often, and write much for few records; NULL: they do not. */
static const struct page_collection *persists_often(const struct page *p,
						    const struct digest_row *row)
{
	const struct page_collection *c = of_segment(p, row->name);
	uint64_t span = p->d->last - p->d->first;

	if (row->calls < MANY_PERSISTS || !c || c->sync_threshold <= 0 ||
	    (row->call_ns < span / 50 && row->written < p->d->written / 5))
		return NULL;
	return c;
}

/* What is the same for all of them is said once. */
static void on_persists(struct page *p, unsigned *count)
{
	const struct digest_rows *rows = &p->d->tables[DIGEST_SEGMENTS];
	const struct page_collection *c;
	char name[DIGEST_TEXT];
	unsigned told = 0;
	size_t i;

	for (i = 0; i < rows->count; i++) {
		const struct digest_row *row = rows->list[i];

		if (!(c = persists_often(p, row)))
			continue;
		if (!told++) {
			begin(p, count, "Write indexes less often.");
			page_put(p, "<ul>\n");
		}
		page_put(p,
			 "<li>Collection <strong>%T</strong>: you persist every %N records; in "
			 "this time that happened %x, took %D and wrote %B. With "
			 "<code>hnsw:sync_threshold</code> of %N it is a tenth of that.</li>\n",
			 page_name(p, row->name, name), (uint64_t)c->sync_threshold, row->calls,
			 row->call_ns, row->written, (uint64_t)c->sync_threshold * 10);
	}
	if (!told)
		return;
	page_put(p, "</ul>\nNothing becomes less safe, since what is not yet in the index is in "
		    "the queue; only a start takes longer, because the queue is read again.");
	end(p);
}

static void on_small_commits(struct page *p, unsigned *count)
{
	const struct digest *d = p->d;
	uint64_t commits = 0;
	size_t i;

	for (i = 0; i < d->tables[DIGEST_COLLECTIONS].count; i++)
		commits += d->tables[DIGEST_COLLECTIONS].list[i]->commits;
	if (commits < MANY_COMMITS || d->records / commits >= FEW_RECORDS)
		return;
	begin(p, count, "Put more records into one call.");
	page_put(
	    p,
	    "%N changes of records came in %N calls: %N or so in each. Every call waits for the "
	    "disk several times, whatever its size; all waits together were %D. With 100 "
	    "records in a call (<code>collection.add</code> takes lists) most of that goes.",
	    d->records, commits, d->records / commits, d->sync_ns);
	end(p);
}

static void on_slow_disk(struct page *p, unsigned *count)
{
	const struct latency *l = &p->d->sync;

	if (l->count < 50 || latency_percentile(l, 50) < SLOW_SYNC)
		return;
	begin(p, count, "The disk is slow to say that it has written.");
	page_put(
	    p,
	    "Half of %N syncs took longer than %D, one of a hundred longer than %D. A local SSD "
	    "takes a few milliseconds. Network disks, full disks and disks that others use too "
	    "are slower.",
	    l->count, latency_percentile(l, 50), latency_percentile(l, 99));
	end(p);
}

static void on_refusals(struct page *p, unsigned *count)
{
	const struct digest *d = p->d;

	if (d->ops[OP_REFUSE_WRITER].count) {
		begin(p, count, "Let one process write, and the others ask it.");
		page_put(
		    p,
		    "A second process wanted to write %x and was refused, since two "
		    "writers ruin an index. Run one server (<code>chroma run</code>) and let all "
		    "programs use <code>HttpClient</code>; start uvicorn or gunicorn with one "
		    "worker.",
		    d->ops[OP_REFUSE_WRITER].count);
		end(p);
	}
	if (d->ops[OP_REFUSE_SPACE].count) {
		begin(p, count, "Make room on the disk.");
		page_put(p,
			 "%N %T refused for want of room; %B of %B are free now. "
			 "<code>chromashim snapshot prune</code> lets go of old snapshots, "
			 "<code>chroma vacuum</code> gives back what deleted records held.",
			 d->ops[OP_REFUSE_SPACE].count,
			 d->ops[OP_REFUSE_SPACE].count == 1 ? "write was" : "writes were",
			 p->disk_free, p->disk_total);
		end(p);
	}
	if (d->ops[OP_REFUSE_DESTROYER].count) {
		begin(p, count, "Find out who removes or overwrites files here.");
		page_put(p,
			 "%N %T refused, because data in use would have been destroyed; the time "
			 "line below has the processes.",
			 d->ops[OP_REFUSE_DESTROYER].count,
			 d->ops[OP_REFUSE_DESTROYER].count == 1 ? "call was" : "calls were");
		end(p);
	}
}

static void on_deaths(struct page *p, unsigned *count)
{
	const struct answers *a = &p->answers;

	if (a->end == ANSWER_MEMORY || (a->end == ANSWER_KILLED && a->oom_kills)) {
		begin(p, count, "Give the backend more memory, or let it hold fewer indexes.");
		page_put(p,
			 "Chroma keeps the vectors of every collection that was used in memory: "
			 "4 bytes for each dimension of each record, and some 150 for its links. "
			 "Raise the limit of the container; before Chroma 1.0, "
			 "<code>chroma_memory_limit_bytes</code> with the LRU policy also helps.");
		end(p);
	}
	if (a->dead_count >= 3) {
		begin(p, count, "Find out why it dies so often.");
		page_put(
		    p,
		    "%N writing processes did not end by themselves. Look at the limits of the "
		    "container, at what restarts it (pm2, systemd), and how long that waits "
		    "before it kills: Chroma needs up to ten seconds to stop.",
		    (uint64_t)a->dead_count);
		end(p);
	}
}

static void on_space(struct page *p, unsigned *count)
{
	if (p->free_bytes < (UINT64_C(64) << 20) || p->free_bytes < p->database_bytes / 4)
		return;
	begin(p, count, "Give back what the database does not use.");
	page_put(p,
		 "%B of the %B of chroma.sqlite3 hold nothing: deleted records leave their pages "
		 "behind. Stop the backend and run <code>chroma vacuum</code> (or "
		 "<code>chroma utils vacuum</code> before 1.0); a snapshot before it is taken "
		 "by itself.",
		 p->free_bytes, p->database_bytes);
	end(p);
}

static void on_snapshots(struct page *p, unsigned *count)
{
	const struct snapshots *s = &p->in->snapshots;
	size_t i, verified = 0;

	for (i = 0; i < s->count; i++)
		verified += s->list[i].header.state == SNAPSHOT_VERIFIED;
	if (verified || !p->d->commits)
		return;
	begin(p, count, "Have a snapshot to go back to.");
	page_put(p,
		 "No snapshot is verified. Start the backend with <code>chromashim run</code>, "
		 "which takes and verifies them, or run <code>chromashim snapshot create</code>.");
	end(p);
}

static void on_log(struct page *p, unsigned *count)
{
	if (!p->in->lost)
		return;
	begin(p, count, "Give the log more room.");
	page_put(p,
		 "%N records of the log were lost, so the numbers here are too small. Set "
		 "<code>CHROMASHIM_LOG_SIZE</code> to more.",
		 p->in->lost);
	end(p);
}

unsigned page_advice(struct page *p)
{
	unsigned count = 0;

	page_section(p, "advice", "What to change",
		     "Only what the numbers of this log give a reason for.");
	on_deaths(p, &count);
	on_refusals(p, &count);
	on_snapshots(p, &count);
	on_persists(p, &count);
	on_small_commits(p, &count);
	on_slow_disk(p, &count);
	on_space(p, &count);
	on_log(p, &count);
	page_put(p, count ? "</ol>\n" : "<p>Nothing, as far as this log tells.</p>\n");
	page_section_end(p);
	return count;
}
