/* SPDX-License-Identifier: MIT
 *
 * One drill, from choosing a snapshot to what is kept of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/progress.h"
#include "command/base/terminal.h"
#include "command/drill/drill.h"
#include "command/replica/replica.h"
#include "core/base/clock.h"
#include "core/oplog/oplog.h"
#include "core/snapshot/scrub.h"
#include "core/store/events.h"

#define LOCK_NAME "drill.lock"
#define WAIT_MS 10000
#define MORE (64u << 20) /* besides the snapshot: what Chroma makes when it opens it */

struct drill {
	struct snapshots *s;
	const struct drill_options *options;
	struct drill_note *note;
	struct drill_place place;
	struct manifest *m; /* in s->list, or what has come from the replica */
	struct manifest fetched;
	bool *hurt; /* of s->list */
	struct progress progress;
};

static void __attribute__((format(printf, 3, 4)))
outcome(struct drill *d, enum drill_outcome what, const char *format, ...)
{
	va_list ap;

	/* What was wrong first is told. */
	if (d->note->outcome == DRILL_FAILED)
		return;
	d->note->outcome = what;
	va_start(ap, format);
	vsnprintf(d->note->trouble, sizeof(d->note->trouble), format, ap);
	va_end(ap);
}

/* ---- told to stop ---- */

static void on_stop(int signal)
{
	(void)signal;
	drill_stopping = 1;
}

static void catch_signals(void)
{
	struct sigaction stop = {.sa_handler = on_stop};

	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
}

static void step(void *drill, uint64_t done, uint64_t total)
{
	struct drill *d = drill;

	if (drill_stopping) {
		if (d->place.dirfd >= 0)
			drill_place_close(&d->place);
		exit(EXIT_FAILED);
	}
	progress_step(&d->progress, done, total);
}

/* ---- which ---- */

static bool is_fit(const struct manifest *m, bool verified)
{
	return m->header.state == SNAPSHOT_VERIFIED ||
	       (!verified && m->header.state == SNAPSHOT_COMPLETE);
}

/* Any of those that a restore would take without a word; of those that are not verified yet only
 * where there are no others. */
static struct manifest *choose(struct snapshots *s)
{
	size_t fit[2] = {0, 0}, i, at;
	uint64_t number = 0;
	bool verified;

	for (i = 0; i < s->count; i++) {
		fit[0] += is_fit(&s->list[i], true);
		fit[1] += is_fit(&s->list[i], false);
	}
	verified = fit[0] > 0;
	if (!fit[!verified])
		return NULL;
	if (getrandom(&number, sizeof(number), GRND_NONBLOCK) < 0)
		number = clock_read(CLOCK_MONOTONIC);
	at = number % fit[!verified];
	for (i = 0; i < s->count; i++)
		if (is_fit(&s->list[i], verified) && at-- == 0)
			return &s->list[i];
	return NULL;
}

/* For the room that one of which nothing is known yet may need. */
static struct manifest *largest(struct snapshots *s)
{
	struct manifest *m = s->count ? &s->list[0] : NULL;
	size_t i;

	for (i = 1; i < s->count; i++)
		if (manifest_total_size(&s->list[i]) > manifest_total_size(m))
			m = &s->list[i];
	return m;
}

static void note_snapshot(struct drill *d)
{
	d->note->snapshot = d->m->header.id;
	d->note->snapshot_time = d->m->header.time;
	d->note->bytes = manifest_total_size(d->m);
	d->note->records = manifest_records(d->m);
}

/* ---- the steps ---- */

static void restore(struct drill *d)
{
	struct restore_options options = {.unsynced = true, .progress = step, .context = d};
	struct snapshot_trouble t = {{0}, {0}};
	uint64_t began = oplog_now();
	struct chunk_name bad;
	int r = restore_build(&d->s->store, d->m, d->place.dirfd, &options, &t, &bad);

	d->note->restore_ns = oplog_now() - began;
	if (r == -ENOSPC)
		outcome(d, DRILL_SKIPPED, "the room ran out while it was restored");
	else if (r < 0)
		outcome(d, DRILL_FAILED, "it cannot be restored: %s%s%s",
			t.file[0] ? t.file : "its manifest", t.file[0] ? ": " : "",
			t.detail[0] ? t.detail : strerror(-r));
}

