/* SPDX-License-Identifier: MIT
 *
 * The guardian's numbers, as Prometheus reads them.
 */
#include "command/guard/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/owner.h"
#include "core/replica/state.h"
#include "core/store/drill.h"
#include "core/store/events.h"

#define LABEL_SIZE (2 * PATH_MAX + 32)
#define ANOTHER_SECONDS 600 /* a guardian writes every 15, unless it has much to do */

/* ---- the files ---- */

FILE *metrics_begin(struct file_publish *p, int dirfd, const char *name)
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
void metrics_end(struct file_publish *p, FILE *out)
{
	bool good = !ferror(out);

	if (fclose(out) == 0 && good && file_publish_commit_unsynced(p) == 0)
		return;
	file_publish_abort(p);
}

/* directory="…": the files of several directories are collected in one place. */
static void make_label(char *out, size_t room, const struct data_directory *t)
{
	char path[PATH_MAX];
	FILE *stream = fmemopen(out, room, "w");

	if (!realpath(t->dir, path))
		snprintf(path, sizeof(path), "%s", t->dir);
	out[0] = '\0';
	if (!stream)
		return;
	fputs("directory=\"", stream);
	metrics_put_value(stream, path);
	fputc('"', stream);
	fclose(stream);
}

static const char up[] = "\nchromashim_up{";

/* Behind "chromashim_up{", in what a guardian wrote. NULL: it wrote none of this. */
static char *find_up(int dirfd, const char *name, char **data, size_t *size)
{
	int fd = file_open_at(dirfd, name);
	char *at;

	*data = NULL;
	if (fd >= 0 && file_read_all(fd, METRICS_MAX, data, size) < 0)
		*data = NULL;
	if (fd >= 0)
		close(fd);
	at = *data ? strstr(*data, up) : NULL;
	return at ? at + sizeof(up) - 1 : NULL;
}

/* One that goes on, or a directory that was moved would find its own file taken. */
static bool is_of_another(int dirfd, const char *name, const struct data_directory *t)
{
	char label[LABEL_SIZE], *data, *at;
	struct stat st;
	size_t size;
	bool other;

	if (fstatat(dirfd, name, &st, 0) < 0 || time(NULL) - st.st_mtime > ANOTHER_SECONDS)
		return false;
	make_label(label, sizeof(label), t);
	at = find_up(dirfd, name, &data, &size);
	other = at && strncmp(at, label, strlen(label)) != 0;
	free(data);
	return other;
}

static void make_own_name(char name[64], const struct data_directory *t)
{
	snprintf(name, 64, "chromashim-%02x%02x%02x%02x%02x%02x.prom", t->store_id[0],
		 t->store_id[1], t->store_id[2], t->store_id[3], t->store_id[4], t->store_id[5]);
}

/*
 * Where CHROMASHIM_METRICS is: its directory, and the name in that. Of a directory that others
 * write to as well, a name of one's own; and beside a file that another one writes, too. A
 * descriptor, or -ENODATA: it is not set, or -errno.
 */
static int open_place(const char *setting, const struct data_directory *t, char name[64])
{
	char path[PATH_MAX], *slash;
	struct stat st;
	int fd;

	if (!*setting)
		return -ENODATA;
	snprintf(path, sizeof(path), "%s", setting);
	make_own_name(name, t);
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		slash = strrchr(path, '/');
		if (!slash || strlen(slash + 1) >= 64 || !slash[1])
			return -EINVAL;
		snprintf(name, 64, "%s", slash + 1);
		slash[slash == path] = '\0';
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && is_of_another(fd, name, t))
		make_own_name(name, t);
	return fd < 0 ? -errno : fd;
}

/* ---- one number ---- */

static void metric(FILE *out, const char *label, const char *name, const char *type,
		   const char *help, double value)
{
	fprintf(out, "# HELP chromashim_%s %s\n# TYPE chromashim_%s %s\nchromashim_%s{%s} %.17g\n",
		name, help, name, type, name, label, value);
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP chromashim_%s %s\n# TYPE chromashim_%s %s\n", name, help, name, type);
}

/* ---- groups of them ---- */

