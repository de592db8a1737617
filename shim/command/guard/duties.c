/* SPDX-License-Identifier: MIT
 *
 * What the guardian does, one thing at a time: so that nobody else waits for the snapshots long,
 * and a death costs little.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "command/base/in_use.h"
#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/text.h"
#include "core/check/diagnose.h"
#include "core/chroma/migrations.h"
#include "core/chroma/written_by.h"
#include "core/oplog/oplog.h"
#include "core/oplog/read.h"
#include "core/pin/outside.h"
#include "core/snapshot/hydrate.h"
#include "core/sqlite/journal.h"
#include "core/store/kept.h"
#include "core/undo/undo.h"

#define SHORT_LOGS 1000u   /* of processes with one segment of the log */
#define PIECE (2 * SECOND) /* of copying, between which others may have the store */
#define LOOK_EVERY (60 * SECOND)
#define COMPRESS_EVERY (600 * SECOND)
#define REPORT_EVERY (15 * SECOND)
#define ROOM_EVERY (10 * SECOND)
#define FAILED_PAUSE (10 * SECOND)
#define END_WAIT_MS 5000
#define EMPTY_PAUSE (10 * SECOND) /* twice as long each time, up to 43 minutes */
#define EMPTY_DOUBLES 8
#define CLOSE (600 * SECOND) /* snapshots that follow each other faster are not all verified */
#define VERIFY_REST 10	     /* times as long as it took */

/* ---- copying ---- */

static struct pin_slot *next_pin(struct pins *pins)
{
	struct pin_slot *found = NULL;
	unsigned i;

	for (i = 0; pins->state && i < PIN_SLOTS; i++) {
		struct pin_slot *s = &pins->slots[i];
		uint32_t state = __atomic_load_n(&s->state, __ATOMIC_SEQ_CST);

		/* The oldest rests on the most. */
		if (((state == PIN_HELD && !pin_is_base(s)) || state == PIN_BROKEN) &&
		    (!found || s->id < found->id))
			found = s;
	}
	return found;
}

/*
 * A look that costs nothing. The first one that finds none clears up: a guardian may have been
 * killed when it had let go of a pin and its files were still there.
 */
static bool has_pins(struct guardian *g)
{
	struct pins pins;
	bool any;

	if (pins_open(&pins, g->s.data.storefd, false) < 0)
		return false;
	guardian_look_at_base(g, &pins);
	any = next_pin(&pins) != NULL;
	if (!any && !g->swept)
		pins_sweep(&pins);
	g->swept = !any;
	pins_close(&pins);
	return any;
}

static void note_failure(struct guardian *g, int r, const char *what)
{
	if (g->store_error != r)
		guardian_tell(g, r == -ENOSPC ? "disk.full" : "guard.failed", 0,
			      "cannot %s: %s; it is tried again", what, strerror(-r));
	g->store_error = r;
	g->failed = true;
	g->retry_at = oplog_now() + FAILED_PAUSE;
}

/* Whoever opens the database first may take long to make the tables, or never do it. */
static void wait_for_tables(struct guardian *g)
{
	uint64_t pause = EMPTY_PAUSE << (g->empties < EMPTY_DOUBLES ? g->empties : EMPTY_DOUBLES);

	g->empties++;
	g->retry_at = oplog_now() + pause;
}

static void copied(struct guardian *g, const struct manifest *m)
{
	const struct migration_era *era;
	char size[24];

	if (m->header.state == SNAPSHOT_BROKEN) {
		g->broken++;
		guardian_tell(g, "snapshot.broken", m->header.id,
			      "snapshot %" PRIu64 " is broken: %s", m->header.id, m->trouble);
		return;
	}
	if (m->header.state == 0) {
		guardian_say(g, "snapshot %" PRIu64 " held nothing yet, and is dropped",
			     m->header.id);
		/* What Chroma's own steps pinned tells nothing about the next one. */
		if (!strcmp(m->reason, GUARD_SCHEDULE))
			wait_for_tables(g);
		return;
	}
	g->empties = 0;
	g->copied++;
	era = migrations_find_era(m->header.migrations);
	if (era)
		written_by_note(g->s.data.dirfd, g->s.data.storefd, era->first, era->last);
	guardian_say(g, "snapshot %" PRIu64 " (%s) is copied: %" PRIu64 " records, %s",
		     m->header.id, m->reason, manifest_records(m),
		     format_bytes(size, sizeof(size), manifest_total_size(m)));
}

