/* SPDX-License-Identifier: MIT
 *
 * What the store knows of the past: how the last process ended, persists and restores that were cut
 * off, and how old the newest snapshot is. Nothing of it is needed to judge the files themselves.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/check/internal.h"
#include "core/oplog/file.h"
#include "core/oplog/oplog.h"
#include "core/oplog/read.h"
#include "core/snapshot/restore.h"
#include "core/undo/rollback.h"

#define NS UINT64_C(1000000000)
#define SNAPSHOT_OLD_NS (7 * 24 * 3600 * NS)
#define LAST_SEGMENTS 64
#define LAST_TRIES 20 /* while somebody compresses the log */

static char *format_utc(char *out, size_t room, uint64_t ns)
{
	time_t seconds = (time_t)(ns / NS);
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || !strftime(out, room, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(out, room, "?");
	return out;
}

/* ---- the op log's account of the last death ---- */

/* The newest names, in descending order: at most LAST_SEGMENTS of them. */
struct names {
	char name[LAST_SEGMENTS][80];
	unsigned count;
};

static void add_name(struct names *n, const char *name)
{
	unsigned i = n->count;

	if (strlen(name) >= sizeof(n->name[0]) ||
	    (i == LAST_SEGMENTS && strcmp(n->name[i - 1], name) > 0))
		return;
	n->count += i < LAST_SEGMENTS;
	i = n->count - 1;
	for (; i > 0 && strcmp(n->name[i - 1], name) < 0; i--)
		strcpy(n->name[i], n->name[i - 1]);
	strcpy(n->name[i], name);
}

static void list_names(int logfd, struct names *out)
{
	DIR *dir;
	const struct dirent *entry;
	bool packed;

	file_names_at(logfd, NULL, &dir);
	while (dir && (entry = readdir(dir)))
		if (oplog_name_stem(entry->d_name, &packed))
			add_name(out, entry->d_name);
	if (dir)
		closedir(dir);
}

struct last {
	uint64_t time;
	bool farewell;
	unsigned in_flight;
	char call[256]; /* one that was in flight */
};

static const char *op_text(unsigned op)
{
	const char *name = oplog_op_name(op);

	return name ? name : "a call";
}

static void read_last(struct oplog_image *image, struct last *out)
{
	struct oplog_entry e;
	uint32_t i;

	for (i = 0; i < image->order_size && oplog_image_get(image, i, &e) == 0; i++) {
		out->time = e.time > out->time ? e.time : out->time;
		/* An exec goes on under another name, if the new program is protected at all. */
		out->farewell |= e.op == OP_EXIT || e.op == OP_EXEC;
		if (!e.in_flight || e.op == OP_EXIT || e.op == OP_EXEC)
			continue;
		out->in_flight++;
		snprintf(out->call, sizeof(out->call), "%s of %.200s", op_text(e.op),
			 e.name ? e.name : "?");
	}
}

/*
 * 1: this was the last process, and told all there is to tell. 0: look at the segment before it.
 * -ENOENT: it has been compressed, or removed, since the names were read.
 */
static int judge_last(struct diagnosis *d, int logfd, const char *name)
{
	unsigned char *data = NULL;
	struct oplog_image image;
	struct last last = {0};
	char time[32];
	struct stat st;
	size_t size = 0;
	int r = oplog_file_read(logfd, name, false, &data, &size, &st);

	if (r == 0)
		r = oplog_image_open(&image, data, size);
	free(data);
	if (r == -ENOENT)
		return r;
	if (r < 0) /* it may hold the farewell: the one before it is not the last word */
		return 1;
	if (oplog_header_life(d->options->storefd, &image.header) == OPLOG_LIVE ||
	    image.order_size == 0) {
		oplog_image_close(&image);
		return 0;
	}
	read_last(&image, &last);
	if (clock_was_ahead(last.time, clock_read(CLOCK_REALTIME))) {
		oplog_image_close(&image);
		return 0;
	}
	if (!last.farewell)
		diagnose_report(d, DIAGNOSE_DIED, (struct diagnose_place){0},
				"process %u (%.100s), last heard of at %s%s%s%s", image.header.pid,
				image.header.program, format_utc(time, sizeof(time), last.time),
				last.in_flight ? DIAGNOSE_IN_THE_MIDDLE : "",
				last.in_flight ? last.call : "",
				last.in_flight > 1 ? " and others" : "");
	oplog_image_close(&image);
	return 1;
}

static void check_last_death(struct diagnosis *d)
{
	int logfd = file_open_directory_at(d->options->storefd, OPLOG_DIR);
	struct names *names = calloc(1, sizeof(*names));
	unsigned i, tries;
	int r = -ENOENT;

	for (tries = 0; logfd >= 0 && names && r == -ENOENT && tries < LAST_TRIES; tries++) {
		names->count = 0;
		list_names(logfd, names);
		for (i = 0, r = 0; i < names->count && r == 0; i++)
			r = judge_last(d, logfd, names->name[i]);
	}
	free(names);
	if (logfd >= 0)
		close(logfd);
}

/* ---- persists that were cut off ---- */

static void note_group(void *context, const struct rollback_outcome *o)
{
	struct diagnosis *d = context;
	char segment[CHROMA_ID_SIZE];
	struct diagnose_place place = {.segment = segment};

	snprintf(segment, sizeof(segment), "%.36s", o->name); /* "<segment>-<pid>-<number>" */
	if (o->result == ROLLBACK_DONE)
		diagnose_report(d, DIAGNOSE_PERSIST_UNDO, place, "process %u", o->header.pid);
	else if (o->result == ROLLBACK_FOREIGN)
		diagnose_report(d, DIAGNOSE_UNDO_FOREIGN, place, "%.128s", o->name);
	else if (o->result == ROLLBACK_DAMAGED)
		diagnose_report(d, DIAGNOSE_UNDO_LOST, place, "%.128s", o->name);
}

static void check_undo(struct diagnosis *d)
{
	struct rollback rb = {.rootfd = d->dirfd, .dry = true, .report = note_group, .context = d};

	if (d->options->strayfd > 0) {
		rb.undofd = d->options->strayfd;
		rb.shared = true;
		rollback_directory(&rb);
		rb.shared = false;
	}
	rb.undofd = d->options->storefd > 0 ? file_open_directory_at(d->options->storefd, UNDO_DIR)
					    : -ENOENT;
	if (rb.undofd < 0)
		return;
	rollback_directory(&rb);
	close(rb.undofd);
}

/* ---- snapshots ---- */

static bool is_restorable(const struct manifest *m)
{
	return m->header.state == SNAPSHOT_COMPLETE || m->header.state == SNAPSHOT_VERIFIED;
}

static void note_snapshots(struct diagnosis *d, const struct manifest *list, size_t count)
{
	struct diagnose_summary *s = d->summary;
	size_t i;

	for (i = 0; i < count; i++)
		if (is_restorable(&list[i]))
			s->newest_snapshot = list[i].header.time;
	s->snapshots = count;
}

static void judge_snapshots(struct diagnosis *d, const struct stat *database)
{
	struct diagnose_place none = {0};
	uint64_t changed = (uint64_t)database->st_mtim.tv_sec * NS;
	uint64_t newest = d->summary->newest_snapshot, count = d->summary->snapshots;
	char time[32];

	if (!newest)
		diagnose_report(d, count ? DIAGNOSE_SNAPSHOT_BROKEN : DIAGNOSE_SNAPSHOT_NONE, none,
				count ? "%llu snapshots" : "%.0llu", (unsigned long long)count);
	else if (changed > newest && changed - newest > SNAPSHOT_OLD_NS)
		diagnose_report(d, DIAGNOSE_SNAPSHOT_OLD, none, "taken at %s",
				format_utc(time, sizeof(time), newest));
}

/* database is NULL where there is none. */
static void check_snapshots(struct diagnosis *d, const struct stat *database)
{
	struct snapshot_store store;
	struct manifest *list = NULL;
	size_t count = 0;
	int r = snapshot_store_open(&store, d->options->storefd, SNAPSHOT_LOOK, 0);

	if (r == 0) {
		r = snapshot_list_heads(&store, &list, &count);
		snapshot_store_close(&store);
	}
	if (r == 0)
		note_snapshots(d, list, count);
	if (database && (r == 0 || r == -ENOENT))
		judge_snapshots(d, database);
	snapshot_list_free(list, count);
}

bool diagnose_history(struct diagnosis *d, const struct stat *database)
{
	if (d->options->storefd <= 0) {
		if (database)
			check_undo(d);
		return true;
	}
	if (restore_is_pending(d->options->storefd)) {
		diagnose_report(d, DIAGNOSE_RESTORE_CUT, (struct diagnose_place){0}, "%s", "");
		return false;
	}
	check_last_death(d);
	if (database)
		check_undo(d);
	check_snapshots(d, database);
	return true;
}