static void put_snapshots(FILE *out, const char *label, const struct guardian *g,
			  const struct facts *f)
{
	unsigned i;

	metric(out, label, "last_snapshot_timestamp_seconds", "gauge",
	       "Moment of the newest snapshot.", (double)f->newest / 1e9);
	metric(out, label, "last_verified_snapshot_timestamp_seconds", "gauge",
	       "Moment of the newest verified snapshot.", (double)f->verified / 1e9);
	metric(out, label, "oldest_restorable_timestamp_seconds", "gauge",
	       "Moment of the oldest verified snapshot.", (double)f->oldest / 1e9);
	metric(out, label, "snapshot_age_limit_seconds", "gauge",
	       "Older than that the newest verified snapshot should not be; 0: any age is right.",
	       (double)guard_snapshot_limit(&g->settings) / 1e9);
	head(out, "snapshots", "gauge", "Snapshots by state.");
	for (i = SNAPSHOT_PINNED; i < GUARD_STATES; i++)
		fprintf(out, "chromashim_snapshots{%s,state=\"%s\"} %u\n", label,
			snapshot_state_name(i), f->states[i]);
	if (f->judged)
		metric(out, label, "check_verdict", "gauge",
		       "What the last check of a snapshot found, as `check --full` says it: 0 "
		       "sound, 2 damage.",
		       f->is_judged_good ? 0 : 2);
	metric(out, label, "store_bytes", "gauge", "Bytes of snapshots.", (double)f->chunks);
	metric(out, label, "undo_bytes", "gauge", "Bytes saved for what is only pinned.",
	       (double)f->undo);
	if (g->settings.prune.max_space)
		metric(out, label, "space_limit_bytes", "gauge", "Bytes that snapshots may take.",
		       (double)g->settings.prune.max_space);
}

static void put_counters(FILE *out, const char *label, const struct guardian *g)
{
	metric(out, label, "snapshots_taken_total", "counter", "Snapshots taken by the guardian.",
	       g->taken);
	metric(out, label, "snapshots_verified_total", "counter", "Snapshots found good.",
	       g->verified);
	metric(out, label, "snapshots_broken_total", "counter", "Snapshots found broken.",
	       g->broken);
	metric(out, label, "snapshots_removed_total", "counter", "Snapshots that no rule kept.",
	       g->removed);
	metric(out, label, "writers_refused_total", "counter",
	       "Processes that another one kept from writing.", g->refused);
	metric(out, label, "limit_reached", "gauge",
	       "A process has reached a limit of the library's, and what is beyond is "
	       "unprotected.",
	       g->at_limit);
	metric(out, label, "log_records_lost", "gauge",
	       "Records that never got into the log, as far as it goes back.", (double)g->log.lost);
	metric(out, label, "protected_processes", "gauge",
	       "Living processes with the library that work on the directory.", g->log.processes);
}

static void put_disk(FILE *out, const char *label, const struct guardian *g, const struct facts *f)
{
	if (f->room != UINT64_MAX)
		metric(out, label, "free_bytes", "gauge", "Bytes free on the store's file system.",
		       (double)f->room);
	metric(out, label, "disk_used_ratio", "gauge", "How full the data's file system is.",
	       guard_disk_percent(g->s.data.dirfd) / 100.0);
	metric(out, label, "disk_warn_ratio", "gauge", "CHROMASHIM_WARN_FULL; 0: none.",
	       g->settings.warn_full / 100.0);
	metric(out, label, "disk_low", "gauge", "New writes are refused soon, or already.",
	       g->disk_low);
}

static void put_drill(FILE *out, const char *label, const struct guardian *g)
{
	struct drill_note n;

	metric(out, label, "drill_period_seconds", "gauge", "CHROMASHIM_DRILL; 0: no drills.",
	       (double)g->settings.drill / 1e9);
	if (drill_note_read(g->s.data.storefd, DRILL_NAME, &n) < 0 || !n.time)
		return;
	metric(out, label, "last_drill_timestamp_seconds", "gauge", "When the last drill ended.",
	       (double)n.time / 1e9);
	metric(out, label, "last_good_drill_timestamp_seconds", "gauge",
	       "When the last drill that found all good ended; 0: none has.", (double)n.good / 1e9);
	metric(out, label, "drill_failed", "gauge", "The last drill failed.",
	       n.outcome == DRILL_FAILED);
	metric(out, label, "restore_seconds", "gauge",
	       "How long the last drill took to restore a snapshot.", (double)n.restore_ns / 1e9);
}

/* The newest of each kind that the store still has. */
static void put_events(FILE *out, const char *label, const struct guardian *g)
{
	struct store_event *all = NULL;
	int n = events_list(g->s.data.storefd, &all), i, k;

	if (n > 0)
		head(out, "last_event_timestamp_seconds", "gauge",
		     "When an event of this name was last told.");
	for (i = n - 1; i >= 0; i--) {
		for (k = n - 1; k > i && strcmp(all[k].name, all[i].name); k--)
			;
		if (k > i)
			continue;
		fprintf(out, "chromashim_last_event_timestamp_seconds{%s,event=\"", label);
		metrics_put_value(out, all[i].name);
		fprintf(out, "\"} %.17g\n", (double)all[i].time / 1e9);
	}
	free(all);
}

static void put_replica(FILE *out, const char *label, const char *target, const char *name,
			double value)
{
	fprintf(out, "chromashim_%s{%s,replica=\"", name, label);
	metrics_put_value(out, target);
	fprintf(out, "\"} %.17g\n", value);
}

