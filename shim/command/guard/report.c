/* SPDX-License-Identifier: MIT
 *
 * What the guardian tells of the store: status.json and metrics.prom.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "core/base/checksum.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/json.h"
#include "core/base/owner.h"
#include "core/oplog/oplog.h"

#define METRICS_FILE "metrics.prom"
#define METRICS_MAX (64u << 10)
#define STATES 6
#define CALM (60 * SECOND) /* reports with no news are that far apart */

volatile sig_atomic_t guard_stopping;

struct facts {
	unsigned states[STATES];
	uint64_t newest, verified, oldest; /* ns */
	uint64_t newest_id, verified_id;
	uint64_t chunks, undo, room;
};

static void gather(struct guardian *g, struct facts *f)
{
	struct snapshots s = {.target = g->s.target};
	struct statvfs v;
	uint64_t *used;
	size_t i;

	memset(f, 0, sizeof(*f));
	f->room = UINT64_MAX;
	if (fstatvfs(g->s.target.storefd, &v) == 0)
		f->room = (uint64_t)v.f_bavail * v.f_frsize;
	if (snapshots_load(&s, SNAPSHOT_LOOK, false, 0) < 0)
		return;
	for (i = 0; i < s.count; i++) {
		const struct snapshot_header *h = &s.list[i].header;

		f->states[h->state < STATES ? h->state : 0]++;
		if (h->time > f->newest && h->state != SNAPSHOT_BROKEN) {
			f->newest = h->time;
			f->newest_id = h->id;
		}
		if (h->state != SNAPSHOT_VERIFIED)
			continue;
		f->oldest = f->oldest && f->oldest < h->time ? f->oldest : h->time;
		if (h->time > f->verified) {
			f->verified = h->time;
			f->verified_id = h->id;
		}
	}
	f->undo = s.pins.state ? s.pins.state->saved : 0;
	used = calloc(s.count + 1, sizeof(*used));
	if (used)
		snapshot_sizes(&s.store, s.list, s.count, NULL, used, &f->chunks);
	free(used);
	snapshots_unload(&s);
}

static FILE *publish_begin(struct file_publish *p, int dirfd, const char *name)
{
	FILE *out;
	int copy;

	if (file_publish_begin(p, dirfd, name, 0644) < 0)
		return NULL;
	copy = dup(p->fd);
	out = copy < 0 ? NULL : fdopen(copy, "w");
	if (out)
		return out;
	if (copy >= 0)
		close(copy);
	file_publish_abort(p);
	return NULL;
}

/* A report that cannot be written is no reason to stop. */
static void publish_end(struct file_publish *p, FILE *out)
{
	bool good = !ferror(out);

	if (fclose(out) == 0 && good && file_publish_commit_unsynced(p) == 0)
		return;
	file_publish_abort(p);
}

static void put_time(struct json *j, const char *key, uint64_t ns)
{
	char text[40];

	json_key(j, key);
	json_string(j, ns ? format_time_utc(text, sizeof(text), ns) : NULL);
}

static void put_states(struct json *j, const struct facts *f)
{
	unsigned i;

	json_key(j, "snapshots");
	json_begin(j, '{');
	for (i = SNAPSHOT_PINNED; i < STATES; i++)
		json_put_uint(j, snapshot_state_name(i), f->states[i]);
	json_end(j, '}');
}

static void write_status(const struct guardian *g, const struct facts *f, bool running)
{
	struct file_publish p;
	FILE *out = publish_begin(&p, g->s.target.storefd, STATUS_FILE);
	struct json j = {.out = out};

	if (!out)
		return;
	json_begin(&j, '{');
	json_put_uint(&j, "schema_version", SCHEMA_VERSION);
	put_time(&j, "time", clock_read(CLOCK_REALTIME));
	json_key(&j, "running");
	json_bool(&j, running);
	json_put_uint(&j, "pid", (uint64_t)getpid());
	json_put_uint(&j, "follows", (uint64_t)g->follow);
	put_time(&j, "started", g->started);
	json_put_uint(&j, "at_work_on", g->current);
	put_states(&j, f);
	put_time(&j, "newest", f->newest);
	json_put_uint(&j, "newest_id", f->newest_id);
	put_time(&j, "newest_verified", f->verified);
	json_put_uint(&j, "newest_verified_id", f->verified_id);
	json_put_uint(&j, "snapshot_bytes", f->chunks);
	json_put_uint(&j, "undo_bytes", f->undo);
	if (f->room != UINT64_MAX)
		json_put_uint(&j, "free_bytes", f->room);
	json_key(&j, "disk_low");
	json_bool(&j, g->disk_low);
	json_key(&j, "limit_reached");
	json_bool(&j, g->at_limit);
	json_key(&j, "error");
	json_string(&j, g->store_error ? strerror(-g->store_error) : NULL);
	json_put_uint(&j, "every_seconds", g->settings.every / SECOND);
	json_end(&j, '}');
	json_newline(&j);
	publish_end(&p, out);
}

