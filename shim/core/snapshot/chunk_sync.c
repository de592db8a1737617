/* SPDX-License-Identifier: MIT
 *
 * Chunks and their names on their way to the disk: very many in one go, the others side by side.
 *
 * One sync of the file system costs what a few of files do, however many files it is for. But it
 * also waits for what others have written, and fails for it. So that is for a first snapshot; what
 * has changed since another is synced file by file, and the disk puts those together that are
 * asked for at the same time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/base/crew.h"
#include "core/base/fileio.h"
#include "core/snapshot/chunk_sync.h"

#define VERY_MANY (CHUNKS_BATCH + 1)
#define DIRECTORIES 256u /* of names; after them comes chunks/ itself */

/* Before Linux 5.8 it told nothing of what could not be written. */
bool chunk_sync_is_heard(void)
{
	struct utsname name;
	unsigned major, minor;

	return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 5 || (major == 5 && minor >= 8));
}

static bool sync_all(const struct chunks *c)
{
	return c->named + c->waiting >= VERY_MANY && c->sync_is_heard && syncfs(c->dirfd) == 0;
}

/* ---- the mark ---- */

void chunk_sync_doubt_names(struct chunks *c)
{
	c->marked = faccessat(c->dirfd, CHUNK_SYNC_MARK, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	memset(c->touched, c->marked, sizeof(c->touched));
	c->named = c->marked ? sizeof(c->touched) : 0;
}

int chunk_sync_mark_names(struct chunks *c)
{
	int fd;

	if (c->marked)
		return 0;
	fd = openat(c->dirfd, CHUNK_SYNC_MARK,
		    O_WRONLY | O_CREAT | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	c->marked = true;
	return 0;
}

static void forget_mark(struct chunks *c)
{
	unlinkat(c->dirfd, CHUNK_SYNC_MARK, 0);
	memset(c->touched, 0, sizeof(c->touched));
	c->marked = false;
	c->named = 0;
}

/* ---- side by side ---- */

struct syncing {
	const struct chunks *c;
	int (*sync)(const struct chunks *c, unsigned i);
	unsigned count;
	unsigned next; /* atomic: whose turn it is */
	int error;     /* atomic: one that was met */
};

static void sync_turns(void *context, bool is_helper)
{
	struct syncing *s = context;
	unsigned i;

	(void)is_helper;
	while ((i = __atomic_fetch_add(&s->next, 1, __ATOMIC_SEQ_CST)) < s->count) {
		int r = s->sync(s->c, i);

		if (r < 0)
			__atomic_store_n(&s->error, r, __ATOMIC_SEQ_CST);
	}
}

/* `waits`: how many of them have something to wait for. */
static int sync_each(const struct chunks *c, int (*sync)(const struct chunks *c, unsigned i),
		     unsigned count, unsigned waits)
{
	struct syncing s = {.c = c, .sync = sync, .count = count};

	crew_wait(waits - 1, sync_turns, &s);
	return s.error;
}

/* ---- what they hold, and their names ---- */

/* After them comes the name of the mark. */
static int sync_one(const struct chunks *c, unsigned i)
{
	if (i < c->waiting)
		return fdatasync(c->batch_fd[i]) < 0 ? -errno : 0;
	return fsync(c->dirfd) < 0 ? -errno : 0;
}

int chunk_sync_batch(struct chunks *c)
{
	return sync_all(c) ? 0 : sync_each(c, sync_one, c->waiting + 1, c->waiting + 1);
}

static int sync_directory(const struct chunks *c, unsigned i)
{
	char directory[12]; /* two digits; the type could hold more */
	int fd, r;

	if (i == DIRECTORIES)
		return fsync(c->dirfd) < 0 ? -errno : 0;
	if (!c->touched[i])
		return 0;
	snprintf(directory, sizeof(directory), "%02x", i);
	fd = file_open_directory_at(c->dirfd, directory);
	r = fd == -ENOENT ? 0 : fd < 0 ? fd : fsync(fd) < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return r;
}

int chunk_sync_names(struct chunks *c)
{
	unsigned i, touched = 0;
	int r;

	for (i = 0; i < DIRECTORIES; i++)
		touched += c->touched[i];
	r = sync_all(c) ? 0 : sync_each(c, sync_directory, DIRECTORIES + 1, touched + 1);
	if (r == 0)
		forget_mark(c);
	return r;
}
