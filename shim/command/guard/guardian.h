/* SPDX-License-Identifier: MIT
 *
 * The guardian: what its parts share. It may be killed, stopped or started twice at any moment; the
 * backend never depends on it.
 */
#ifndef COMMAND_GUARDIAN_H
#define COMMAND_GUARDIAN_H

#include <signal.h>

#include "command/base/guard_settings.h"
#include "core/replica/state.h"

#define GUARD_HOOKS 8
#define GUARD_TOLD 16
#define STATUS_FILE "status.json"
#define GUARD_SCHEDULE "schedule" /* the reason of what is taken by the clock */

struct guard_hook {
	pid_t pid; /* 0: free */
	uint64_t deadline;
};

#define GUARD_STATES 6 /* of snapshots */
#define GUARD_BUCKETS 14
extern const double guard_bucket_ends[GUARD_BUCKETS]; /* seconds */

struct guard_histogram {
	uint64_t buckets[GUARD_BUCKETS];
	uint64_t count, sum; /* ns */
};

/* What is counted of the log. */
struct guard_log {
	struct guard_histogram commits, syncs; /* since the guardian began */
	uint64_t until, read_at;	       /* ns, CLOCK_REALTIME */
	uint64_t lost;
	unsigned processes;
};

/* What was told of a replica already. */
struct guard_told {
	uint64_t snapshot;
	bool has_failed, is_late;
};

struct guard_replicas {
	struct replica_targets targets;
	struct guard_told told[REPLICA_TARGETS];
	uint64_t late;		      /* ns, 0: none is */
	uint64_t newest, newest_time; /* the newest snapshot here that can be sent */
	uint64_t tried;		      /* up to which one all went well, or goes on */
	uint64_t last;		      /* the one for which, at the end, there is no second try */
	uint64_t retry_at, late_at;   /* ns, CLOCK_MONOTONIC */
	pid_t pid;		      /* who sends, 0: nobody */
};

struct guardian {
	struct snapshots s; /* s.data is open; loaded only during a duty */
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
	uint64_t verify_at; /* where snapshots follow each other closely; ns, CLOCK_MONOTONIC */
	bool newest_is_next;
	uint64_t pin_at; /* the next moment while something long is done; ns, CLOCK_MONOTONIC */
	uint64_t reported, reported_at; /* what was written last, as a checksum; and when */
	unsigned empties;		/* snapshots in turn that held nothing */
	bool swept;			/* nothing is left of pins that are gone */
	bool prune_put_off;		/* old snapshots wait until nobody reads them */
	uint64_t current;		/* the snapshot at work on, for the report */
	uint64_t refused_at;		/* of the last refusal that was told; ns, CLOCK_REALTIME */
	uint64_t events_seen;		/* when `events` was last changed */
	pid_t died;	  /* the guardian before, which did not end by itself; 0: none */
	bool place_ended; /* but with the container or the machine that it was in */
	bool disk_low, disk_filling, overdue, engine_known, engine_opened;
	uint64_t engine_at, engine_pause;
	pid_t drill_pid;   /* of the drill that is under way, 0: none */
	uint64_t drill_at; /* none is begun before; ns, CLOCK_MONOTONIC */
	int store_error;   /* told already */
	bool failed;	   /* something could not be done */
	bool at_limit;	   /* a process has reached a limit of the library's */
	unsigned copied, verified, broken, taken, removed, refused; /* since the start */
	uint64_t started;					    /* ns, CLOCK_REALTIME */
	struct guard_replicas replicas;
	struct guard_hook hooks[GUARD_HOOKS];
	const char *library;	  /* what `run` preloaded, NULL: it is not looked for */
	struct stat library_file; /* as it was then */
	struct stat terminal;	  /* the standard error of `run` */
	uint64_t launch_at, launch_pause;
	uint32_t told[GUARD_TOLD]; /* pids that have the directory open without it */
	unsigned told_next;
	struct guard_log log;
	struct guard_fence *fence; /* NULL: none */
	bool metrics_told;	   /* that CHROMASHIM_METRICS cannot be written */
};

extern volatile sig_atomic_t guard_stopping;

/* ---- as a process of its own (background.c) ---- */

/* Then stdout and stderr are the log in the store. */
void guard_go_to_background(int storefd);

/* ---- is the library there (launch.c) ---- */

/* At the start, while stderr is that of `run`. */
void guardian_prepare_launch(struct guardian *g);
/* From time to time: says each process once that has the directory open without it. */
void guardian_look_at_launch(struct guardian *g);

/* ---- duties (duties.c): true: there is more to be done at once ---- */

