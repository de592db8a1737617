/* SPDX-License-Identifier: MIT
 *
 * What becomes an alarm by and by, not at once: a disk that fills up, snapshots that are not
 * verified any more; and another Chroma than at the last start.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/chroma/engine.h"
#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "core/base/alive.h"
#include "core/base/clock.h"
#include "core/base/openers.h"
#include "core/oplog/oplog.h"
#include "core/store/events.h"

#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)
#define SLOWEST (60 * SECOND)
#define CALM 2 /* percent below the alarm, until it may come again */

/* Whichever guardian has told it: once a day is enough. */
static bool is_told_today(const struct guardian *g, const char *name)
{
	struct store_event *all = NULL;
	uint64_t now = clock_read(CLOCK_REALTIME);
	int n = events_list(g->s.data.storefd, &all), i;
	bool told = false;

	for (i = 0; i < n; i++)
		told |= !strcmp(all[i].name, name) && all[i].time + DAY > now;
	free(all);
	return told;
}

/* ---- the disk ---- */

unsigned guard_disk_percent(int fd)
{
	struct statvfs v;
	uint64_t used, all;

	if (fstatvfs(fd, &v) < 0 || v.f_blocks == 0)
		return 0;
	used = v.f_blocks - v.f_bfree;
	all = used + v.f_bavail;
	return all ? (unsigned)(used * 100 / all) : 0;
}

void guardian_look_at_fill(struct guardian *g)
{
	unsigned limit = g->settings.warn_full, percent = guard_disk_percent(g->s.data.dirfd);

	if (!limit || percent + CALM < limit)
		g->disk_filling = false;
	if (!limit || percent < limit || g->disk_filling)
		return;
	g->disk_filling = true;
	if (!is_told_today(g, "disk.filling"))
		guardian_tell(g, "disk.filling", 0,
			      "the disk is %u %% full (CHROMASHIM_WARN_FULL is %u %%): make room "
			      "before writes are refused",
			      percent, limit);
}

/* ---- the age of snapshots ---- */

uint64_t guard_snapshot_limit(const struct guard_settings *settings)
{
	return settings->every ? 2 * settings->every + HOUR : 0;
}

void guardian_look_at_age(struct guardian *g, uint64_t oldest, uint64_t verified)
{
	uint64_t limit = guard_snapshot_limit(&g->settings), now = clock_read(CLOCK_REALTIME);
	uint64_t since = verified ? verified : oldest;
	char age[24];

	g->overdue = limit && since && since + limit < now;
	if (!g->overdue || is_told_today(g, "snapshot.overdue"))
		return;
	format_duration(age, sizeof(age), now - since);
	if (verified)
		guardian_tell(g, "snapshot.overdue", 0,
			      "the newest verified snapshot is %s old, which is too much: "
			      "`chromashim snapshot list` says what became of newer ones",
			      age);
	else
		guardian_tell(g, "snapshot.overdue", 0,
			      "no snapshot is verified, and the first was taken %s ago: "
			      "`chromashim snapshot list` says why",
			      age);
}

/* ---- the engine ---- */

static bool find_engine(const struct guardian *g, struct engine *out)
{
	struct process_opener *list = NULL;
	struct stat st;
	unsigned hidden;
	int i, n = 0;
	bool found = false;

	if (fstatat(g->s.data.dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) == 0)
		n = process_find_openers(&st, CHROMA_DATABASE, &list, &hidden);
	for (i = 0; i < n && !found; i++)
		found = list[i].writes && engine_of_process(list[i].pid, out) && out->release[0];
	free(list);
	return found;
}

static void note_engine(struct guardian *g, const struct engine *now)
{
	struct engine *before = calloc(1, sizeof(*before));

	if (before && engine_read(g->s.data.storefd, before) && before->release[0] &&
	    strcmp(before->release, now->release) != 0)
		guardian_tell(g, "engine.changed", 0,
			      "the backend is Chroma %s now; at the last start it was %s (%.200s)",
			      now->release, before->release, now->packages);
	if (before && memcmp(before, now, sizeof(*now)) != 0)
		engine_write(g->s.data.storefd, now);
	free(before);
}

void guardian_look_at_engine(struct guardian *g)
{
	uint64_t now = oplog_now();
	struct engine *e;

	if (g->engine_known)
		return;
	if (!g->engine_opened && alive_in_use(g->s.data.storefd, -1)) {
		g->engine_opened = true;
		g->engine_at = g->engine_pause = 0;
	}
	if (now < g->engine_at)
		return;
	g->engine_pause = g->engine_pause * 2 > SLOWEST ? SLOWEST
			  : g->engine_pause		? g->engine_pause * 2
							: SECOND;
	g->engine_at = now + g->engine_pause;
	e = calloc(1, sizeof(*e));
	if (e && find_engine(g, e)) {
		note_engine(g, e);
		g->engine_known = true;
	}
	free(e);
}
