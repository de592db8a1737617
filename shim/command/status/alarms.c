/* SPDX-License-Identifier: MIT
 *
 * What `chromashim status` finds wrong, worst and nearest first: each a few words that fit in one
 * line with the others.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "command/status/status.h"
#include "core/base/clock.h"
#include "core/base/disk_left.h"
#include "core/base/json.h"
#include "core/oplog/oplog.h"
#include "core/store/drill.h"
#include "core/store/events.h"

#define SHOWN 6 /* in one line */

/* The store's disk, where it is one of its own: without room there nothing is recorded or saved. */
static void look_at_store_disk(struct status *s)
{
	struct stat data, store;
	unsigned used;

	if (s->data->storefd < 0 || fstat(s->data->dirfd, &data) < 0 ||
	    fstat(s->data->storefd, &store) < 0 || data.st_dev == store.st_dev)
		return;
	used = guard_disk_percent(s->data->storefd);
	if (s->disk_limit && used >= s->disk_limit)
		s->store_used = used;
}

/* As the backend warns and refuses, which does so at its next write: here at any time. */
void status_look_at_disk(struct status *s)
{
	struct guard_settings settings;
	struct disk_floor floor;
	struct disk_left disk;

	guard_settings_read(&settings, s->data->storefd);
	s->disk_limit = settings.warn_full;
	config_read_room(config_get(&settings.config, CONFIG_MIN_FREE), &floor.percent,
			 &floor.bytes);
	guard_settings_free(&settings);
	if (disk_left(s->data->dirfd, floor, &disk) < 0)
		return;
	s->disk_used = guard_disk_percent(s->data->dirfd);
	s->disk_full = s->disk_limit && s->disk_used >= s->disk_limit;
	s->disk_refuses = disk.free < disk_floor_of(floor, disk.total);
	s->quota_refuses = s->disk_refuses && disk.of_quota;
	s->no_inodes = disk.inodes < CONFIG_FEW_INODES || disk.quota_inodes < CONFIG_FEW_INODES;
	look_at_store_disk(s);
}

static void __attribute__((format(printf, 3, 4)))
alarm_add(struct status *s, enum check_code level, const char *format, ...)
{
	struct status_alarm *a = &s->alarms[s->alarm_count];
	va_list ap;

	if (s->alarm_count == STATUS_ALARMS)
		return;
	a->level = level;
	va_start(ap, format);
	vsnprintf(a->text, sizeof(a->text), format, ap);
	va_end(ap);
	s->alarm_count++;
}

static void look_at_processes(struct status *s)
{
	unsigned i;

	if (!s->protected_size && s->unproven_size)
		alarm_add(s, CHECK_UNKNOWN, "pid %" PRIu32 " may not be looked into",
			  s->processes[0].header.pid);
	else if (!s->protected_size)
		alarm_add(s, CHECK_WARNING, "no process is protected");
	if (s->others_size)
		alarm_add(s, CHECK_WARNING, "pid %" PRIu32 " works without the shim",
			  s->others[0].pid);
	for (i = 0; i < s->processes_size; i++) {
		const struct status_process *p = &s->processes[i];

		if (p->proof < PROOF_ELSEWHERE)
			continue;
		if (p->library == LIBRARY_REMOVED)
			alarm_add(s, CHECK_WARNING,
				  "the library that pid %" PRIu32
				  " has loaded was removed, and the "
				  "next start is unprotected",
				  p->header.pid);
		if (p->header.features & OPLOG_SPACE_LOW)
			alarm_add(s, CHECK_DAMAGE, "new writes are refused for want of space");
		if (p->header.features & OPLOG_LIMIT)
			alarm_add(s, CHECK_WARNING,
				  "pid %" PRIu32 " has reached a limit of the library's",
				  p->header.pid);
	}
}

static void look_at_log(struct status *s)
{
	if (s->damaged || s->unreadable || s->cut)
		alarm_add(s, CHECK_DAMAGE, "log damaged: %" PRIu64 " slots, %" PRIu64 " segments",
			  s->damaged, s->unreadable + s->cut);
	if (s->lost)
		alarm_add(s, CHECK_WARNING, "%" PRIu64 " records of the log lost", s->lost);
	if (s->foreign > 0)
		alarm_add(s, CHECK_WARNING,
			  "%" PRIi64 " files in the store are not its owner's (chromashim check)",
			  s->foreign);
}

