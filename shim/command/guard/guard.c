/* SPDX-License-Identifier: MIT
 *
 * `chromashim guard`: the process beside the backend. Here: its arguments, that there is only one,
 * and when it wakes up.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "command/base/in_use.h"
#include "command/base/guard_lock.h"
#include "command/base/processes.h"
#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "command/run/run.h"
#include "core/base/background.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/snapshot/hydrate.h"

#define TICK_MS 1000
#define OPEN_MS 200 /* until the database is opened */
#define SENDING_MS 200
#define WAIT_LOCK_MS 200
#define WHILE_OPEN_TRIES 10
#define END_SECONDS 20 /* after SIGTERM, for what is under way */

const char guard_usage[] =
    "Usage: chromashim guard [OPTION]... [DIR]\n"
    "\n"
    "Works beside a backend, at low priority: copies what is pinned into snapshots of their own,\n"
    "verifies them, takes one every CHROMASHIM_EVERY (6h), removes those that no rule keeps,\n"
    "sends snapshots to replicas, compresses the log, and writes status.json and metrics.prom "
    "into\n"
    "the store. There is one for\n"
    "a directory; `chromashim run`, or the library in a backend, starts it, and it ends with the\n"
    "last process that has the directory open. DIR is CHROMASHIM_DIR or ./chroma_data if not\n"
    "given. It may be killed at any moment: the next one goes on where it was.\n"
    "\n"
    "      --once        do what there is to be done, then end; a guardian that is at its last\n"
    "                    snapshot is waited for\n"
    "      --follow=PID  end when that process has ended, and nobody else has the directory open,\n"
    "                    after a last snapshot\n"
    "      --while-open  the same, without a process to begin with\n"
    "      --background  with its log in the store, and nothing of who started it\n"
    "      --library=FILE  say which process of those that are followed has the directory open\n"
    "                    without this library\n"
    "  -q, --quiet       say only what goes wrong\n"
    "\n"
    "Its settings are CHROMASHIM_EVERY, DRILL, KEEP, KEEP_SPACE, KEEP_FREE, RATE and HOOK, from "
    "the\n"
    "environment or chromashim.conf in the store: `chromashim help settings` tells of them.\n"
    "\n"
    "Exit status: 0 done, 1 failed (with --once: at anything), 2 usage, 10 no store, 11 there is\n"
    "a guardian already.\n";

/* ---- following ---- */

static int open_followed(struct guardian *g)
{
	g->pidfd = -1;
	g->gone = g->while_open;
	if (!g->follow)
		return 0;
	g->pidfd = (int)syscall(SYS_pidfd_open, g->follow, 0);
	if (g->pidfd < 0 && errno != ESRCH)
		return fail(EXIT_FAILED, -errno, "Start it without --follow.",
			    "cannot follow process %d", (int)g->follow);
	g->gone = g->pidfd < 0;
	return 0;
}

/* Until something may have happened. */
static void wait_a_while(struct guardian *g, int ms)
{
	struct pollfd p = {.fd = g->pidfd, .events = POLLIN};

	if (poll(&p, 1, guard_stopping ? 0 : ms) != 1)
		return;
	g->gone = true;
	close(g->pidfd);
	g->pidfd = -1;
}

/* A backend that has the database open for a second would be gone at the next tick: until the first
 * open it is looked for more often. */
static void wait_for_tick(struct guardian *g, int ms)
{
	for (; ms > OPEN_MS && !g->engine_known && !g->engine_opened && !g->gone && !guard_stopping;
	     ms -= OPEN_MS) {
		wait_a_while(g, OPEN_MS);
		guardian_look_at_engine(g);
	}
	wait_a_while(g, ms);
}

/* ---- only one ---- */

/*
 * A backend that is restarted at once: the guardian of the one before is still at its last
 * snapshot, or goes on with this backend unless it sees that another one waits.
 */
static int wait_for_lock(struct guardian *g)
{
	unsigned tries = 0;
	int r;

	while ((r = guard_lock_set(g->lockfd, GUARD_LOCK_GUARDIAN, F_WRLCK)) == -EAGAIN) {
		if (g->gone && (!g->while_open || ++tries > WHILE_OPEN_TRIES))
			break;
		if (!g->follow && !g->while_open)
			break;
		if (g->follow)
			guard_lock_set(g->lockfd, GUARD_LOCK_WAITING, F_WRLCK);
		wait_a_while(g, WAIT_LOCK_MS);
	}
	guard_lock_set(g->lockfd, GUARD_LOCK_WAITING, F_UNLCK);
	return r;
}