/* directory="…": the files of several directories are collected in one place. */
static void put_directory(FILE *out, const struct guardian *g)
{
	char path[PATH_MAX];
	const char *p;

	if (!realpath(g->s.target.dir, path))
		snprintf(path, sizeof(path), "%s", g->s.target.dir);
	fputs("directory=\"", out);
	for (p = path; *p; p++)
		fprintf(out, *p == '\n' ? "\\n" : *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
	fputc('"', out);
}

static void metric(FILE *out, const struct guardian *g, const char *name, const char *type,
		   const char *help, double value)
{
	fprintf(out, "# HELP chromashim_%s %s\n# TYPE chromashim_%s %s\nchromashim_%s{", name, help,
		name, type, name);
	put_directory(out, g);
	fprintf(out, "} %.17g\n", value);
}

static void write_metrics(const struct guardian *g, const struct facts *f, bool running)
{
	struct file_publish p;
	FILE *out = publish_begin(&p, g->s.target.storefd, METRICS_FILE);
	unsigned i;

	if (!out)
		return;
	metric(out, g, "up", "gauge", "The guardian runs.", running);
	metric(out, g, "last_snapshot_timestamp_seconds", "gauge", "Moment of the newest snapshot.",
	       (double)f->newest / 1e9);
	metric(out, g, "last_verified_snapshot_timestamp_seconds", "gauge",
	       "Moment of the newest verified snapshot.", (double)f->verified / 1e9);
	metric(out, g, "oldest_restorable_timestamp_seconds", "gauge",
	       "Moment of the oldest verified snapshot.", (double)f->oldest / 1e9);
	fputs(
	    "# HELP chromashim_snapshots Snapshots by state.\n# TYPE chromashim_snapshots gauge\n",
	    out);
	for (i = SNAPSHOT_PINNED; i < STATES; i++) {
		fputs("chromashim_snapshots{", out);
		put_directory(out, g);
		fprintf(out, ",state=\"%s\"} %u\n", snapshot_state_name(i), f->states[i]);
	}
	metric(out, g, "store_bytes", "gauge", "Bytes of snapshots.", (double)f->chunks);
	metric(out, g, "undo_bytes", "gauge", "Bytes saved for what is only pinned.",
	       (double)f->undo);
	if (f->room != UINT64_MAX)
		metric(out, g, "free_bytes", "gauge", "Bytes free on the store's file system.",
		       (double)f->room);
	if (g->settings.prune.max_space)
		metric(out, g, "space_limit_bytes", "gauge", "Bytes that snapshots may take.",
		       (double)g->settings.prune.max_space);
	metric(out, g, "snapshots_taken_total", "counter", "Snapshots taken by the guardian.",
	       g->taken);
	metric(out, g, "snapshots_verified_total", "counter", "Snapshots found good.", g->verified);
	metric(out, g, "snapshots_broken_total", "counter", "Snapshots found broken.", g->broken);
	metric(out, g, "snapshots_removed_total", "counter", "Snapshots that no rule kept.",
	       g->removed);
	metric(out, g, "writers_refused_total", "counter",
	       "Processes that another one kept from writing.", g->refused);
	metric(out, g, "limit_reached", "gauge",
	       "A process has reached a limit of the library's, and what is beyond is unprotected.",
	       g->at_limit);
	publish_end(&p, out);
}

void guardian_report_death(int storefd)
{
	static const char up[] = "\nchromashim_up";
	int fd = file_open_at(storefd, METRICS_FILE);
	struct file_publish p;
	char *data = NULL, *at;
	size_t size = 0;

	if (fd >= 0 && file_read_all(fd, METRICS_MAX, &data, &size) < 0)
		data = NULL;
	if (fd >= 0)
		close(fd);
	at = data ? strstr(data, up) : NULL;
	at = at ? strchr(at + 1, '\n') : NULL; /* behind its label and its value */
	if (at && at[-1] == '1' && file_publish_begin(&p, storefd, METRICS_FILE, 0644) == 0) {
		at[-1] = '0';
		if (file_write_all(p.fd, data, size) < 0 || file_publish_commit(&p) < 0)
			file_publish_abort(&p);
	}
	free(data);
}

/* What the disk has free and pins have saved changes all the time: it alone is no news. */
static uint64_t news_of(const struct guardian *g, const struct facts *f, bool running)
{
	struct {
		struct facts facts;
		uint64_t current, flags[4];
		unsigned counters[6];
	} all;

	memset(&all, 0, sizeof(all));
	memcpy(&all.facts, f, sizeof(*f));
	all.facts.undo = all.facts.room = 0;
	all.current = g->current;
	all.flags[0] = running;
	all.flags[1] = g->disk_low;
	all.flags[2] = (uint64_t)g->store_error;
	all.flags[3] = g->at_limit;
	memcpy(all.counters,
	       (unsigned[]){g->copied, g->verified, g->broken, g->taken, g->removed, g->refused},
	       sizeof(all.counters));
	return checksum64(&all, sizeof(all), 0);
}

void guardian_report(struct guardian *g, bool running)
{
	uint64_t now = oplog_now(), news;
	struct facts f;

	gather(g, &f);
	news = news_of(g, &f, running);
	if (g->reported_at && news == g->reported && now < g->reported_at + CALM)
		return;
	write_status(g, &f, running);
	write_metrics(g, &f, running);
	g->reported = news;
	g->reported_at = now;
}

void guardian_step(void *guardian, uint64_t done, uint64_t total)
{
	struct guardian *g = guardian;

	(void)done, (void)total;
	if (!guard_stopping)
		return;
	/* What is half done is found by the next one. */
	guardian_tell(g, "guard.stop", 0, "told to stop");
	guardian_report(g, false);
	guardian_finish_hooks(g);
	exit(EXIT_DONE);
}
