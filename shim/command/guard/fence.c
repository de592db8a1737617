/* SPDX-License-Identifier: MIT
 *
 * The fence while nobody is the writer. Processes that have only opened the database do not hold
 * it (preload/refuse/opening.h), and a process without the library must not write beside them all
 * the same: it would find nothing locked.
 *
 * It is a read lock on SQLite's RESERVED byte. Other programs cannot take theirs then, nor see a
 * journal as hot; so it is let go of as soon as there is a writer, or a hot journal, or nobody who
 * has the database open. inotify tells when to look: a process signs writer.lock when it becomes
 * the writer or ceases to be, and closes the database when it ends.
 *
 * A thread of its own, since the guardian may be at something long, and at the priority that the
 * guardian was started with. It has its own table of descriptors: POSIX locks go with the table, so
 * that closing the database here drops none of the guardian's SQLite; and who asks /proc does not
 * find the guardian among those that have the database open.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "command/guard/guardian.h"
#include "core/base/alive.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/filesystem.h"
#include "core/pin/outside.h"
#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"

#define LOOK_MS 1000
#define SOON_MS 20
#define SOON (SECOND / 5) /* after something has happened */

struct guard_fence {
	int datafd, storefd;
	int watch, end;
	pthread_t thread;
	int fd; /* of the database, -1: none */
	struct stat is;
	bool held;
};

/* ---- is it wanted? ---- */

static bool has_hot_journal(const struct guard_fence *f)
{
	struct file_source source;
	int fd = file_open_at(f->datafd, CHROMA_DATABASE "-journal");
	bool hot = fd >= 0 && file_source_open(&source, fd) == 0 && sqlite_journal_is_hot(&source);

	if (fd >= 0)
		close(fd);
	return hot;
}

/* Nobody writes, and somebody is there who may. */
static bool is_wanted(const struct guard_fence *f)
{
	struct file_source database;

	return file_source_open(&database, f->fd) == 0 && alive_in_use(f->storefd, -1) &&
	       !pin_has_writer(f->storefd) && !has_hot_journal(f) && !sqlite_is_wal(&database);
}

/* The library keeps SQLite's locks by locks of this kind where they are known to be good. */
static bool has_locks(int fd)
{
	const struct filesystem *known = filesystem_of(fd);

	return known && known->locks;
}

/* ---- the database, by its name ---- */

static void close_database(struct guard_fence *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	f->held = false;
}

/* It stays open: inotify tells of its closing, too. */
static bool open_database(struct guard_fence *f)
{
	struct stat st;

	if (fstatat(f->datafd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		close_database(f);
		return false;
	}
	if (f->fd >= 0 && (st.st_ino != f->is.st_ino || st.st_dev != f->is.st_dev))
		close_database(f);
	if (f->fd >= 0)
		return true;
	f->fd = file_open_at(f->datafd, CHROMA_DATABASE);
	return f->fd >= 0 && fstat(f->fd, &f->is) == 0;
}

/* ---- the lock ---- */

static bool set(const struct guard_fence *f, short type)
{
	struct flock lock = {
	    .l_type = type, .l_whence = SEEK_SET, .l_start = SQLITE_RESERVED_BYTE, .l_len = 1};

	return fcntl(f->fd, F_OFD_SETLK, &lock) == 0;
}

static void look(struct guard_fence *f)
{
	bool is = open_database(f) && has_locks(f->fd);

	if (!f->held && is && is_wanted(f))
		f->held = set(f, F_RDLCK);
	/* What was right before it was locked may not be any more. */
	if (f->held && !is_wanted(f))
		f->held = !set(f, F_UNLCK);
}

/* ---- when to look ---- */

/* By their names: any of them may be another file now. */
static void watch(const struct guard_fence *f)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d/" CHROMA_DATABASE, f->datafd);
	inotify_add_watch(f->watch, path, IN_CLOSE | IN_DONT_FOLLOW);
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d/" WRITER_LOCK, f->storefd);
	inotify_add_watch(f->watch, path, IN_MODIFY | IN_DONT_FOLLOW);
}

/* As far as that is allowed: Docker's filter of system calls does not. */
static void have_own_descriptors(struct guard_fence *f)
{
	int *const all[] = {&f->datafd, &f->storefd, &f->watch, &f->end};
	unsigned i, count = sizeof(all) / sizeof(all[0]);

	if (unshare(CLONE_FILES) < 0)
		return;
	for (i = 0; i < count; i++)
		*all[i] = fcntl(*all[i], F_DUPFD_CLOEXEC, (int)count);
	for (i = 0; i < count; i++)
		*all[i] = dup3(*all[i], (int)i, O_CLOEXEC);
	/* A lock of the guardian's own would else last as long as this thread. */
	syscall(SYS_close_range, count, ~0U, 0);
}

static void *keep(void *fence)
{
	struct guard_fence f = *(const struct guard_fence *)fence;
	struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};
	uint64_t soon = 0;
	char events[4096];

	have_own_descriptors(&f);
	p[0].fd = f.watch;
	p[1].fd = f.end;
	while (f.end >= 0 && !p[1].revents) {
		watch(&f);
		look(&f);
		if (poll(p, 2, clock_read(CLOCK_MONOTONIC) < soon ? SOON_MS : LOOK_MS) > 0 &&
		    p[0].revents) {
			while (read(f.watch, events, sizeof(events)) > 0)
				;
			soon = clock_read(CLOCK_MONOTONIC) + SOON;
		}
	}
	close_database(&f);
	return NULL;
}

/* ---- beginning and end ---- */

static bool is_set_to(const struct guard_settings *s, enum config_key key, const char *value)
{
	return strcmp(config_get(&s->config, key), value) == 0;
}

static void fence_free(struct guard_fence *f)
{
	if (f->watch >= 0)
		close(f->watch);
	if (f->end >= 0)
		close(f->end);
	free(f);
}

void guardian_begin_fence(struct guardian *g)
{
	struct guard_fence *f;
	sigset_t all, before;
	int r;

	if (g->once || is_set_to(&g->settings, CONFIG_FENCE, "off") ||
	    !is_set_to(&g->settings, CONFIG_SINGLE_WRITER, "deny"))
		return;
	f = malloc(sizeof(*f));
	if (!f)
		return;
	*f = (struct guard_fence){.datafd = g->s.data.dirfd,
				  .storefd = g->s.data.storefd,
				  .fd = -1,
				  .watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC),
				  .end = eventfd(0, EFD_CLOEXEC)};
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = f->watch < 0 || f->end < 0 ? EMFILE : pthread_create(&f->thread, NULL, keep, f);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r == 0)
		g->fence = f;
	else
		fence_free(f);
}

void guardian_end_fence(struct guardian *g)
{
	uint64_t one = 1;

	if (!g->fence)
		return;
	if (write(g->fence->end, &one, sizeof(one)) == sizeof(one))
		pthread_join(g->fence->thread, NULL);
	fence_free(g->fence);
	g->fence = NULL;
}

/* SQLite's own locks on that byte are for writing. */
bool guardian_keeps_fence(int datafd)
{
	struct flock lock = {
	    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SQLITE_RESERVED_BYTE, .l_len = 1};
	int fd = file_open_at(datafd, CHROMA_DATABASE);
	bool keeps = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_RDLCK;

	if (fd >= 0)
		close(fd);
	return keeps;
}