static int take_lock(struct guardian *g)
{
	char owner[64] = "";
	int r;

	g->lockfd = guard_lock_open(g->s.data.storefd);
	if (g->lockfd < 0)
		return fail(exit_code_of(g->lockfd), g->lockfd, "Run this as the store's owner.",
			    "cannot open guard.lock in '%s'", g->s.data.store);
	if (g->once)
		guard_wait_for_last(&g->s.data);
	r = wait_for_lock(g);
	if (r == 0) {
		g->died = guard_lock_owner(g->lockfd);
		g->place_ended = g->died && guard_lock_is_of_another_place(g->lockfd);
		guard_lock_write(g->lockfd, g->follow, g->follow || g->while_open);
		return 0;
	}
	if (r != -EAGAIN)
		return fail(EXIT_FAILED, r, "Have the store on a file system that has locks.",
			    "cannot lock guard.lock in '%s'", g->s.data.store);
	if (g->while_open)
		return EXIT_BUSY; /* that one goes on as long as anybody is there */
	if (file_read_at(g->lockfd, owner, sizeof(owner) - 1, 0) > 0)
		owner[strcspn(owner, "\n")] = '\0';
	return fail(EXIT_BUSY, 0, "One is enough; stop it first if this one shall take over.",
		    "'%s' has a guardian already%s%s", g->s.data.dir, owner[0] ? ": " : "", owner);
}

/*
 * The lock is given back, and then looked once more whether anybody has come meanwhile: who opened
 * the directory before that saw a guardian. True: there is somebody, and the lock is held again.
 */
static bool is_called_back(struct guardian *g)
{
	guard_lock_clear(g->lockfd);
	if (guard_stopping || g->once)
		return false;
	guard_lock_set(g->lockfd, GUARD_LOCK_GUARDIAN, F_UNLCK);
	if (guard_lock_is_held(g->lockfd, GUARD_LOCK_WAITING) || !in_use(&g->s.data) ||
	    guard_lock_set(g->lockfd, GUARD_LOCK_GUARDIAN, F_WRLCK) != 0)
		return false;
	guard_lock_write(g->lockfd, g->follow, g->follow || g->while_open);
	return true;
}

/* ---- signals ---- */

static void on_stop(int signal)
{
	(void)signal;
	guard_stopping = 1;
	alarm(END_SECONDS);
}

/* What is under way takes too long; nothing is lost by leaving it. */
static void on_alarm(int signal)
{
	(void)signal;
	_exit(EXIT_DONE);
}

static void catch_signals(void)
{
	struct sigaction stop = {.sa_handler = on_stop}, late = {.sa_handler = on_alarm};

	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGALRM, &late, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* ignored, a hook's end could not be waited for */
}

/* ---- the whole ---- */

static void start(struct guardian *g)
{
	int r;

	background_enter();
	g->started = clock_read(CLOCK_REALTIME);
	g->look = true;
	guardian_read_replicas(g);
	if (g->follow)
		guardian_tell(g, "guard.start", 0, "guarding %s for process %d", g->s.data.dir,
			      (int)g->follow);
	else
		guardian_tell(g, "guard.start", 0, "guarding %s", g->s.data.dir);
	if (g->place_ended)
		guardian_say(g, "the guardian before this one ended with its container or machine; "
				"what it was at is done now");
	else if (g->died)
		guardian_tell(g, "guard.died", 0,
			      "the guardian before this one (process %d) did not end by itself; "
			      "what it was at is done now",
			      (int)g->died);
	g->died = 0;
	guardian_look_at_crashes(g);
	/* What a restart of the machine has left of pins. */
	r = snapshots_load(&g->s, SNAPSHOT_ADD, true, 0);
	if (r == 0) {
		r = hydrate_give_up_lost(&g->s.store, &g->s.pins);
		if (r > 0)
			guardian_say(g,
				     "%d snapshots that had only been pinned are lost: the "
				     "machine was started again",
				     r);
		snapshots_unload(&g->s);
	}
}

/* True: it is time to end. Else something is to be done, or to be waited for. */
static bool is_over(struct guardian *g, bool *last_taken)
{
	if (in_use(&g->s.data)) {
		/* Another backend, whose guardian has its settings: it was waiting for this end,
		 * and has begun before it was noticed. */
		if (guard_lock_is_held(g->lockfd, GUARD_LOCK_WAITING)) {
			if (!*last_taken)
				guardian_last_snapshot(g, true);
			return true;
		}
		*last_taken = false;
		wait_a_while(g, TICK_MS);
		return false;
	}
	if (*last_taken)
		return true;
	*last_taken = true;
	guardian_look_at_crashes(g);
	guardian_last_snapshot(g, false);
	g->look = true;
	return false;
}