/* A piece of the oldest pin. True: there is more. */
static bool copy_pin(struct guardian *g)
{
	struct hydrate_options options = {.dirfd = g->s.data.dirfd,
					  .rate = g->settings.rate,
					  .budget = PIECE,
					  .progress = guardian_step,
					  .context = g};
	struct pin_slot *slot = next_pin(&g->s.pins);
	struct snapshot_trouble t;
	struct manifest m;
	int r;

	if (!slot)
		return false;
	g->current = slot->id;
	options.hold_on = guardian_holds_on(g) && !strcmp(slot->reason, GUARD_SCHEDULE);
	r = hydrate_pin(&g->s.store, &g->s.pins, slot, &options, &m, &t);
	if (r == 0)
		copied(g, &m);
	else if (r == -EBUSY) /* one of the backend's threads is held up in a write */
		g->failed |= g->once;
	else if (r < 0)
		note_failure(g, r, "copy what is pinned");
	if (r >= 0)
		g->store_error = 0;
	guardian_tell_contradiction(g, m.header.id);
	manifest_free(&m);
	g->current = 0;
	g->look = g->look || r == 0;
	return r >= 0;
}

/* ---- verifying ---- */

static bool is_unverified(const struct manifest *m)
{
	return m->header.state == SNAPSHOT_COMPLETE && m->header.verified == 0;
}

/*
 * The newest: that is what a restore would want. Where one follows the other closely, not all can
 * be before the next ones come: then by turns, first the oldest, so that each promise that is kept
 * long enough has been tried, and then the newest; at the end the last one.
 */
static const struct manifest *next_unverified(const struct guardian *g)
{
	bool is_close = g->settings.every && g->settings.every < CLOSE;
	const struct manifest *oldest = NULL, *newest = NULL;
	size_t i;

	for (i = 0; i < g->s.count; i++) {
		if (!is_unverified(&g->s.list[i]))
			continue;
		oldest = oldest ? oldest : &g->s.list[i];
		newest = &g->s.list[i];
	}
	if (!is_close || g->once || !newest)
		return newest;
	if (g->gone)
		return newest == &g->s.list[g->s.count - 1] ? newest : NULL;
	if (oplog_now() < g->verify_at)
		return NULL;
	return g->newest_is_next ? newest : oldest;
}

/* A moment between two steps of a migration, from which no Chroma goes on. There is a snapshot of
 * before all of them. */
static bool is_between_steps(const struct manifest *m)
{
	const char *code = diagnose_kinds[DIAGNOSE_MIGRATION_CUT].code;

	return m->header.state == SNAPSHOT_BROKEN && !strcmp(m->reason, "schema") && m->trouble &&
	       !strncmp(m->trouble, code, strlen(code));
}

static void tell_verdict(struct guardian *g, const struct manifest *m)
{
	uint64_t id = m->header.id;

	if (is_between_steps(m) && snapshot_remove(&g->s.store, id) == 0) {
		guardian_say(g,
			     "snapshot %" PRIu64 " was pinned between two steps of a migration, "
			     "and is dropped",
			     id);
		return;
	}
	g->verified += m->header.state == SNAPSHOT_VERIFIED;
	g->broken += m->header.state == SNAPSHOT_BROKEN;
	if (m->header.state == SNAPSHOT_VERIFIED)
		guardian_tell(g, "snapshot.verified", id, "snapshot %" PRIu64 " is verified", id);
	else
		guardian_tell(g, "snapshot.broken", id, "snapshot %" PRIu64 " is %s: %s", id,
			      snapshot_state_name(m->header.state), m->trouble);
}

static bool verify_one(struct guardian *g)
{
	const struct manifest *head = next_unverified(g);
	struct manifest m = {.files = NULL};
	uint64_t began = oplog_now();
	struct snapshot_trouble t;
	bool more;
	int r;

	if (!head)
		return false;
	g->current = head->header.id;
	g->pin_at = 0;
	r = manifest_read(g->s.store.dirfd, head->header.id, &m);
	if (r == 0)
		r = verify_snapshot(&g->s.store, &m, guardian_keep_time, g, &t);
	g->current = 0;
	g->verify_at = oplog_now() + VERIFY_REST * (oplog_now() - began);
	g->newest_is_next = !g->newest_is_next;
	/* Somebody adds, and takes long; or has removed it. */
	more = r == 0 || r == -EBUSY || r == -ENOENT;
	if (r == 0) {
		g->store_error = 0;
		g->look = true;
		tell_verdict(g, &m);
	} else if (!more) {
		note_failure(g, r, "verify a snapshot");
	}
	manifest_free(&m);
	return more;
}

/* ---- retention ---- */

static void prune(struct guardian *g)
{
	struct prune_result result;
	char size[24];
	int r = snapshots_prune(&g->s, &g->settings.prune, &result);

	g->prune_put_off = r == -EBUSY; /* somebody reads them, and the next look does it */
	if (r < 0 && r != -EBADMSG && r != -EBUSY)
		note_failure(g, r, "remove old snapshots");
	if (!result.removed)
		return;
	g->removed += (unsigned)result.removed;
	guardian_say(g, "%zu snapshots that no rule keeps are removed: %s", result.removed,
		     format_bytes(size, sizeof(size), result.freed));
	if (result.is_short)
		guardian_say(g, "the limit on space is not reached: what is left is held, or the "
				"last verified one");
}

