/* SPDX-License-Identifier: MIT
 *
 * Checking a snapshot by restoring it.
 */
#include "core/check/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/check/diagnose.h"
#include "core/sqlite/database.h"

#define SCRATCH "verify"

/* ---- a directory ---- */

struct findings {
	char *why;
	size_t room;
	bool has_damage;
	bool is_starved; /* something could not be looked at for want of memory */
};

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
	*out = VERIFY_UNKNOWN;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", dirfd);
	r = diagnose_directory(path, dirfd, &options, &summary);
	if (r == 0)
		*out = summary.findings[DIAGNOSE_DAMAGE]    ? VERIFY_DAMAGED
		       : summary.findings[DIAGNOSE_UNKNOWN] ? VERIFY_UNKNOWN
							    : VERIFY_GOOD;
	remove_empty_wal(dirfd);
	/* Says nothing about the directory: to be tried again. */
	return r == 0 && all.is_starved && *out == VERIFY_UNKNOWN ? -ENOMEM : r;
}

/* ---- a snapshot ---- */

static bool is_chunk_trouble(int r)
{
	return r == -ENOENT || r == -ENODATA || r == -EBADMSG || r == -EPROTONOSUPPORT;
}

static int verify_judge(struct manifest *m, int dirfd)
{
	enum verify_verdict verdict;
	char why[512];
	int r = verify_directory(dirfd, &verdict, why, sizeof(why));

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
	struct restore_options options = {
	    .unsynced = true, .progress = progress, .context = context};
	bool for_good = is_broken_for_good(m);
	struct chunk_name bad;
	int dirfd = snapshot_scratch(s, SCRATCH), r;

	if (dirfd < 0)
		return dirfd;
	r = restore_build(s, m, dirfd, &options, t, &bad);
	if (is_chunk_trouble(r) && !chunk_is_zero(&bad)) {
		if (r == -ENODATA || r == -EBADMSG)
			chunks_set_aside(&s->chunks, &bad);
		r = set_broken(m, t);
		for_good = false;
	} else if (r == 0 && !for_good) {
		r = verify_judge(m, dirfd);
	}
	close(dirfd);
	snapshot_scratch_remove(s, SCRATCH);
	if (r < 0 || for_good)
		return r;
	m->header.verified = clock_read(CLOCK_REALTIME);
	return manifest_write(s->dirfd, m);
}
