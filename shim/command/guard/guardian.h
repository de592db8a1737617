/* SPDX-License-Identifier: MIT
 *
 * The guardian: what its parts share. It may be killed, stopped or started twice at any moment; the
 * backend never depends on it.
 */
#ifndef COMMAND_GUARDIAN_H
#define COMMAND_GUARDIAN_H

#include <signal.h>

#include "command/base/guard_settings.h"

#define GUARD_HOOKS 8
#define GUARD_TOLD 16
#define STATUS_FILE "status.json"
#define GUARD_SCHEDULE "schedule" /* the reason of what is taken by the clock */

struct guard_hook {
	pid_t pid; /* 0: free */
	uint64_t deadline;
};

struct guardian {
	struct snapshots s; /* s.target is open; loaded only during a duty */
	struct guard_settings settings;
	int lockfd;
	int pidfd; /* of the process that is followed, -1: none */
	pid_t follow;
	bool once, quiet, background;
	bool while_open; /* follows nobody, but whoever has the directory open */
	bool gone;	 /* the followed process has ended */
	bool look;	 /* snapshots have changed: look for what is to be done */
	uint64_t looked;
	uint64_t retry_at; /* no snapshot by the clock before; ns, CLOCK_MONOTONIC */
	uint64_t compress_at, report_at, room_at;
	uint64_t reported, reported_at; /* what was written last, as a checksum; and when */
	unsigned empties;		/* snapshots in turn that held nothing */
	bool swept;			/* nothing is left of pins that are gone */
	uint64_t current;		/* the snapshot at work on, for the report */
	uint64_t refused_at;		/* of the last refusal that was told; ns, CLOCK_REALTIME */
	bool disk_low;
	int store_error; /* told already */
	bool failed;	 /* something could not be done */
	bool at_limit;	 /* a process has reached a limit of the library's */
	unsigned copied, verified, broken, taken, removed, refused; /* since the start */
	uint64_t started;					    /* ns, CLOCK_REALTIME */
	struct guard_hook hooks[GUARD_HOOKS];
	const char *library;	  /* what `run` preloaded, NULL: it is not looked for */
	struct stat library_file; /* as it was then */
	struct stat terminal;	  /* the standard error of `run` */
	uint64_t launch_at, launch_pause;
	uint32_t told[GUARD_TOLD]; /* pids that have the directory open without it */
	unsigned told_next;
};

extern volatile sig_atomic_t guard_stopping;

/* The pid of a store's guardian, 0: none, -1: one that does not say yet, or waits for the last. */
int guard_is_running(int storefd);
/* The last one did not end by itself. */
bool guard_has_died(int storefd);

/* ---- as a process of its own (background.c) ---- */

/* At the start, with --background: what was inherited from a backend goes. */
void guard_shed_host(void);
/* Then stdout and stderr are the log in the store. */
void guard_go_to_background(int storefd);

/* ---- is the library there (launch.c) ---- */

/* At the start, while stderr is that of `run`. */
void guardian_prepare_launch(struct guardian *g);
/* From time to time: says each process once that has the directory open without it. */
void guardian_look_at_launch(struct guardian *g);

/* ---- duties (duties.c): true: there is more to be done at once ---- */

bool guardian_duties(struct guardian *g);
/* When the followed process has ended: 0 or -errno. */
void guardian_last_snapshot(struct guardian *g, bool is_succeeded);

/* ---- snapshots by the clock (clock.c) ---- */

bool guardian_is_due(const struct guardian *g, uint64_t now);
void guardian_take(struct guardian *g, const char *reason);

/* ---- telling (tell.c) ---- */

/* One line in the log. */
void guardian_say(const struct guardian *g, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same, and the hook is called: `event` is "snapshot.verified" and the like, `id` the snapshot
 * or 0. */
void guardian_tell(struct guardian *g, const char *event, uint64_t id, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Hooks that have ended, or taken too long. */
void guardian_reap(struct guardian *g);
/* Waits a while for those that run. */
void guardian_finish_hooks(struct guardian *g);

/* ---- status.json and metrics.prom (report.c) ---- */

/* If there is news or the last ones are old. */
void guardian_report(struct guardian *g, bool running);
/* Says in the dead one's metrics that it runs no more; nobody else does. */
void guardian_report_death(int storefd);
/* For long work: ends the process when it was told to, and says so. */
void guardian_step(void *guardian, uint64_t done, uint64_t total);

#endif
