/* SPDX-License-Identifier: MIT
 *
 * The guardian's snapshots: by the clock, and at a clean stop of the backend.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "command/guard/guardian.h"
#include "command/base/in_use.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/oplog/oplog.h"
#include "core/pin/outside.h"

#define RETRY (60 * SECOND)
#define PENDING 16u /* pins that wait to be copied: more moments would cost those */
#define PIN_WAIT (10 * SECOND)

static bool has_database(const struct guardian *g)
{
	struct stat st;

	return fstatat(g->s.data.dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st.st_size > 0;
}

uint64_t guardian_newest_time(const struct guardian *g, uint64_t now, bool broken)
{
	uint64_t time = 0;
	size_t i;

	for (i = 0; i < g->s.count; i++) {
		const struct manifest *m = &g->s.list[i];

		if ((broken || m->header.state != SNAPSHOT_BROKEN) &&
		    !clock_was_ahead(m->header.time, now) && m->header.time > time)
			time = m->header.time;
	}
	return time;
}

static bool is_behind(const struct guardian *g)
{
	const struct pins *pins = &g->s.pins;
	unsigned i, count = 0;

	for (i = 0; pins->state && i < PIN_SLOTS; i++)
		count += __atomic_load_n(&pins->slots[i].state, __ATOMIC_SEQ_CST) == PIN_HELD;
	return count >= PENDING;
}

/* Counted from what there is, so that a restart changes nothing. s is loaded. */
bool guardian_is_due(const struct guardian *g, uint64_t now)
{
	uint64_t every = g->settings.every;

	/* One that is told to end takes one, also where copying it takes longer than `every`. */
	if (!every || (g->once && g->taken) || oplog_now() < g->retry_at || !has_database(g) ||
	    is_behind(g))
		return false;
	/* After a broken one sooner, but not at once: what broke it may last. */
	return guardian_newest_time(g, now, false) + every <= now &&
	       guardian_newest_time(g, now, true) + every / 6 <= now;
}

static int pin(struct guardian *g, const char *reason, struct snapshot_trouble *t)
{
	struct pin_outside_options options = {.path = g->s.data.dir,
					      .dirfd = g->s.data.dirfd,
					      .storefd = g->s.data.storefd,
					      .reason = reason,
					      .wait = PIN_WAIT,
					      .limit = g->settings.undo_size};
	uint64_t id;
	int r = g->s.pins.state ? pin_outside(&g->s.pins, &options, &id, t) : -ENOTSUP;

	if (r == 0)
		guardian_tell(g, "snapshot.pinned", id, "snapshot %" PRIu64 " (%s) is pinned", id,
			      reason);
	return r;
}

static int copy(struct guardian *g, const char *reason, struct snapshot_trouble *t)
{
	struct snapshot_options options = {.path = g->s.data.dir,
					   .dirfd = g->s.data.dirfd,
					   .reason = reason,
					   .progress = guardian_step,
					   .context = g};
	struct manifest m;
	char name[64];
	int r;

	options.idle = in_use_process(&g->s.data, name, sizeof(name)) == 0;
	if (options.idle)
		snapshots_roll_back(&g->s.data);
	r = snapshot_take(&g->s.store, &options, &m, t);
	guardian_tell_contradiction(g, m.header.id);
	if (r == 0)
		guardian_tell(g, "snapshot.taken", m.header.id,
			      "snapshot %" PRIu64 " (%s) is taken", m.header.id, reason);
	manifest_free(&m);
	return r;
}

void guardian_take(struct guardian *g, const char *reason)
{
	struct snapshot_trouble t = {{0}, {0}};
	int r = pin(g, reason, &t);

	if (r == -ENOTSUP)
		r = copy(g, reason, &t);
	g->look = true;
	if (r == 0) {
		g->taken++;
		g->retry_at = 0;
		return;
	}
	g->retry_at = oplog_now() + RETRY;
	g->failed = true;
	guardian_tell(g, "snapshot.failed", 0, "no snapshot could be taken (%s): %s%s%s", reason,
		      t.file, t.file[0] ? ": " : "", t.detail[0] ? t.detail : strerror(-r));
}

void guardian_keep_time(void *guardian, uint64_t done, uint64_t total)
{
	struct guardian *g = guardian;
	struct snapshot_trouble t = {{0}, {0}};
	uint64_t now = oplog_now();

	guardian_step(g, done, total);
	if (g->gone || g->once || now < g->pin_at || !g->s.pins.state ||
	    !guardian_is_due(g, clock_read(CLOCK_REALTIME)))
		return;
	g->pin_at = now + g->settings.every;
	pin(g, GUARD_SCHEDULE, &t);
}