static void put_replicas(FILE *out, const char *label, const struct guardian *g)
{
	const char *setting = config_get(&g->settings.config, CONFIG_REPLICA);
	struct replica_targets *t = calloc(1, sizeof(*t));
	struct replica_state *s = calloc(REPLICA_TARGETS, sizeof(*s));
	unsigned i, count = 0;

	if (t && s && replica_targets_parse(t, setting, NULL) == 0)
		count = t->count;
	for (i = 0; i < count; i++)
		replica_state_read(g->s.data.storefd, t->all[i].text, &s[i]);
	if (count)
		head(out, "replica_last_snapshot_timestamp_seconds", "gauge",
		     "Moment of the newest snapshot that is in the replica in full; 0: none.");
	for (i = 0; i < count; i++)
		put_replica(out, label, t->all[i].text, "replica_last_snapshot_timestamp_seconds",
			    (double)s[i].snapshot_time / 1e9);
	if (count)
		head(out, "replica_failures", "gauge", "Attempts in turn that failed.");
	for (i = 0; i < count; i++)
		put_replica(out, label, t->all[i].text, "replica_failures", (double)s[i].failures);
	free(t);
	free(s);
}

static void put_histogram(FILE *out, const char *label, const char *name, const char *help,
			  const struct guard_histogram *h)
{
	uint64_t below = 0;
	unsigned i;

	head(out, name, "histogram", help);
	for (i = 0; i < GUARD_BUCKETS; i++) {
		below += h->buckets[i];
		fprintf(out, "chromashim_%s_bucket{%s,le=\"%g\"} %" PRIu64 "\n", name, label,
			guard_bucket_ends[i], below);
	}
	fprintf(out, "chromashim_%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, label, h->count);
	fprintf(out, "chromashim_%s_sum{%s} %.17g\nchromashim_%s_count{%s} %" PRIu64 "\n", name,
		label, (double)h->sum / 1e9, name, label, h->count);
}

/* ---- all of it ---- */

static void put_all(FILE *out, const struct guardian *g, const struct facts *f, bool running)
{
	char label[LABEL_SIZE];

	make_label(label, sizeof(label), &g->s.data);
	metric(out, label, "up", "gauge", "The guardian runs.", running);
	metric(out, label, "report_timestamp_seconds", "gauge",
	       "When this was written: every minute, as long as the guardian runs.",
	       (double)clock_read(CLOCK_REALTIME) / 1e9);
	put_snapshots(out, label, g, f);
	put_counters(out, label, g);
	put_disk(out, label, g, f);
	put_drill(out, label, g);
	put_replicas(out, label, g);
	put_events(out, label, g);
	put_histogram(out, label, "commit_seconds", "Durations of transactions that committed.",
		      &g->log.commits);
	put_histogram(out, label, "sync_seconds", "Durations of the backend's syncs.",
		      &g->log.syncs);
	metrics_write_sizes(out, g, label);
}

void metrics_write(struct guardian *g, const struct facts *f, bool running)
{
	struct file_publish p;
	char name[64], own[64];
	FILE *out = metrics_begin(&p, g->s.data.storefd, METRICS_FILE);
	int fd;

	if (out) {
		put_all(out, g, f, running);
		metrics_end(&p, out);
	}
	fd = open_place(config_get(&g->settings.config, CONFIG_METRICS), &g->s.data, name);
	if (fd == -ENODATA)
		return;
	owner_pause();
	out = fd < 0 ? NULL : metrics_begin(&p, fd, name);
	if (out) {
		fchmod(p.fd, 0644); /* whatever the umask is: a collector is another user */
		put_all(out, g, f, running);
		metrics_end(&p, out);
		make_own_name(own, &g->s.data);
		if (strcmp(name, own) != 0) /* while another one wrote this file */
			unlinkat(fd, own, 0);
	} else if (!g->metrics_told) {
		guardian_say(g, "CHROMASHIM_METRICS cannot be written: %s",
			     strerror(fd < 0 ? -fd : errno));
		g->metrics_told = true;
	}
	owner_resume();
	if (fd >= 0)
		close(fd);
}

/* "chromashim_up{…} 1" becomes 0. */
static void take_down(int dirfd, const char *name, const struct data_directory *t)
{
	char label[LABEL_SIZE], *data, *at;
	struct file_publish p;
	size_t size;

	make_label(label, sizeof(label), t);
	at = find_up(dirfd, name, &data, &size);
	at = at && strncmp(at, label, strlen(label)) == 0 ? strchr(at, '\n') : NULL;
	if (at && at[-1] == '1' && file_publish_begin(&p, dirfd, name, 0644) == 0) {
		at[-1] = '0';
		if (file_write_all(p.fd, data, size) < 0 || file_publish_commit(&p) < 0)
			file_publish_abort(&p);
	}
	free(data);
}

void guardian_report_death(const struct data_directory *t)
{
	struct guard_settings settings;
	char name[64];
	int fd;

	take_down(t->storefd, METRICS_FILE, t);
	guard_settings_read(&settings, t->storefd);
	fd = open_place(config_get(&settings.config, CONFIG_METRICS), t, name);
	guard_settings_free(&settings);
	if (fd < 0)
		return;
	owner_pause();
	take_down(fd, name, t);
	owner_resume();
	close(fd);
}