static void look_at_room(struct status *s)
{
	if (s->quota_refuses)
		alarm_add(s, CHECK_DAMAGE,
			  "the disk quota of this user is nearly used up, and new writes are "
			  "refused (CHROMASHIM_MIN_FREE)");
	else if (s->disk_refuses)
		alarm_add(s, CHECK_DAMAGE,
			  "the disk is %u %% full, and new writes are refused "
			  "(CHROMASHIM_MIN_FREE)",
			  s->disk_used);
	else if (s->disk_full)
		alarm_add(s, CHECK_WARNING, "the disk is %u %% full", s->disk_used);
	if (s->no_inodes)
		alarm_add(s, CHECK_DAMAGE, "there are no inodes left, and new writes are refused");
	if (s->store_used)
		alarm_add(s, CHECK_WARNING, "the store's disk is %u %% full", s->store_used);
}

static void look_at_snapshots(struct status *s)
{
	const struct status_snapshots *n = &s->snapshots;
	uint64_t now = clock_read(CLOCK_REALTIME);
	char age[24];

	if (n->guardian_died)
		alarm_add(s, CHECK_WARNING,
			  "the guardian was killed: nothing is copied or verified (chromashim "
			  "guard)");
	if (n->guardian_stopped)
		alarm_add(s, CHECK_WARNING,
			  "the guardian was stopped by a signal: nothing is copied or verified "
			  "(kill -CONT %d)",
			  n->guardian);
	if (n->is_old && n->newest)
		alarm_add(s, CHECK_WARNING, "the newest verified snapshot is %s old",
			  format_duration(age, sizeof(age), now - n->newest));
	else if (n->is_old && n->verified)
		alarm_add(
		    s, CHECK_WARNING,
		    "the verified snapshots are of a time that is still to come: the clock was "
		    "set back (chromashim snapshot create)");
	else if (n->is_old)
		alarm_add(s, CHECK_WARNING, "no snapshot is verified");
}

static void look_at_drill(struct status *s)
{
	char text[200];
	bool failed;

	if (status_drill_trouble(s, text, sizeof(text), &failed))
		alarm_add(s, failed ? CHECK_DAMAGE : CHECK_WARNING, "%s", text);
}

static void look_at_replicas(struct status *s)
{
	char text[200];
	unsigned i;

	for (i = 0; i < s->replica_count; i++)
		if (status_replica_trouble(s, i, text, sizeof(text)))
			alarm_add(s, CHECK_WARNING, "%s", text);
}

/* ---- what has happened ---- */

/* What of the events is to be heard of for a while although it is over. */
static const struct {
	const char *name, *words;
	enum check_code level;
} heard_of[] = {
    {"crash.loop", "crash loops", CHECK_DAMAGE},
    {"crash.found", "crashes", CHECK_WARNING},
    {"recover.healed", "healings", CHECK_WARNING},
    {"persist.undone", "index writes undone", CHECK_WARNING},
    {"guard.died", "guardians killed", CHECK_WARNING},
    {"guard.failed", "failures of the guardian", CHECK_WARNING},
    {"snapshot.broken", "broken snapshots", CHECK_WARNING},
    {"snapshot.contradicted", "files that change without a change time", CHECK_WARNING},
    {"snapshot.failed", "snapshots that failed", CHECK_WARNING},
    {"engine.changed", "changes of Chroma's release", CHECK_FINE},
    {"drill.failed", NULL, CHECK_FINE}, /* said by the last drill */
};

static unsigned count_events(const struct status *s, const char *name)
{
	uint64_t now = clock_read(CLOCK_REALTIME);
	unsigned n = 0;
	size_t i;

	for (i = 0; i < s->event_count; i++)
		n += !strcmp(s->events[i].name, name) && s->events[i].time + s->since >= now;
	return n;
}

static void look_at_events(struct status *s)
{
	char since[24];
	size_t i;

	format_duration(since, sizeof(since), s->since);
	for (i = 0; i < sizeof(heard_of) / sizeof(heard_of[0]); i++) {
		unsigned n = heard_of[i].words ? count_events(s, heard_of[i].name) : 0;

		if (n && heard_of[i].level)
			alarm_add(s, heard_of[i].level, "%u %s in the last %s", n,
				  heard_of[i].words, since);
	}
	if (s->refused)
		alarm_add(s, CHECK_WARNING,
			  "%u writers refused in the last %s (chromashim log "
			  "--failed)",
			  s->refused, since);
}

