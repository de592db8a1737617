/* SPDX-License-Identifier: MIT
 *
 * What the guardian tells of the store: status.json and metrics.prom.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "command/guard/metrics.h"
#include "core/base/checksum.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/json.h"
#include "core/oplog/oplog.h"
#include "core/replica/state.h"
#include "core/store/drill.h"

#define CALM (60 * SECOND) /* reports with no news are that far apart */

volatile sig_atomic_t guard_stopping;

static void gather(struct guardian *g, struct facts *f)
{
	struct snapshots s = {.data = g->s.data, .only_heads = true};
	uint64_t now = clock_read(CLOCK_REALTIME);
	struct statvfs v;
	size_t i;

	memset(f, 0, sizeof(*f));
	f->room = UINT64_MAX;
	if (fstatvfs(g->s.data.storefd, &v) == 0)
		f->room = (uint64_t)v.f_bavail * v.f_frsize;
	if (snapshots_load(&s, SNAPSHOT_LOOK, false, 0) < 0)
		return;
	for (i = 0; i < s.count; i++) {
		const struct snapshot_header *h = &s.list[i].header;

		f->states[h->state < GUARD_STATES ? h->state : 0]++;
		if (clock_was_ahead(h->time, now))
			continue;
		f->first = f->first && f->first < h->time ? f->first : h->time;
		if (h->time > f->newest && h->state != SNAPSHOT_BROKEN) {
			f->newest = h->time;
			f->newest_id = h->id;
		}
		if (h->verified && h->time > f->judged) {
			f->judged = h->time;
			f->is_judged_good = h->state == SNAPSHOT_VERIFIED;
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
	snapshot_bytes(&s.store, &f->chunks);
	snapshots_unload(&s);
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
	for (i = SNAPSHOT_PINNED; i < GUARD_STATES; i++)
		json_put_uint(j, snapshot_state_name(i), f->states[i]);
	json_end(j, '}');
}

static void put_drill(struct json *j, const struct guardian *g)
{
	static const char *const outcomes[] = {"none", "good", "failed", "skipped"};
	struct drill_note n;

	drill_note_read(g->s.data.storefd, DRILL_NAME, &n);
	json_key(j, "drill");
	json_begin(j, '{');
	json_put_text(j, "outcome", outcomes[n.outcome & 3]);
	put_time(j, "time", n.time);
	put_time(j, "last_good", n.good);
	json_put_uint(j, "snapshot", n.snapshot);
	json_put_uint(j, "restore_ns", n.restore_ns);
	json_put_text(j, "trouble", n.trouble);
	json_end(j, '}');
}

static void put_replicas(struct json *j, const struct guardian *g)
{
	struct replica_targets *t = calloc(1, sizeof(*t));
	struct replica_state state;
	unsigned i;

	json_key(j, "replicas");
	json_begin(j, '[');
	if (t &&
	    replica_targets_parse(t, config_get(&g->settings.config, CONFIG_REPLICA), NULL) < 0)
		t->count = 0;
	for (i = 0; t && i < t->count; i++) {
		replica_state_read(g->s.data.storefd, t->all[i].text, &state);
		json_begin(j, '{');
		json_put_text(j, "target", t->all[i].text);
		json_put_uint(j, "snapshot", state.snapshot);
		put_time(j, "snapshot_time", state.snapshot_time);
		json_put_uint(j, "failures", state.failures);
		json_put_text(j, "error", state.error);
		json_end(j, '}');
	}
	json_end(j, ']');
	free(t);
}

static void write_status(const struct guardian *g, const struct facts *f, bool running)
{
	struct file_publish p;
	FILE *out = metrics_begin(&p, g->s.data.storefd, STATUS_FILE);
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
	json_put_uint(&j, "disk_percent", guard_disk_percent(g->s.data.dirfd));
	json_key(&j, "overdue");
	json_bool(&j, g->overdue);
	put_drill(&j, g);
	put_replicas(&j, g);
	json_key(&j, "limit_reached");
	json_bool(&j, g->at_limit);
	json_key(&j, "error");
	json_string(&j, g->store_error ? strerror(-g->store_error) : NULL);
	json_put_uint(&j, "every_seconds", g->settings.every / SECOND);
	json_end(&j, '}');
	json_newline(&j);
	metrics_end(&p, out);
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
	if (running) {
		guardian_look_at_age(g, f.first, f.verified);
		guardian_look_at_drills(g, f.first);
	}
	news = news_of(g, &f, running);
	if (g->reported_at && news == g->reported && now < g->reported_at + CALM)
		return;
	write_status(g, &f, running);
	metrics_read_log(g, !running);
	metrics_write(g, &f, running);
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
