/* SPDX-License-Identifier: MIT
 *
 * The guardian sends snapshots to replicas: in a process of its own, so that a remote that does not
 * answer holds up nothing here. Which are to be sent is that process's business; here is when, and
 * what is told of how it went.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "command/replica/replica.h"
#include "core/base/clock.h"
#include "core/oplog/oplog.h"

#define RETRY (10 * SECOND) /* twice as long each time, */
#define RETRY_DOUBLES 7	    /* up to 21 minutes */
#define LATE_EVERY (15 * SECOND)

/* ---- the setting ---- */

void guardian_read_replicas(struct guardian *g)
{
	struct guard_replicas *r = &g->replicas;
	char wrong[REPLICA_TARGET_SIZE];
	struct replica_state state;
	unsigned i;

	if (replica_targets_parse(&r->targets, config_get(&g->settings.config, CONFIG_REPLICA),
				  wrong) < 0) {
		guardian_tell(g, "replica.failed", 0,
			      "CHROMASHIM_REPLICA: '%.200s' is no place for a replica, or one too "
			      "many: nothing is sent",
			      wrong);
		r->targets.count = 0;
	}
	config_read_time(config_get(&g->settings.config, CONFIG_REPLICA_LATE), &r->late);
	for (i = 0; i < r->targets.count; i++) {
		replica_state_read(g->s.data.storefd, r->targets.all[i].text, &state);
		r->told[i].snapshot = state.snapshot;
	}
}

void guardian_note_newest(struct guardian *g)
{
	size_t i = g->s.count;

	while (i > 0 && g->s.list[i - 1].header.state != SNAPSHOT_COMPLETE &&
	       g->s.list[i - 1].header.state != SNAPSHOT_VERIFIED)
		i--;
	g->replicas.newest = i ? g->s.list[i - 1].header.id : 0;
	g->replicas.newest_time = i ? g->s.list[i - 1].header.time : 0;
}

/* ---- telling ---- */

/* Once, until it goes well again. */
static unsigned tell_one(struct guardian *g, unsigned i)
{
	const char *target = g->replicas.targets.all[i].text;
	struct guard_told *told = &g->replicas.told[i];
	struct replica_state state;

	if (replica_state_read(g->s.data.storefd, target, &state) < 0)
		return 0;
	if (state.snapshot > told->snapshot) {
		told->is_late = false;
		guardian_tell(g, "replica.done", state.snapshot,
			      "snapshot %" PRIu64 " is in the replica %.200s", state.snapshot,
			      target);
	}
	told->snapshot = state.snapshot;
	if (state.failures && !told->has_failed)
		guardian_tell(g, "replica.failed", 0, "cannot send to %.150s: %.300s; %s", target,
			      state.error,
			      g->gone || g->once ? "the next one tries again"
						 : "it is tried again");
	told->has_failed = state.failures > 0;
	g->failed = g->failed || state.failures;
	return (unsigned)(state.failures < 1000 ? state.failures : 1000);
}

static void tell_late(struct guardian *g)
{
	struct guard_replicas *r = &g->replicas;
	uint64_t now = clock_read(CLOCK_REALTIME);
	struct replica_state state;
	char time[40] = "never";
	uint64_t since;
	unsigned i;

	for (i = 0; i < r->targets.count; i++) {
		replica_state_read(g->s.data.storefd, r->targets.all[i].text, &state);
		since = state.snapshot_time && !clock_was_ahead(state.snapshot_time, now)
			    ? state.snapshot_time
			    : g->started;
		if (r->told[i].is_late || !r->late || r->newest <= state.snapshot ||
		    now < since + r->late)
			continue;
		r->told[i].is_late = true;
		if (state.snapshot_time)
			format_time_utc(time, sizeof(time), state.snapshot_time);
		guardian_tell(g, "replica.late", state.snapshot,
			      "the newest snapshot in the replica %.150s is of %s%s%.200s",
			      r->targets.all[i].text, time, state.error[0] ? ": " : "",
			      state.error);
	}
}

/* ---- sending ---- */

/* The lock of the guardian does not outlive the guardian in it. */
static void send_in_child(struct guardian *g)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), i;

	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	alarm(0);
	close(g->lockfd);
	if (g->pidfd >= 0)
		close(g->pidfd);
	for (i = 0; i < 3 && null >= 0; i++) /* what goes wrong is in the state */
		dup2(null, i);
	_exit(replica_send(&g->s.data, true));
}

static void begin(struct guardian *g)
{
	struct guard_replicas *r = &g->replicas;

	r->tried = r->newest;
	r->pid = fork();
	if (r->pid == 0)
		send_in_child(g);
	if (r->pid < 0) {
		r->pid = 0;
		r->tried = 0;
		r->retry_at = oplog_now() + RETRY;
	}
}

/* Of several replicas the one that fares worst says when to try again. */
static void end(struct guardian *g, int status)
{
	struct guard_replicas *r = &g->replicas;
	unsigned i, failures = 0, one;

	r->pid = 0;
	for (i = 0; i < r->targets.count; i++) {
		one = tell_one(g, i);
		failures = one > failures ? one : failures;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_DONE)
		return;
	r->tried = 0;
	failures = failures ? failures - 1 : 0;
	r->retry_at =
	    oplog_now() + (RETRY << (failures < RETRY_DOUBLES ? failures : RETRY_DOUBLES));
}

void guardian_look_at_replicas(struct guardian *g)
{
	struct guard_replicas *r = &g->replicas;
	int status;

	if (!r->targets.count)
		return;
	if (r->pid && waitpid(r->pid, &status, WNOHANG) == r->pid)
		end(g, status);
	/* At the end there is no second try. */
	if (!r->pid && r->newest && r->newest != r->tried && oplog_now() >= r->retry_at &&
	    !guard_stopping && !((g->gone || g->once) && r->last == r->newest)) {
		r->last = g->gone || g->once ? r->newest : 0;
		begin(g);
	}
	if (oplog_now() >= r->late_at) {
		r->late_at = oplog_now() + LATE_EVERY;
		tell_late(g);
	}
}

bool guardian_is_sending(const struct guardian *g)
{
	return g->replicas.pid != 0;
}

void guardian_stop_sending(struct guardian *g)
{
	if (g->replicas.pid && guard_stopping) {
		kill(g->replicas.pid, SIGTERM);
		waitpid(g->replicas.pid, NULL, 0);
	}
	g->replicas.pid = 0;
}
