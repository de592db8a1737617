/* SPDX-License-Identifier: MIT
 *
 * Checking a snapshot, and what was restored of one.
 */
#include "core/check/verify.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/check/diagnose.h"
#include "core/sqlite/database.h"

/* ---- a directory ---- */

struct findings {
	char *why;
	size_t room;
	bool has_damage;
	bool is_starved; /* something could not be looked at for want of memory */
	const struct restore_options *step; /* whose progress is called, too; NULL: none */
};

static void note_step(void *context, uint64_t done, uint64_t total)
{
	const struct findings *all = context;

	if (all->step->progress)
		all->step->progress(all->step->context, done, total);
}

/* "integrity_check: out of memory": what failed may stand before it. */
static bool is_starved(const struct diagnose_finding *f)
{
	const char *const words[] = {strerror(ENOMEM), sqlite3_errstr(SQLITE_NOMEM)};
	size_t n = f->detail ? strlen(f->detail) : 0, i;

	for (i = 0; i < 2; i++) {
		size_t k = strlen(words[i]);

		if (f->code == DIAGNOSE_UNREADABLE && n >= k &&
		    !strcmp(f->detail + n - k, words[i]))
			return true;
	}
	return false;
}

/* The first damage, or else the first that could not be checked. */
static void note_finding(void *context, const struct diagnose_finding *f)
{
	enum diagnose_severity severity = diagnose_kinds[f->code].severity;
	struct findings *all = context;

	if (severity != DIAGNOSE_DAMAGE && severity != DIAGNOSE_UNKNOWN)
		return;
	all->is_starved = all->is_starved || is_starved(f);
	if (all->has_damage || (severity == DIAGNOSE_UNKNOWN && all->why[0]))
		return;
	all->has_damage = severity == DIAGNOSE_DAMAGE;
	snprintf(all->why, all->room, "%s%s%s%s%s%s%s", diagnose_kinds[f->code].code,
		 f->collection ? ": collection " : "", f->collection ? f->collection : "",
		 f->file ? ": " : "", f->file ? f->file : "", f->detail ? ": " : "",
		 f->detail ? f->detail : "");
}

/* Says nothing about what was looked at if memory was short: to be tried again. */
static int verdict_of(int r, const struct findings *all, const struct diagnose_summary *summary,
		      enum verify_verdict *out)
{
	*out = VERIFY_UNKNOWN;
	if (r == 0)
		*out = summary->findings[DIAGNOSE_DAMAGE]    ? VERIFY_DAMAGED
		       : summary->findings[DIAGNOSE_UNKNOWN] ? VERIFY_UNKNOWN
							     : VERIFY_GOOD;
	return r == 0 && all->is_starved && *out == VERIFY_UNKNOWN ? -ENOMEM : r;
}

/* A reader of a database in WAL mode makes these, and may not remove them. */
static void remove_empty_wal(int dirfd)
{
	struct stat st;

	if (fstatat(dirfd, CHROMA_DATABASE "-wal", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size > 0)
		return;
	unlinkat(dirfd, CHROMA_DATABASE "-wal", 0);
	unlinkat(dirfd, CHROMA_DATABASE "-shm", 0);
}

int verify_directory(int dirfd, enum verify_verdict *out, char *why, size_t room)
{
	struct findings all = {.why = why, .room = room};
	struct diagnose_options options = {.full = true, .report = note_finding, .context = &all};
	struct diagnose_summary summary;
	char path[48];
	int r;

	why[0] = '\0';
	snprintf(path, sizeof(path), "/proc/self/fd/%d", dirfd);
	r = diagnose_directory(path, dirfd, &options, &summary);
	remove_empty_wal(dirfd);
	return verdict_of(r, &all, &summary, out);
}

/* ---- a snapshot ---- */

static bool is_chunk_trouble(int r)
{
	return r == -ENOENT || r == -ENODATA || r == -EBADMSG || r == -EPROTONOSUPPORT;
}

static int verify_judge(struct snapshot_store *s, struct manifest *m,
			const struct restore_options *step)
{
	char why[512] = "";
	struct findings all = {.why = why, .room = sizeof(why), .step = step};
	struct diagnose_options options = {
	    .full = true, .report = note_finding, .progress = note_step, .context = &all};
	struct diagnose_summary summary;
	enum verify_verdict verdict;
	int r = verdict_of(diagnose_snapshot(s, m, &options, &summary), &all, &summary, &verdict);

	if (r < 0)
		return r;
	m->header.state = verdict == VERIFY_GOOD      ? SNAPSHOT_VERIFIED
			  : verdict == VERIFY_DAMAGED ? SNAPSHOT_BROKEN
						      : SNAPSHOT_COMPLETE;
	return manifest_set_text(&m->trouble, why);
}

/* What was wrong when it was taken does not get right by looking at it. */
static bool is_broken_for_good(const struct manifest *m)
{
	return m->header.state == SNAPSHOT_BROKEN && m->header.verified == 0;
}

static int set_broken(struct manifest *m, const struct snapshot_trouble *t)
{
	char text[sizeof(t->file) + sizeof(t->detail) + 4];

	m->header.state = SNAPSHOT_BROKEN;
	snprintf(text, sizeof(text), "%s: %s", t->file, t->detail);
	return manifest_set_text(&m->trouble, text);
}

int verify_snapshot(struct snapshot_store *s, struct manifest *m, snapshot_progress_fn *progress,
		    void *context, struct snapshot_trouble *t)
{
	struct restore_options options = {.progress = progress, .context = context};
	bool for_good = is_broken_for_good(m), is_bad;
	struct chunk_name bad;
	int r, back;

	assert(s->access >= SNAPSHOT_ADD); /* the verdict goes into the manifest */
	snapshot_store_share(s);
	r = restore_try(s, m, &options, t, &bad);
	is_bad = is_chunk_trouble(r) && !chunk_is_zero(&bad);
	if (r == 0 && !for_good)
		r = verify_judge(s, m, &options);
	back = snapshot_store_unshare(s);
	if (back < 0)
		return back;
	if (is_bad) {
		if (r == -ENODATA || r == -EBADMSG)
			chunks_set_aside(&s->chunks, &bad);
		r = set_broken(m, t);
		for_good = false;
	}
	if (r < 0 || for_good)
		return r;
	m->header.verified = clock_read(CLOCK_REALTIME);
	return manifest_write(s->dirfd, m);
}