void status_gather_events(struct status *s)
{
	uint64_t now = clock_read(CLOCK_REALTIME), after = now > s->since ? now - s->since : 0;
	struct oplog_header h;
	int n;

	if (s->data->storefd < 0)
		return;
	n = events_list(s->data->storefd, &s->events);
	s->event_count = n > 0 ? (size_t)n : 0;
	while (oplog_next_refused(s->data->storefd, after, &h) == 1) {
		after = h.refused;
		s->refused++;
	}
}

void status_find_alarms(struct status *s)
{
	unsigned i;
	bool any_unknown = false;

	look_at_log(s);
	look_at_room(s);
	look_at_processes(s);
	look_at_snapshots(s);
	look_at_replicas(s);
	look_at_drill(s);
	look_at_events(s);
	s->verdict = CHECK_FINE;
	for (i = 0; i < s->alarm_count; i++) {
		any_unknown |= s->alarms[i].level == CHECK_UNKNOWN;
		if (s->alarms[i].level == CHECK_DAMAGE || s->verdict == CHECK_FINE)
			s->verdict = s->alarms[i].level;
	}
	if (any_unknown && s->verdict != CHECK_DAMAGE)
		s->verdict = CHECK_UNKNOWN;
}

/* ---- telling ---- */

void status_json_alarms(struct json *j, const struct status *s)
{
	static const char *const levels[] = {"fine", "warning", "damage", "unknown"};
	unsigned i;

	json_key(j, "alarms");
	json_begin(j, '[');
	for (i = 0; i < s->alarm_count; i++) {
		json_begin(j, '{');
		json_put_text(j, "level", levels[s->alarms[i].level]);
		json_put_text(j, "what", s->alarms[i].text);
		json_end(j, '}');
	}
	json_end(j, ']');
	json_put_uint(j, "disk_percent", s->disk_used);
}

void status_text_events(const struct status *s, bool utc)
{
	uint64_t now = clock_read(CLOCK_REALTIME);
	char time[40], text[600];
	bool first = true;
	size_t i;

	for (i = 0; i < s->event_count; i++) {
		const struct store_event *e = &s->events[i];

		/* Every stop of a process without a handler for SIGTERM is one. */
		if (e->time + s->since < now || !strcmp(e->name, "backend.ended"))
			continue;
		printf("%s%-14s%s%.19s%s ", terminal_colour(COLOUR_BOLD), first ? "events" : "",
		       terminal_colour(COLOUR_PLAIN), format_time(time, sizeof(time), e->time, utc),
		       utc ? "Z" : "");
		terminal_fit(text, sizeof(text), e->text, 0);
		printf("%s: %s\n", e->name, text);
		first = false;
	}
}

/* value;limit;; with nothing where there is no limit. */
static void put_age(const char *label, uint64_t since, uint64_t limit)
{
	uint64_t now = clock_read(CLOCK_REALTIME);

	if (!since)
		return;
	printf(" %s=%" PRIu64 "s;", label, now > since ? (now - since) / SECOND : 0);
	if (limit)
		printf("%" PRIu64, limit / SECOND);
}

void status_print_check(const struct status *s)
{
	static const char *const words[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
	unsigned i;

	printf("CHROMASHIM %s: ", words[s->verdict]);
	if (s->protected_size)
		printf("%u process%s protected", s->protected_size,
		       s->protected_size == 1 ? "" : "es");
	for (i = 0; i < s->alarm_count && i < SHOWN; i++)
		printf("%s%s", i || s->protected_size ? ", " : "", s->alarms[i].text);
	if (s->alarm_count > SHOWN)
		printf(", and %u more (chromashim status)", s->alarm_count - SHOWN);
	/* Performance data, as plugins give it after a bar. */
	printf(" | protected=%u records=%" PRIu64 "c lost=%" PRIu64 "c bytes=%" PRIu64
	       "B disk=%u%%;%u",
	       s->protected_size, s->records, s->lost, s->bytes, s->disk_used, s->disk_limit);
	put_age("snapshot_age", s->snapshots.newest, s->snapshots.limit);
	put_age("replica_age", status_replica_oldest(s), s->replica_limit);
	if (s->drill)
		put_age("drill_age", s->drill->good, s->drill_limit);
	if (s->drill && s->drill->restore_ns)
		printf(" restore=%.3fs", (double)s->drill->restore_ns / 1e9);
	printf(" crashes=%u refused=%u\n", count_events(s, "crash.found"), s->refused);
}