void guardian_prune_put_off(struct guardian *g)
{
	if (!g->prune_put_off)
		return;
	if (snapshots_load(&g->s, SNAPSHOT_CHANGE, true, END_WAIT_MS) == 0) {
		prune(g);
		snapshots_unload(&g->s);
	}
}

/* Directories beside this one that were removed under the library, long ago or many of them. */
static void prune_kept_stores(const struct guardian *g)
{
	int parent = openat(g->s.data.dirfd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	int n = 0;

	if (parent >= 0 && fstat(g->s.data.dirfd, &st) == 0)
		n = stores_kept_prune(parent, st.st_uid, clock_read(CLOCK_REALTIME));
	if (n > 0)
		guardian_say(g, "the stores of %d directories that were removed are removed, too",
			     n);
	if (parent >= 0)
		close(parent);
}

/* ---- the log, the disk ---- */

static void compress_log(struct guardian *g)
{
	struct oplog_packed packed;
	char before[24], after[24];
	int thinned;

	if (oplog_compress(g->s.data.storefd, &packed) == -ENOSPC)
		note_failure(g, -ENOSPC, "compress the log");
	if (packed.files && !g->quiet)
		guardian_say(g, "%" PRIu64 " log segments are compressed: %s to %s", packed.files,
			     format_bytes(before, sizeof(before), packed.bytes_before),
			     format_bytes(after, sizeof(after), packed.bytes_after));
	thinned = oplog_thin(g->s.data.storefd, SHORT_LOGS);
	if (thinned > 0 && !g->quiet)
		guardian_say(g, "the logs of %d short processes are removed; the newest %u stay",
			     thinned, SHORT_LOGS);
}

/* Below what the library refuses new transactions at. */
static void look_at_room(struct guardian *g)
{
	struct statvfs v;
	uint64_t all, room, five, least;
	char text[24];
	bool low;

	if (fstatvfs(g->s.data.storefd, &v) < 0 || v.f_blocks == 0)
		return;
	all = (uint64_t)v.f_blocks * v.f_frsize;
	room = (uint64_t)v.f_bavail * v.f_frsize;
	five = all / 20;
	least = five < (UINT64_C(1) << 30) ? five : UINT64_C(1) << 30;
	low = room < least + least / 4;
	if (low && !g->disk_low)
		guardian_tell(g, "disk.low", 0, "the disk is nearly full: %s are free",
			      format_bytes(text, sizeof(text), room));
	else if (!low && g->disk_low)
		guardian_say(g, "the disk has room again");
	g->disk_low = low;
}

/* Each process once. What was refused since a guardian last reported is told by the next one. */
static bool tell_refused(struct guardian *g)
{
	struct oplog_header h;
	struct stat st;
	bool any = false;

	if (!g->refused_at)
		g->refused_at =
		    fstatat(g->s.data.storefd, STATUS_FILE, &st, 0) == 0
			? (uint64_t)st.st_mtim.tv_sec * SECOND + (uint64_t)st.st_mtim.tv_nsec
			: g->started;
	while (oplog_next_refused(g->s.data.storefd, g->refused_at, &h) == 1) {
		g->refused_at = h.refused;
		g->refused++;
		guardian_tell(g, "writer.refused", 0,
			      "process %u (%s) may not write: another one does. `chromashim log "
			      "--pid %u --op refuse.writer` shows what it tried",
			      h.pid, h.program, h.pid);
		any = true;
	}
	return any;
}

/* Until its process is gone: what is beyond the limit has no protection. */
static bool tell_limit(struct guardian *g)
{
	struct oplog_header h;
	bool is = oplog_at_limit(g->s.data.storefd, &h) == 1, news = is != g->at_limit;

	if (is && news)
		guardian_tell(g, "backend.limit", 0,
			      "process %u (%s) has reached a limit of the library's. `chromashim "
			      "log --pid %u --op log.note` says which, and what it means",
			      h.pid, h.program, h.pid);
	g->at_limit = is;
	return news;
}

static bool is_time(uint64_t *at, uint64_t every)
{
	uint64_t now = oplog_now();

	if (now < *at)
		return false;
	*at = now + every;
	return true;
}

/* ---- all of it ---- */

/* With the snapshots loaded. True: there is more. */
static bool look_after_snapshots(struct guardian *g)
{
	/* What takes long to copy does not stop the clock. */
	if (g->s.pins.state && guardian_is_due(g, clock_read(CLOCK_REALTIME))) {
		guardian_take(g, GUARD_SCHEDULE);
		return true;
	}
	if (copy_pin(g))
		return true;
	g->look = false;
	if (guardian_is_due(g, clock_read(CLOCK_REALTIME))) {
		guardian_take(g, GUARD_SCHEDULE);
		return true;
	}
	if (verify_one(g))
		return true;
	prune(g);
	prune_kept_stores(g);
	return false;
}

/* Others take snapshots too; and what was put off is due. */
static bool is_time_to_look(const struct guardian *g, uint64_t now)
{
	uint64_t every =
	    g->settings.every && g->settings.every < LOOK_EVERY ? g->settings.every : LOOK_EVERY;

	return g->look || now > g->looked + every ||
	       (g->looked < g->retry_at && now > g->retry_at) ||
	       (g->looked < g->verify_at && now > g->verify_at);
}

bool guardian_duties(struct guardian *g)
{
	bool more = false, pins = has_pins(g), told;
	uint64_t now = oplog_now();
	int r;

	told = tell_refused(g);
	told = tell_limit(g) || told;
	if (is_time(&g->room_at, ROOM_EVERY)) {
		look_at_room(g);
		guardian_look_at_fill(g);
	}
	if ((pins || is_time_to_look(g, now)) && (!g->store_error || now > g->retry_at)) {
		/* At the end there is no next time. */
		r = snapshots_load(&g->s, SNAPSHOT_ADD, true, g->gone || g->once ? END_WAIT_MS : 0);
		if (r == 0) {
			guardian_note_newest(g);
			more = look_after_snapshots(g);
			g->looked = now;
			snapshots_unload(&g->s);
		} else if (r != -EBUSY) {
			note_failure(g, r, "open the snapshots");
		}
	}
	if (is_time(&g->compress_at, COMPRESS_EVERY) || (g->gone && !more))
		compress_log(g);
	if (more || told || is_time(&g->report_at, REPORT_EVERY))
		guardian_report(g, true);
	return more && !guard_stopping;
}

/* ---- the backend has ended ---- */

static bool has_hot_journal(const struct guardian *g)
{
	struct file_source source;
	int fd = file_open_at(g->s.data.dirfd, CHROMA_DATABASE "-journal");
	bool hot = fd >= 0 && file_source_open(&source, fd) == 0 && sqlite_journal_is_hot(&source);

	if (fd >= 0)
		close(fd);
	return hot;
}

/* A persist of a segment that had one before; a first one is open for days. */
static bool is_torn(int undofd, const char *name)
{
	struct undo_reader r;
	int fd;
	bool torn;

	if (!text_ends_with(name, UNDO_SUFFIX))
		return false;
	fd = file_open_at(undofd, name);
	torn = fd >= 0 && undo_open(&r, fd) == 0 && !r.header.ended &&
	       r.header.files[UNDO_PICKLE].size >= 0;
	if (fd >= 0)
		close(fd);
	return torn;
}

static bool died_in_the_middle(const struct guardian *g)
{
	DIR *dir;
	const struct dirent *entry;
	bool torn = has_hot_journal(g);

	file_names_at(g->s.data.storefd, UNDO_DIR, &dir);
	while (dir && !torn && (entry = readdir(dir)))
		torn = is_torn(dirfd(dir), entry->d_name);
	if (dir)
		closedir(dir);
	return torn;
}

static bool is_newer(const struct guardian *g, const char *path, uint64_t time)
{
	struct stat st;

	return fstatat(g->s.data.dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (uint64_t)st.st_mtim.tv_sec * SECOND + (uint64_t)st.st_mtim.tv_nsec > time;
}

/* Has anything been written since the newest one? Every write of Chroma's goes to the database. */
static bool is_changed(const struct guardian *g)
{
	uint64_t newest = guardian_newest_time(g, clock_read(CLOCK_REALTIME), false);

	return is_newer(g, CHROMA_DATABASE, newest) || is_newer(g, CHROMA_DATABASE "-wal", newest);
}

void guardian_last_snapshot(struct guardian *g, bool is_succeeded)
{
	char name[64];

	/* Another one has started already, and has no guardian waiting: it has one of its own to
	 * come. What died in the middle of a write was put right before a successor starts. */
	if (!g->settings.every ||
	    (!is_succeeded && in_use_process(&g->s.data, name, sizeof(name)) != 0))
		return;
	if (!is_succeeded && died_in_the_middle(g)) {
		guardian_say(g, "the process died in the middle of a write: no snapshot is taken; "
				"the next start undoes what is half done");
		return;
	}
	if (snapshots_load(&g->s, SNAPSHOT_ADD, true, 1000) < 0)
		return;
	if (is_changed(g))
		guardian_take(g, "stop");
	snapshots_unload(&g->s);
}
