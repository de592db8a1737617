/* SPDX-License-Identifier: MIT
 *
 * When a drill is due, the guardian starts `chromashim drill` as a process of its own, and goes on
 * with the rest meanwhile: what came of it is in the store.
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "command/guard/guardian.h"
#include "core/base/clock.h"
#include "core/base/owner.h"
#include "core/oplog/oplog.h"
#include "core/store/drill.h"

#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)
#define END_TIME (10 * SECOND)

extern char **environ;

/* What could not be tried is tried sooner again. */
static uint64_t next_drill(const struct guardian *g, uint64_t first)
{
	uint64_t every = g->settings.drill, now = clock_read(CLOCK_REALTIME);
	struct drill_note last;

	drill_note_read(g->s.data.storefd, DRILL_NAME, &last);
	if (clock_was_ahead(last.time, now))
		last.time = 0;
	if (!last.time)
		return first ? first + every : UINT64_MAX;
	return last.time + (last.outcome == DRILL_SKIPPED && every > DAY ? DAY : every);
}

static bool is_over(struct guardian *g)
{
	int status;

	if (!g->drill_pid)
		return true;
	if (waitpid(g->drill_pid, &status, WNOHANG) == 0)
		return false;
	g->drill_pid = 0;
	return true;
}

static void begin(struct guardian *g)
{
	char self[] = "/proc/self/exe", name[] = "chromashim", verb[] = "drill", quiet[] = "-q",
	     all[] = "--replicas", dir[sizeof(g->s.data.dir)];
	char *argv[] = {name, verb, quiet, all, dir, NULL};
	posix_spawnattr_t attributes;
	int r;

	snprintf(dir, sizeof(dir), "%s", g->s.data.dir);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	owner_pause();
	r = posix_spawn(&g->drill_pid, self, NULL, &attributes, argv, environ);
	owner_resume();
	posix_spawnattr_destroy(&attributes);
	if (r) {
		g->drill_pid = 0;
		guardian_say(g, "no drill can be started: %s", strerror(r));
	} else {
		guardian_say(g, "a drill begins: a snapshot is restored and tried");
	}
}

void guardian_look_at_drills(struct guardian *g, uint64_t first)
{
	uint64_t now = oplog_now();

	if (!is_over(g) || !g->settings.drill || now < g->drill_at ||
	    clock_read(CLOCK_REALTIME) < next_drill(g, first))
		return;
	g->drill_at = now + (g->settings.drill < HOUR ? g->settings.drill : HOUR);
	begin(g);
}

void guardian_end_drill(struct guardian *g, bool wait)
{
	uint64_t deadline = oplog_now() + END_TIME;
	struct timespec step = {0, 20000000};

	/* It removes what it has restored; the next guardian begins another. */
	if (g->drill_pid && !wait)
		kill(g->drill_pid, SIGTERM);
	while (!is_over(g)) {
		if (!wait && oplog_now() > deadline)
			kill(-g->drill_pid, SIGKILL);
		nanosleep(&step, NULL);
	}
}
