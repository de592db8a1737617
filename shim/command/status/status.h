/* SPDX-License-Identifier: MIT
 *
 * What `chromashim status` has found out, and how it is shown.
 */
#ifndef COMMAND_STATUS_H
#define COMMAND_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command/base/command.h"
#include "command/base/processes.h"
#include "core/base/openers.h"
#include "core/oplog/read.h"

#define STATUS_COPIES 8

/* Is the process that the log names at work on it? */
enum status_proof {
	PROOF_NONE,	 /* it lives, and does not map its segment any more */
	PROOF_HIDDEN,	 /* it lives, and we may not look into it */
	PROOF_ELSEWHERE, /* it lives by its lock, in another container: not to be seen from here */
	PROOF_MAPPED,	 /* it lives and maps its segment */
};

struct status_copy {
	char path[256];
	bool above; /* its entry points are seen; else through the file protocol */
	struct sqlite_build build;
};

struct status_process {
	struct oplog_header header;
	enum status_proof proof;
	bool is_here;	  /* its pid is of this container */
	uint32_t seen_as; /* else its pid as it is seen from here, 0: not at all */
	uint64_t records;
	uint32_t passed_to; /* who has the right to write that this process had when it forked; 0 */
	enum library_file library;
	struct status_copy copies[STATUS_COPIES];
	unsigned copies_size;
};

struct status_snapshots {
	unsigned count, pinned, verified, broken;
	uint64_t newest, newest_id; /* of the verified ones */
	uint64_t first;		    /* the oldest, whatever its state */
	uint64_t every;		    /* between those by the clock */
	uint64_t limit;		    /* of the age of the newest verified one, ns; 0: none */
	int guardian;		    /* its pid, 0: none */
	bool guardian_died;	    /* and did not end by itself, while a backend goes on */
	bool guardian_stopped;	    /* by a signal */
	bool guardian_fence;	    /* it keeps others out, since nobody is the writer */
	bool is_old;		    /* the newest verified one, or there is none among them */
};

#define STATUS_ALARMS 24

struct status_alarm {
	enum check_code level;
	char text[200];
};

struct store_event;
struct drill_note;
struct replica_state;

struct status {
	const struct data_directory *data;
	struct status_process *processes; /* living ones */
	unsigned processes_size, protected_size, unproven_size;
	struct process_opener *others; /* have the database open and are not protected */
	unsigned openers_size;	       /* before those that are protected were left out */
	unsigned others_size, hidden;
	uint64_t segments, packed, bytes, records, in_flight_dead;
	uint64_t lost, damaged, unreadable, cut;
	int64_t foreign;		/* files in the store that are not of its owner */
	bool dropped;			/* the oldest records are gone, since the log has a bound */
	uint64_t first_time, last_time; /* of records */
	struct status_snapshots snapshots;
	unsigned disk_used;  /* percent of the data directory's file system */
	unsigned disk_limit; /* CHROMASHIM_WARN_FULL */
	bool quick;	     /* the log's records were not read */
	bool disk_full;	     /* that or more */
	bool disk_refuses;   /* less than CHROMASHIM_MIN_FREE is left */
	bool quota_refuses;  /* that is what is left of this user's disk quota */
	bool no_inodes;	     /* and nothing is written for want of them */
	unsigned store_used; /* percent, where the store is on another disk and that is full */
	uint64_t since;	     /* for how long an event is heard of, ns */
	struct store_event *events;
	size_t event_count;
	unsigned refused; /* writers, since then */
	struct drill_note *replica_drill;
	struct drill_note *drill;	/* the last one; time 0: there was none */
	uint64_t drill_limit;		/* of the age of the last good one, ns; 0: none */
	struct replica_state *replicas; /* those that are set */
	unsigned replica_count;
	uint64_t replica_limit; /* of the age of the newest snapshot in one, ns; 0: none */
	struct status_alarm alarms[STATUS_ALARMS];
	unsigned alarm_count;
	enum check_code verdict;
};

struct status_options {
	bool json, check, ready, utc;
	uint64_t since, snapshot_age, drill_age, replica_age; /* ns */
	const char *dir;
};

void status_print_json(const struct status *s);
void status_print_text(const struct status *s, bool utc);

/* ---- alarms.c ---- */

struct json;
void status_look_at_disk(struct status *s);
void status_gather_events(struct status *s);
/* And the verdict. */
void status_find_alarms(struct status *s);
void status_json_alarms(struct json *j, const struct status *s);
void status_text_events(const struct status *s, bool utc);
/* One line, as monitoring plugins give it. */
void status_print_check(const struct status *s);

/* ---- drill.c ---- */

void status_gather_drill(struct status *s);
/* "a drill failed …"; false: it is as it should be. */
bool status_drill_trouble(const struct status *s, char *out, size_t room, bool *failed);
void status_text_drill(const struct status *s);
void status_json_drill(struct json *j, const struct status *s);

/* ---- replicas.c ---- */

void status_gather_replicas(struct status *s);
/* False: it is as it should be. */
bool status_replica_trouble(const struct status *s, unsigned i, char *out, size_t room);
/* When the newest snapshot was taken that all of them have; 0: there is none. */
uint64_t status_replica_oldest(const struct status *s);
void status_text_replicas(const struct status *s);
void status_json_replicas(struct json *j, const struct status *s);

/* ---- snapshots.c ---- */

void status_gather_snapshots(struct status *s);
void status_json_snapshots(struct json *j, const struct status *s);
void status_text_snapshots(const struct status *s);

#endif