static void run(struct guardian *g)
{
	bool last_taken = false;

	for (;;) {
		bool more = guardian_duties(g);

		guardian_look_at_launch(g);
		guardian_look_at_engine(g);
		guardian_tell_others(g);
		guardian_look_at_replicas(g);
		guardian_reap(g);
		if (guard_stopping)
			break;
		if (!more && g->once && !guardian_is_sending(g))
			break;
		if (g->gone && (!more || guard_lock_is_held(g->lockfd, GUARD_LOCK_WAITING))) {
			if (!is_over(g, &last_taken))
				continue;
			/* Who waits to take over goes on with it. */
			if (!guardian_is_sending(g) ||
			    guard_lock_is_held(g->lockfd, GUARD_LOCK_WAITING))
				break;
		}
		wait_for_tick(g, more ? 0 : guardian_is_sending(g) ? SENDING_MS : TICK_MS);
	}
	guardian_end_drill(g, g->once && !guard_stopping);
	guardian_tell_others(g);
	guardian_stop_sending(g);
	if (!guard_stopping && !guard_lock_is_held(g->lockfd, GUARD_LOCK_WAITING))
		guardian_prune_put_off(g);
	guardian_tell(g, "guard.stop", 0, "%s",
		      guard_stopping ? "told to stop"
		      : guard_lock_is_held(g->lockfd, GUARD_LOCK_WAITING)
			  ? "the guardian of another process takes over"
		      : g->gone	  ? "nobody has the directory open any more"
		      : g->failed ? "not all could be done"
				  : "all is done");
	guardian_report(g, false);
	guardian_finish_hooks(g);
}

static int guard(struct guardian *g, const char *dir)
{
	int status = data_directory_open(&g->s.data, dir, false), r;

	g->s.pins.dirfd = -1;
	if (status)
		return status;
	r = data_directory_make_store(&g->s.data);
	if (r < 0)
		status = fail(exit_code_of(r), r, "Run this as the owner of the data directory.",
			      "cannot make the store '%s'", g->s.data.store);
	guardian_prepare_launch(g);
	if (status == 0 && g->background)
		guard_go_to_background(g->s.data.storefd);
	if (status == 0)
		status = open_followed(g);
	if (status == 0)
		status = take_lock(g);
	guard_settings_read(&g->settings, g->s.data.storefd);
	/* What a limit costs which snapshot is asked for again and again. */
	g->s.only_heads = !g->settings.prune.max_space && !g->settings.prune.min_free;
	if (status == 0 && g->while_open)
		memory_keep(g->s.data.dir);
	if (status == 0) {
		catch_signals();
		guardian_begin_fence(g);
		do {
			start(g);
			run(g);
		} while (is_called_back(g));
		guardian_end_fence(g);
		/* With --once nobody tries again. */
		status = g->once && g->failed ? EXIT_FAILED : EXIT_DONE;
	}
	guard_settings_free(&g->settings);
	data_directory_close(&g->s.data);
	return status;
}

int command_guard(int argc, char **argv)
{
	enum { ONCE = 256, FOLLOW, WHILE_OPEN, BACKGROUND, LIBRARY };
	static const struct option options[] = {{"once", no_argument, NULL, ONCE},
						{"follow", required_argument, NULL, FOLLOW},
						{"while-open", no_argument, NULL, WHILE_OPEN},
						{"background", no_argument, NULL, BACKGROUND},
						{"library", required_argument, NULL, LIBRARY},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct guardian g = {.pidfd = -1};
	uint32_t number;
	int option;

	/* `run` starts it as /proc/self/exe, and it would be called "exe". */
	prctl(PR_SET_NAME, "chromashim");
	while ((option = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		switch (option) {
		case ONCE:
			g.once = true;
			break;
		case FOLLOW:
			if (!parse_number(optarg, &number) || number > INT_MAX) {
				warn("'%s' is no process number", optarg);
				return fail_usage("guard");
			}
			g.follow = (pid_t)number;
			break;
		case WHILE_OPEN:
			g.while_open = true;
			break;
		case BACKGROUND:
			g.background = true;
			break;
		case LIBRARY:
			g.library = optarg;
			break;
		case 'q':
			g.quiet = true;
			break;
		default:
			return fail_usage("guard");
		}
	}
	if (argc - optind > 1) {
		warn("guard takes one directory");
		return fail_usage("guard");
	}
	if (g.background)
		process_shed_host();
	return guard(&g, argv[optind]);
}
