/* SPDX-License-Identifier: MIT
 *
 * A directory for -o that is made anew: under another name beside it until it is whole. It is
 * locked, so that a second process neither fills nor empties it.
 */
#include "command/base/out_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/command.h"
#include "command/base/output.h"
#include "core/base/fileio.h"
#include "core/base/tree.h"

static int fail_path(const struct out_directory *e, int error)
{
	return fail(exit_code_of(error), error,
		    error == -EBUSY ? "Another chromashim is filling it: wait until that is done."
		    : error == -ENOSPC ? "Make room on that file system."
				       : "Give a directory that does not exist yet, or is empty.",
		    "cannot make the directory '%s'", e->path);
}

/* Whether it still has this name, now that it is locked: else somebody has finished it. */
static bool has_name(const struct out_directory *e)
{
	struct stat a, b;

	return fstat(e->fd, &a) == 0 &&
	       fstatat(e->parent, e->temporary, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_ino == b.st_ino;
}

static int open_beside(struct out_directory *e, const struct output_place *place)
{
	char dir[PATH_MAX];
	int r;

	strlcpy(e->name, place->name, sizeof(e->name));
	snprintf(e->temporary, sizeof(e->temporary), ".%.230s.chromashim-partial", e->name);
	strlcpy(dir, place->path, sizeof(dir));
	e->parent = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = e->parent < 0 ? -errno : 0;
	if (r == 0 && mkdirat(e->parent, e->temporary, 0700) < 0 && errno != EEXIST)
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

/* A copy of what is private is not for more eyes. */
static int narrow(const struct out_directory *e)
{
	struct stat st;
	mode_t mode;

	if (fstat(e->fd, &st) < 0)
		return -errno;
	mode = st.st_mode & e->like.st_mode & 07777;
	return mode != (st.st_mode & 07777) && fchmod(e->fd, mode) < 0 ? -errno : 0;
}

/* A directory that is there already has to be empty. */
static int open_there(struct out_directory *e, const struct output_place *place)
{
	e->fd = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e->fd < 0)
		return -errno;
	if (flock(e->fd, LOCK_EX | LOCK_NB) < 0)
		return -EBUSY;
	return tree_is_empty(e->fd) == 1 ? narrow(e) : -ENOTEMPTY;
}

int out_directory_open(struct out_directory *e, const char *path, int like)
{
	struct output_place place;
	int r;

	*e = (struct out_directory){.path = path, .parent = -1, .fd = -1};
	if (strcmp(path, "-") == 0)
		return fail(EXIT_USAGE, 0, "Give a directory; ./- is one of that name.",
			    "-o makes a directory here, and '-' (standard output) is none");
	if (like < 0)
		e->like = (struct stat){
		    .st_mode = S_IFDIR | 0777, .st_uid = geteuid(), .st_gid = getegid()};
	else if (fstat(like, &e->like) < 0)
		return fail_path(e, -errno);
	r = output_place_find(&place, path);
	if (place.fd >= 0)
		close(place.fd);
	if (r == 0)
		r = place.kind == OUTPUT_NEW ? open_beside(e, &place) : open_there(e, &place);
	if (r == 0)
		return 0;
	if (e->fd >= 0)
		close(e->fd);
	if (e->parent >= 0)
		close(e->parent);
	return fail_path(e, r);
}

/* The copy gets the owner of the original, and no more rights for others than that has. */
static int out_directory_give(const struct out_directory *e)
{
	mode_t mask = umask(0);

	umask(mask);
	if (geteuid() == 0 && fchown(e->fd, e->like.st_uid, e->like.st_gid) < 0)
		return -errno;
	return fchmod(e->fd, e->like.st_mode & 07777 & ~mask) < 0 ? -errno : 0;
}

int out_directory_close(struct out_directory *e, bool keep)
{
	int r = 0;

	if (!keep)
		tree_empty(e->fd);
	if (e->parent >= 0 && keep) {
		r = out_directory_give(e);
		if (r == 0 && renameat(e->parent, e->temporary, e->parent, e->name) < 0)
			r = -errno;
		if (r == 0)
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
