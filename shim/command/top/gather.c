/* SPDX-License-Identifier: MIT
 *
 * `chromashim top`: what is to be shown.
 */
#include "command/top/top.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/oplog/oplog.h"

/* ---- the log ---- */

static int take_records(struct top *t)
{
	struct digest *d = t->in.digest;
	struct oplog_entry e;
	int r;

	while ((r = oplog_reader_next(t->reader, &e)) > 0) {
		t->sums.acts += oplog_is_act(e.op) ? 1 : 0;
		if (e.op == OP_TXN_COMMIT && e.duration > t->slowest)
			t->slowest = e.duration;
		r = collection_names_note(t->in.names, &e);
		if (r == 0)
			r = digest_add(d, &e);
		if (r < 0)
			return r;
	}
	t->sums.time = clock_read(CLOCK_MONOTONIC);
	t->sums.entries = d->entries;
	t->sums.records = d->records;
	t->sums.written = d->written;
	t->sums.commits = d->commits;
	t->sums.syncs = d->syncs;
	t->sums.sync_ns = d->sync_ns;
	t->sums.refused = d->refused;
	return r;
}

static struct top_sums difference(const struct top_sums *a, const struct top_sums *b)
{
	return (struct top_sums){
	    .time = b->time - a->time,
	    .entries = b->entries - a->entries,
	    .acts = b->acts - a->acts,
	    .records = b->records - a->records,
	    .written = b->written - a->written,
	    .commits = b->commits - a->commits,
	    .syncs = b->syncs - a->syncs,
	    .sync_ns = b->sync_ns - a->sync_ns,
	    .refused = b->refused - a->refused,
	};
}

/* The collections that changed most in this interval. */
static void note_collections(struct top *t)
{
	const struct digest_rows *rows = &t->in.digest->tables[DIGEST_COLLECTIONS];
	struct top_view *v = &t->view;
	size_t i, at;

	for (i = 0; i < rows->count; i++) {
		uint64_t sum = digest_changes(rows->list[i]), changed = sum - t->records_of[i];

		t->records_of[i] = sum;
		for (at = v->collection_count; at > 0 && v->collections[at - 1].records < changed;
		     at--)
			;
		if (!changed || at >= TOP_COLLECTIONS)
			continue;
		if (v->collection_count < TOP_COLLECTIONS)
			v->collection_count++;
		memmove(v->collections + at + 1, v->collections + at,
			(v->collection_count - at - 1) * sizeof(v->collections[0]));
		v->collections[at].records = changed;
		digest_name(&t->in, rows->list[i]->name, v->collections[at].name, DIGEST_TEXT);
	}
}

/* ---- who writes, and at what ---- */

static uint64_t memory_of(uint32_t pid)
{
	char path[64], line[256];
	uint64_t kilobytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/status", pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmRSS: %" SCNu64, &kilobytes) == 1)
			break;
	if (file)
		fclose(file);
	return kilobytes * 1024;
}

static void note_open(struct top *t, const struct digest_process *p)
{
	struct top_view *v = &t->view;
	unsigned i;

	for (i = 0; i < p->open_count; i++) {
		const struct digest_open *o = &p->open[i];
		uint64_t since = v->now > o->t.begin ? v->now - o->t.begin : 0;

		if (!o->is_persist) {
			v->transaction_ns = since > v->transaction_ns ? since : v->transaction_ns;
			continue;
		}
		if (digest_is_first_making(&t->in, o))
			continue;
		digest_name(&t->in, o->name, v->persist, sizeof(v->persist));
		v->persist_ns = since;
	}
}

static void note_writer(struct top *t)
{
	const struct digest *d = t->in.digest;
	struct top_view *v = &t->view;
	size_t i;

	for (i = d->process_count; i-- > 0 && !v->writer;) {
		const struct digest_process *p = d->processes[i];

		if (!p->wrote || p->exited ||
		    oplog_header_life(t->in.data.storefd, &p->header) != OPLOG_LIVE)
			continue;
		v->writer = p;
		if (oplog_header_is_here(&p->header))
			v->memory = memory_of(p->header.pid);
		note_open(t, p);
	}
}

static void note_refusal(struct top *t)
{
	const struct digest_events *e = &t->in.digest->events[DIGEST_REFUSAL];

	if (e->count)
		t->view.refusal = &e->last[(e->count - 1) % DIGEST_EVENTS];
}

/* ---- around it ---- */

static void note_snapshots(struct top *t)
{
	struct snapshots s = {.data = t->in.data, .pins = {.dirfd = -1}, .only_heads = true};
	struct top_view *v = &t->view;
	size_t i;

	if (snapshots_load(&s, SNAPSHOT_LOOK, false, 0) < 0)
		return;
	for (i = 0; i < s.count; i++) {
		const struct snapshot_header *h = &s.list[i].header;

		v->snapshots++;
		v->verified += h->state == SNAPSHOT_VERIFIED;
		v->broken += h->state == SNAPSHOT_BROKEN;
		if (h->state == SNAPSHOT_VERIFIED && h->time > v->newest &&
		    !clock_was_ahead(h->time, v->now))
			v->newest = h->time;
		if (h->state != SNAPSHOT_PINNED && h->state != SNAPSHOT_HYDRATING)
			continue;
		v->copying = h->id;
		v->progress = h->state == SNAPSHOT_HYDRATING ? h->progress : 0;
	}
	snapshots_unload(&s);
}

static void note_disk(struct top *t)
{
	struct statvfs room;
	struct stat st;

	if (fstatvfs(t->in.data.dirfd, &room) == 0) {
		t->view.disk_total = (uint64_t)room.f_blocks * room.f_frsize;
		t->view.disk_free = (uint64_t)room.f_bavail * room.f_frsize;
	}
	if (fstatat(t->in.data.dirfd, CHROMA_DATABASE, &st, 0) == 0)
		t->view.database = (uint64_t)st.st_size;
}

/* ---- all of it ---- */

int top_gather(struct top *t)
{
	int r;

	memset(&t->view, 0, sizeof(t->view));
	t->before = t->sums;
	t->slowest = 0;
	r = oplog_reader_poll(t->reader);
	if (r == 0)
		r = take_records(t);
	if (r < 0)
		return r;
	t->view.now = clock_read(CLOCK_REALTIME);
	t->view.in = difference(&t->before, &t->sums);
	t->view.took = t->view.in.time ? t->view.in.time : 1;
	t->view.slowest = t->slowest;
	note_collections(t);
	note_writer(t);
	note_refusal(t);
	note_snapshots(t);
	note_disk(t);
	t->records_history[t->shown % TOP_HISTORY] = t->view.in.records;
	t->written_history[t->shown % TOP_HISTORY] = t->view.in.written;
	t->shown++;
	return 0;
}

int top_open(struct top *t, const char *dir)
{
	const struct digest_options options = {.tables = false};
	int status = digest_input_start(&t->in, dir, &options), r;

	if (status)
		return status;
	r = oplog_reader_open_which(t->in.data.storefd, OPLOG_BOTH, &t->reader);
	if (r == 0) {
		/* Of a living process the newest segments are read, whatever is in them: they tell
		 * who it is, and at what. All that was before is nobody's present. */
		oplog_reader_since(t->reader, clock_read(CLOCK_REALTIME));
		oplog_reader_follow(t->reader);
		r = take_records(t);
		t->view.collection_count = 0;
		note_collections(t);
	}
	return r < 0 ? digest_input_fail(&t->in, r) : 0;
}

void top_close(struct top *t)
{
	oplog_reader_close(t->reader);
	digest_input_close(&t->in);
}
