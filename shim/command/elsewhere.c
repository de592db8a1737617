/* SPDX-License-Identifier: MIT
 *
 * A directory for -o that is made anew: under another name beside it until it is whole. It is
 * locked, so that a second process neither fills nor empties it.
 */
#include "command/elsewhere.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/command.h"
#include "core/fileio.h"
#include "core/tree.h"

static int fail_path(const struct elsewhere *e, int error)
{
	return fail(exit_code_of(error), error,
		    error == -EBUSY ? "Another chromashim is filling it: wait until that is done."
		    : error == -ENOSPC ? "Make room on that file system."
				       : "Give a directory that does not exist yet, or is empty.",
		    "cannot make the directory '%s'", e->path);
}

/* Whether it still has this name, now that it is locked: else somebody has finished it. */
static bool has_name(const struct elsewhere *e)
{
	struct stat a, b;

	return fstat(e->fd, &a) == 0 &&
	       fstatat(e->parent, e->temporary, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_ino == b.st_ino;
}

static int open_beside(struct elsewhere *e)
{
	char *for_dir = strdup(e->path), *for_name = strdup(e->path);
	int r = for_dir && for_name ? 0 : -ENOMEM;

	if (r == 0) {
		snprintf(e->name, sizeof(e->name), "%.255s", basename(for_name));
		snprintf(e->temporary, sizeof(e->temporary), ".%.230s.chromashim-partial", e->name);
		e->parent = open(dirname(for_dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = e->parent < 0 ? -errno : 0;
	}
	free(for_dir);
	free(for_name);
	if (r == 0 && mkdirat(e->parent, e->temporary, 0777) < 0 && errno != EEXIST)
		r = -errno;
	if (r < 0)
		return r;
	e->fd = file_open_directory_at(e->parent, e->temporary);
	if (e->fd < 0)
		return e->fd;
	if (flock(e->fd, LOCK_EX | LOCK_NB) < 0 || !has_name(e))
		return -EBUSY;
	return tree_empty(e->fd); /* of one that was killed */
}

int elsewhere_open(struct elsewhere *e, const char *path)
{
	int r;

	*e = (struct elsewhere){.path = path, .parent = -1};
	e->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e->fd >= 0)
		r = flock(e->fd, LOCK_EX | LOCK_NB) < 0 ? -EBUSY
		    : tree_is_empty(e->fd) == 1		? 0
							: -ENOTEMPTY;
	else
		r = errno == ENOENT ? open_beside(e) : -errno;
	if (r == 0)
		return 0;
	if (e->fd >= 0)
		close(e->fd);
	if (e->parent >= 0)
		close(e->parent);
	return fail_path(e, r);
}

int elsewhere_close(struct elsewhere *e, bool keep)
{
	int r = 0;

	if (!keep)
		tree_empty(e->fd);
	if (e->parent >= 0 && keep) {
		if (renameat(e->parent, e->temporary, e->parent, e->name) < 0)
			r = -errno;
		else
			r = tree_sync(e->parent);
	}
	if (e->parent >= 0) {
		if (!keep || r < 0)
			tree_remove(e->parent, e->temporary);
		close(e->parent);
	}
	close(e->fd);
	return r < 0 ? fail_path(e, r) : 0;
}