/* What a replica has as its newest, unless another one is wanted. */
static void fetch(struct drill *d)
{
	struct replica_wanted wanted = {.from = d->options->from,
					.to =
					    d->options->snapshot ? d->options->snapshot : "latest",
					.key = d->options->key,
					.quiet = d->options->quiet};
	uint64_t began = oplog_now();
	int status = replica_restore(&wanted, d->place.dirfd, &d->fetched);

	d->note->restore_ns = oplog_now() - began;
	d->m = &d->fetched;
	note_snapshot(d);
	/* Without its manifest nothing is known of it: the place may be out of reach. */
	if (status && d->fetched.header.id)
		outcome(d, DRILL_FAILED, "it cannot be restored from %.200s", wanted.from);
	else if (status)
		outcome(d, DRILL_SKIPPED, "%.200s cannot be read", wanted.from);
}

static void check(struct drill *d)
{
	enum verify_verdict verdict;
	uint64_t began = oplog_now();
	char why[300];
	int r = verify_directory(d->place.dirfd, &verdict, why, sizeof(why));

	d->note->check_ns = oplog_now() - began;
	if (r < 0)
		outcome(d, DRILL_SKIPPED, "it cannot be checked: %s", strerror(-r));
	if (r < 0 || verdict == VERIFY_GOOD)
		return;
	outcome(d, DRILL_FAILED, "what was restored is not sound: %s", why);
	if (!d->options->from)
		d->hurt[d->m - d->s->list] = true;
}

