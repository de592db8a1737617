/* SPDX-License-Identifier: MIT
 *
 * Chunks and their names on their way to the disk: many in one go, few one by one.
 *
 * One sync of the file system costs what a few of files do, however many files it is for. But it
 * also waits for what others have written, and fails for it: then each is synced by itself.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/snapshot/chunk_sync.h"

#define FEW 16

/* Before Linux 5.8 it told nothing of what could not be written. */
bool chunk_sync_is_heard(void)
{
	struct utsname name;
	unsigned major, minor;

	return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 5 || (major == 5 && minor >= 8));
}

static bool sync_all(const struct chunks *c, unsigned count)
{
	return count > FEW && c->sync_is_heard && syncfs(c->dirfd) == 0;
}

int chunk_sync_batch(struct chunks *c)
{
	unsigned i;

	if (sync_all(c, c->waiting))
		return 0;
	for (i = 0; i < c->waiting; i++)
		if (fdatasync(c->batch_fd[i]) < 0)
			return -errno;
	return 0;
}

static int sync_directory(struct chunks *c, unsigned first)
{
	char directory[12]; /* two digits; the type could hold more */
	int fd, r;

	snprintf(directory, sizeof(directory), "%02x", first);
	fd = file_open_directory_at(c->dirfd, directory);
	r = fd == -ENOENT ? 0 : fd < 0 ? fd : fsync(fd) < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return r;
}

int chunk_sync_names(struct chunks *c)
{
	unsigned i, count = 0;
	int r = 0;

	for (i = 0; i < sizeof(c->touched); i++)
		count += c->touched[i];
	if (sync_all(c, count)) {
		memset(c->touched, 0, sizeof(c->touched));
		return 0;
	}
	for (i = 0; i < sizeof(c->touched) && r == 0; i++) {
		if (c->touched[i])
			r = sync_directory(c, i);
		if (r == 0)
			c->touched[i] = 0;
	}
	return r == 0 && fsync(c->dirfd) < 0 ? -errno : r;
}