bool guardian_duties(struct guardian *g);
/* At the end, when the drill and the sender read no more: there is no next look. Waits for other
 * readers, but not for long. */
void guardian_prune_put_off(struct guardian *g);
/* When the followed process has ended: 0 or -errno. */
void guardian_last_snapshot(struct guardian *g, bool is_succeeded);

/* ---- the fence while nobody is the writer (fence.c) ---- */

/* For as long as the guardian is there: a thread. Nothing, where there is to be none. */
void guardian_begin_fence(struct guardian *g);
void guardian_end_fence(struct guardian *g);
/* Whether one does so now. */
bool guardian_keeps_fence(int datafd);

/* ---- the last snapshot's pin (base.c) ---- */

/* Whether the next snapshot by the clock is so near that its pin is worth holding on to. */
bool guardian_holds_on(const struct guardian *g);
/* Lets go of it when it is not any more, or costs too much. */
void guardian_look_at_base(struct guardian *g, struct pins *pins);

/* ---- snapshots by the clock (clock.c) ---- */

/* Of what the store has, broken ones as well or not; what a clock that was ahead has left counts as
 * nothing, or it would stop all that follows. 0: there is none. */
uint64_t guardian_newest_time(const struct guardian *g, uint64_t now, bool broken);
bool guardian_is_due(const struct guardian *g, uint64_t now);
void guardian_take(struct guardian *g, const char *reason);
/* A step of something that takes long: what is due meanwhile is pinned, and copied afterwards. */
void guardian_keep_time(void *guardian, uint64_t done, uint64_t total);

/* ---- replicas (replicas.c) ---- */

/* At the start: where they are. */
void guardian_read_replicas(struct guardian *g);
/* With the snapshots loaded: which is the newest. */
void guardian_note_newest(struct guardian *g);
/* From time to time: begins to send, and tells how that went. */
void guardian_look_at_replicas(struct guardian *g);
bool guardian_is_sending(const struct guardian *g);
/* At the guardian's end; only one that is told to stop does not let it finish. */
void guardian_stop_sending(struct guardian *g);

/* ---- telling (tell.c) ---- */

/* One line in the log. */
void guardian_say(const struct guardian *g, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same, and the hook is called: `event` is "snapshot.verified" and the like, `id` the snapshot
 * or 0. */
void guardian_tell(struct guardian *g, const char *event, uint64_t id, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The same about a moment, which is told once. */
void guardian_tell_about(struct guardian *g, const char *event, uint64_t about, const char *format,
			 ...) __attribute__((format(printf, 4, 5)));
/* If the snapshot that was taken just now has found one (core/snapshot/known.h). */
void guardian_tell_contradiction(struct guardian *g, uint64_t id);
/* Line and hook of what is kept already. */
void guardian_pass_on(struct guardian *g, const char *event, uint64_t id, const char *text);
/* Hooks that have ended, or taken too long. */
void guardian_reap(struct guardian *g);
/* Waits a while for those that run. */
void guardian_finish_hooks(struct guardian *g);

/* ---- what others leave to be told (events.c), and what the log has (crashes.c) ---- */

/* Events that a start, or another command, has left to be told. */
void guardian_tell_others(struct guardian *g);
/* At its start, and when nobody has the directory open any more. */
void guardian_look_at_crashes(struct guardian *g);

/* ---- drills (drills.c) ---- */

/* Starts one when it is due, and then one from each replica that can be read here; `first`: when
 * the oldest snapshot was taken, 0: there is none. */
void guardian_look_at_drills(struct guardian *g, uint64_t first);
/* At the guardian's end: waits for the one that is under way, or ends it. */
void guardian_end_drill(struct guardian *g, bool wait);

/* ---- what becomes an alarm by and by (alarms.c) ---- */

/* How full the file system is, as df has it. */
unsigned guard_disk_percent(int fd);
/* Older than that the newest verified snapshot should not be; 0: any age is right. */
uint64_t guard_snapshot_limit(const struct guard_settings *settings);
void guardian_look_at_fill(struct guardian *g);
/* Of the oldest snapshot and the newest verified one the times, 0: there is none. */
void guardian_look_at_age(struct guardian *g, uint64_t oldest, uint64_t verified);
/* Until it is known which Chroma the backend is. */
void guardian_look_at_engine(struct guardian *g);

/* ---- status.json and metrics.prom (report.c) ---- */

/* If there is news or the last ones are old. */
void guardian_report(struct guardian *g, bool running);
/* Says in the dead one's metrics that it runs no more; nobody else does. In metrics.c. */
void guardian_report_death(const struct data_directory *t);
/* For long work: ends the process when it was told to, and says so. */
void guardian_step(void *guardian, uint64_t done, uint64_t total);

#endif