static void ask(struct drill *d)
{
	struct drill_answers answers;
	uint64_t began = oplog_now();
	char path[64], real[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", d->place.dirfd);
	n = readlink(path, real, sizeof(real) - 1);
	if (n <= 0)
		return;
	real[n] = '\0';
	drill_ask(real, d->place.dirfd, d->options->engine, d->m, &answers);
	if (answers.release[0])
		d->note->open_ns = oplog_now() - began;
	strlcpy(d->note->chroma, answers.release, sizeof(d->note->chroma));
	d->note->compared = answers.compared;
	if (answers.failed)
		outcome(d, DRILL_FAILED, "%.380s", answers.trouble);
	else if (answers.trouble[0])
		strlcpy(d->note->trouble, answers.trouble, sizeof(d->note->trouble));
}

static void read_all(struct drill *d)
{
	struct scrub_result result;
	uint64_t began = oplog_now();
	int r = snapshot_scrub(&d->s->store, d->s->list, d->s->count, d->hurt, step, d, &result);

	d->note->read_ns = oplog_now() - began;
	d->note->chunks = result.chunks;
	d->note->damaged = result.damaged;
	if (r < 0)
		outcome(d, DRILL_SKIPPED, "not all chunks can be read: %s", strerror(-r));
	else if (result.damaged)
		outcome(d, DRILL_FAILED,
			"of the %" PRIu64 " chunks of all snapshots %" PRIu64 " are damaged; %s",
			result.chunks, result.damaged, result.first);
}

/* Those that need what is damaged are no longer called verified, and the next snapshot writes it
 * again. */
static void condemn(struct drill *d)
{
	struct snapshot_trouble t;
	struct manifest m;
	bool any = false;
	size_t i;

	for (i = 0; i < d->s->count; i++)
		any |= d->hurt[i];
	if (!any ||
	    snapshot_store_open(&d->s->store, d->s->data.storefd, SNAPSHOT_CHANGE, WAIT_MS) < 0)
		return;
	for (i = 0; i < d->s->count; i++) {
		/* As it is now, if it has not been removed meanwhile. */
		if (!d->hurt[i])
			continue;
		if (manifest_read(d->s->store.dirfd, d->s->list[i].header.id, &m) == 0)
			verify_snapshot(&d->s->store, &m, NULL, NULL, &t);
		manifest_free(&m);
	}
	snapshot_store_close(&d->s->store);
}

/* ---- the whole ---- */

static void work(struct drill *d)
{
	char why[300] = "";
	int r;

	r = drill_place_open(&d->place, &d->s->data, d->options->scratch, d->note->bytes + MORE,
			     why, sizeof(why));
	if (r < 0) {
		outcome(d, DRILL_SKIPPED, "it is restored nowhere: %s",
			why[0] ? why : strerror(-r));
	}
	progress_start(&d->progress, "restoring", d->options->quiet);
	if (r == 0 && d->options->from)
		fetch(d);
	else if (r == 0)
		restore(d);
	progress_end(&d->progress);
	if (!d->options->from) {
		progress_start(&d->progress, "reading", d->options->quiet);
		read_all(d);
		progress_end(&d->progress);
	}
	/* Others may go on: what is left is done with the copy. */
	snapshot_store_close(&d->s->store);
	if (r == 0 && !d->note->outcome)
		check(d);
	if (r == 0 && !d->note->outcome)
		ask(d);
	if (r == 0)
		drill_place_close(&d->place);
	if (!drill_stopping)
		condemn(d);
}

static void keep(struct drill *d)
{
	const char *name = d->options->from ? DRILL_REPLICA_NAME : DRILL_NAME;
	struct drill_note before;

	drill_note_read(d->s->data.storefd, name, &before);
	d->note->time = clock_read(CLOCK_REALTIME);
	if (!d->note->outcome)
		d->note->outcome = DRILL_GOOD;
	d->note->good = d->note->outcome == DRILL_GOOD ? d->note->time : before.good;
	d->note->failures = d->note->outcome == DRILL_FAILED ? before.failures + 1 : 0;
	drill_note_write(d->s->data.storefd, name, d->note);
	if (d->note->outcome == DRILL_FAILED)
		events_note(d->s->data.storefd, "drill.failed",
			    "a drill with snapshot %" PRIu64
			    " failed: %s. `chromashim %s list` says which snapshots %s",
			    d->note->snapshot, d->note->trouble,
			    d->options->from ? "replica" : "snapshot",
			    d->options->from ? "it has" : "are good");
}

/* True: nobody else is at it, or it cannot be told. *fd holds the lock. */
static bool lock_drill(const struct snapshots *s, int *fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	*fd = openat(s->data.storefd, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return *fd < 0 || fcntl(*fd, F_OFD_SETLK, &lock) == 0 ||
	       (errno != EAGAIN && errno != EACCES);
}

int drill_perform(struct snapshots *s, const struct drill_options *options, struct drill_note *out)
{
	struct drill d = {.s = s, .options = options, .note = out, .place = {.dirfd = -1}};
	bool named = options->snapshot && !options->from;
	long at = named ? snapshots_find(s, options->snapshot) : -1;
	int lock;

	memset(out, 0, sizeof(*out));
	if (named && at < 0)
		return EXIT_NOT_FOUND;
	catch_signals();
	if (!lock_drill(s, &lock)) {
		close(lock);
		return fail(EXIT_BUSY, 0, "Wait until it is done.",
			    "another drill is under way in '%s'", s->data.dir);
	}
	d.m = named ? &s->list[at] : options->from ? largest(s) : choose(s);
	d.hurt = calloc(s->count + 1, sizeof(*d.hurt));
	if (!d.m || !d.hurt) {
		outcome(&d, DRILL_SKIPPED, "there is no snapshot to try it with");
	} else {
		note_snapshot(&d);
		work(&d);
	}
	if (!drill_stopping)
		keep(&d);
	manifest_free(&d.fetched);
	free(d.hurt);
	if (lock >= 0)
		close(lock);
	return drill_stopping ? EXIT_FAILED : 0;
}
