/* SPDX-License-Identifier: MIT
 *
 * What the verbs about snapshots share.
 */
#include "command/snapshots.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/processes.h"
#include "command/terminal.h"
#include "core/fileio.h"
#include "core/oplog.h"
#include "core/rollback.h"
#include "core/sqlite_page.h"

#define WAIT_MS 10000 /* for another chromashim that changes the store */

/* ---- opening ---- */

static int fail_open(const struct snapshots *s, int r)
{
	if (r == -EBUSY)
		return fail(EXIT_BUSY, 0, "Wait until it is done, and try again.",
			    "another chromashim is at work on the snapshots in '%s'",
			    s->target.store);
	if (r == -ENOENT)
		return fail(EXIT_NO_STORE, 0, "`chromashim snapshot create` takes one.",
			    "there are no snapshots in '%s'", s->target.store);
	return fail(exit_code_of(r), r,
		    r == -ENOSPC   ? "Make room on that file system."
		    : r == -EACCES ? "Run this as the owner of the data directory."
				   : "The store has to be a directory that can be written.",
		    "cannot open the snapshots in '%s'", s->target.store);
}

static int make_store(struct target *t)
{
	const char *moved = getenv("CHROMASHIM_STORE");
	struct stat owner;
	int r;

	if (t->storefd >= 0)
		return 0;
	r = moved && *moved ? mkdir(t->store, 0700) : mkdirat(t->dirfd, STORE_NAME, 0700);
	if (r < 0 && errno != EEXIST)
		return -errno;
	t->storefd = open(t->store, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (t->storefd < 0)
		return -errno;
	/* Made by root, it must be the backend's all the same. */
	if (r == 0 && geteuid() == 0 && fstat(t->dirfd, &owner) == 0 &&
	    fchown(t->storefd, owner.st_uid, owner.st_gid) < 0)
		return -errno;
	return 0;
}

int snapshots_open(struct snapshots *s, const char *dir, enum snapshot_access access, bool make)
{
	int status, r;

	memset(s, 0, sizeof(*s));
	status = target_open(&s->target, dir, false);
	if (status)
		return status;
	r = make ? make_store(&s->target) : s->target.storefd < 0 ? -ENOENT : 0;
	if (r == 0 && access == SNAPSHOT_CHANGE && !make &&
	    faccessat(s->target.storefd, SNAPSHOTS_DIR, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		r = -errno;
	if (r == 0)
		r = snapshot_store_open(&s->store, s->target.storefd, access, WAIT_MS);
	if (r == 0) {
		r = snapshot_list(&s->store, &s->list, &s->count);
		if (r < 0)
			snapshot_store_close(&s->store);
	}
	if (r == 0)
		return 0;
	status = fail_open(s, r);
	target_close(&s->target);
	return status;
}

void snapshots_close(struct snapshots *s)
{
	snapshot_list_free(s->list, s->count);
	snapshot_store_close(&s->store);
	target_close(&s->target);
}

/* ---- which one ---- */

static bool is_restorable(const struct manifest *m)
{
	return m->header.state == SNAPSHOT_VERIFIED || m->header.state == SNAPSHOT_COMPLETE;
}

static long find_number(const struct snapshots *s, const char *spec)
{
	uint64_t id = strtoull(spec, NULL, 10);
	size_t i;

	for (i = 0; i < s->count; i++)
		if (s->list[i].header.id == id)
			return (long)i;
	return -1;
}

/* What a restore kept is the state that somebody wanted to get rid of. */
static bool is_offered(const struct manifest *m)
{
	return is_restorable(m) && strcmp(m->reason, "restore") != 0;
}

/* The newest of those on offer not after `time`, with that reason if one is given. */
static long find_newest(const struct snapshots *s, uint64_t time, const char *reason)
{
	long i, found = -1;

	for (i = 0; i < (long)s->count; i++) {
		const struct manifest *m = &s->list[i];

		if (is_offered(m) && m->header.time <= time &&
		    (!reason || !strcmp(m->reason, reason)) &&
		    (found < 0 || m->header.time >= s->list[found].header.time))
			found = i;
	}
	return found;
}

long snapshots_find(const struct snapshots *s, const char *spec)
{
	uint64_t time;
	long found;

	if (*spec && spec[strspn(spec, "0123456789")] == '\0') {
		found = find_number(s, spec);
	} else if (!strcmp(spec, "latest")) {
		found = find_newest(s, UINT64_MAX, NULL);
	} else if (!strcmp(spec, "before-schema")) {
		found = find_newest(s, UINT64_MAX, "schema");
	} else if (parse_time(spec, &time)) {
		found = find_newest(s, time, NULL);
	} else {
		fail(EXIT_USAGE, 0,
		     "Give a number, latest, before-schema, an age as @10m, or a time as "
		     "2026-01-31T10:00.",
		     "'%s' names no snapshot", spec);
		return -1;
	}
	if (found < 0)
		fail(EXIT_NOT_FOUND, 0, "`chromashim snapshot list` shows what there is.",
		     "there is no snapshot '%s' in '%s'", spec, s->target.store);
	return found;
}

/* ---- telling and asking ---- */

int snapshots_fail(const struct snapshots *s, int error, const struct snapshot_trouble *t,
		   const char *what)
{
	const char *todo = "`chromashim check` tells more about the directory.";
	bool has_detail = t->detail[0] && error != -ENOSPC;

	switch (-error) {
	case ENOSPC:
	case EDQUOT:
		todo =
		    "Make room on the store's file system, or prune: `chromashim snapshot prune`.";
		break;
	case EBUSY:
		todo = "The backend was busy all the time; try again.";
		break;
	case EACCES:
	case EPERM:
		todo = "Run this as the owner of the data directory.";
		break;
	case EFBIG:
	case EROFS:
		todo = "The store must be on a file system that takes such files.";
		break;
	case EXDEV:
		todo = "The store is on another file system: restore with -o, then exchange the "
		       "directories yourself.";
		break;
	default:
		break;
	}
	if (t->file[0])
		return fail(exit_code_of(error), has_detail ? 0 : error, todo, "%s '%s': %s%s%s",
			    what, s->target.dir, t->file, has_detail ? ": " : "",
			    has_detail ? t->detail : "");
	return fail(exit_code_of(error), has_detail ? 0 : error, todo, "%s '%s'%s%s", what,
		    s->target.dir, has_detail ? ": " : "", has_detail ? t->detail : "");
}

int snapshots_confirm(const struct snapshot_flags *flags, const char *question, ...)
{
	char answer[16] = "";
	va_list ap;

	if (flags->yes)
		return 0;
	if (!isatty(STDIN_FILENO))
		return fail(EXIT_USAGE, 0, "Add -y to say yes, or -n to see what would be done.",
			    "this needs an answer, and there is no terminal to ask on");
	fflush(stdout);
	va_start(ap, question);
	vfprintf(stderr, question, ap);
	va_end(ap);
	fputs(" [y/N] ", stderr);
	if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
		return 0;
	warn("nothing was changed");
	return EXIT_FAILED;
}

/* ---- progress ---- */

void progress_start(struct progress *p, const char *label, bool quiet)
{
	*p = (struct progress){.label = label,
			       .started = oplog_now(),
			       .is_terminal = isatty(STDERR_FILENO) == 1,
			       .quiet = quiet};
}

void progress_step(void *progress, uint64_t done, uint64_t total)
{
	static const char full[] = "##############################";
	struct progress *p = progress;
	uint64_t now = oplog_now();
	char have[24], all[24];
	int filled;

	if (!p->is_terminal || p->quiet || total == 0 || now - p->started < UINT64_C(500000000) ||
	    now - p->shown < UINT64_C(100000000))
		return;
	done = done < total ? done : total;
	filled = (int)(done * 30 / total);
	fprintf(stderr, "\r%-10s [%-30.*s] %3u %%  %s of %s \033[K", p->label, filled, full,
		(unsigned)(done * 100 / total), format_bytes(have, sizeof(have), done),
		format_bytes(all, sizeof(all), total));
	p->shown = now;
	p->visible = true;
}

void progress_end(struct progress *p)
{
	if (p->visible)
		fputs("\r\033[K", stderr);
	p->visible = false;
}

/* ---- verifying ---- */

int snapshots_verify(struct snapshots *s, struct manifest *m, const struct snapshot_flags *flags)
{
	struct snapshot_trouble t;
	struct progress p;
	int r;

	if (m->header.magic != SNAPSHOT_MAGIC)
		return fail(EXIT_FAILED, 0,
			    "What it had is lost; `chromashim snapshot delete` removes it from the "
			    "list.",
			    "snapshot %" PRIu64 ": %s", m->header.id, m->trouble);
	progress_start(&p, "verifying", flags->quiet);
	r = verify_snapshot(&s->store, m, progress_step, &p, &t);
	progress_end(&p);
	if (r < 0)
		return snapshots_fail(s, r, &t, "cannot verify a snapshot of");
	if (m->header.state == SNAPSHOT_BROKEN)
		return fail(EXIT_FAILED, 0,
			    "Use another one; `chromashim snapshot create` takes a new one.",
			    "snapshot %" PRIu64 " is broken: %s", m->header.id, m->trouble);
	if (m->header.state != SNAPSHOT_VERIFIED) {
		warn("snapshot %" PRIu64 " is complete, but could not be verified: %s",
		     m->header.id, m->trouble);
		return EXIT_WARNINGS;
	}
	return EXIT_DONE;
}

/* ---- who is in the way ---- */

/* SQLite's locks, in case /proc may not be looked into. */
static bool is_locked(const struct target *t)
{
	struct flock lock = {
	    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SQLITE_PENDING_BYTE, .l_len = 512};
	int fd = openat(t->dirfd, DATABASE_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool locked = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;

	if (fd >= 0)
		close(fd);
	return locked;
}

int snapshots_find_process(const struct target *t, char *name_out, size_t room)
{
	struct process_opener *list;
	unsigned hidden;
	struct stat st;
	int n, pid = 0;

	snprintf(name_out, room, "another process");
	if (fstatat(t->dirfd, DATABASE_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	n = process_find_openers(&st, &list, &hidden);
	if (n > 0) {
		pid = (int)list[0].pid;
		snprintf(name_out, room, "%s", list[0].command[0] ? list[0].command : list[0].name);
	}
	free(list);
	return pid ? pid : is_locked(t) ? -1 : 0;
}

static void ignore_outcome(void *context, const struct rollback_outcome *outcome)
{
	(void)context;
	(void)outcome; /* the snapshot says if a segment is torn */
}

void snapshots_roll_back(const struct target *t)
{
	struct rollback rb = {.rootfd = t->dirfd, .report = ignore_outcome};

	rb.undofd = file_open_directory_at(t->storefd, UNDO_DIR);
	if (rb.undofd < 0)
		return;
	rollback_directory(&rb);
	close(rb.undofd);
}
