/* SPDX-License-Identifier: MIT
 *
 * What the name given with -o leads to: a new file, one that is there, a directory, or something
 * that is written through.
 */
#include "command/base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bsd/string.h>

#define LINKS 40 /* that lead to each other, at most; as in the kernel */

/* The name of it in `dir`; false for "/", "." and the like, which are directories. */
static bool split(const char *path, char dir[PATH_MAX], char name[256])
{
	char copy[PATH_MAX];
	const char *last;
	bool plain;

	strlcpy(copy, path, sizeof(copy));
	last = basename(copy);
	plain = strcmp(last, "/") != 0 && strcmp(last, ".") != 0 && strcmp(last, "..") != 0;
	strlcpy(name, last, 256);
	strlcpy(copy, path, sizeof(copy));
	strlcpy(dir, plain ? dirname(copy) : path, PATH_MAX);
	return plain;
}

/*
 * A link of /proc/…/fd is no text: /dev/stdout may be a file that was begun, a pipe, or a socket,
 * which cannot be opened again.
 */
static int open_descriptor_link(const char *dir, const char *name)
{
	struct stat theirs, ours;
	int dirfd, fd;

	if (stat(dir, &theirs) == 0 && stat("/proc/self/fd", &ours) == 0 &&
	    theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev) {
		fd = fcntl(atoi(name), F_DUPFD_CLOEXEC, 3);
		return fd < 0 ? -errno : fd;
	}
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = dirfd < 0 ? -1 : openat(dirfd, name, O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC);
	fd = fd < 0 ? -errno : fd;
	if (dirfd >= 0)
		close(dirfd);
	return fd;
}

static bool is_descriptor_link(const char *dir, const char *name)
{
	struct statfs fs;

	return name[strspn(name, "0123456789")] == '\0' && statfs(dir, &fs) == 0 &&
	       fs.f_type == PROC_SUPER_MAGIC;
}

/* Finds the file at the end of all links. */
static int output_place_judge(struct output_place *p)
{
	if (lstat(p->path, &p->st) < 0) {
		p->kind = OUTPUT_NEW;
		return errno == ENOENT ? 0 : -errno;
	}
	if (S_ISDIR(p->st.st_mode)) {
		p->kind = OUTPUT_DIRECTORY;
		return 0;
	}
	p->kind = S_ISREG(p->st.st_mode) ? OUTPUT_FILE : OUTPUT_THROUGH;
	return 0;
}

/* One step: *path becomes what it links to. 1: there are no more links; -errno. */
static int follow(struct output_place *p, char path[PATH_MAX])
{
	char dir[PATH_MAX], real[PATH_MAX], target[PATH_MAX];
	bool plain = split(path, dir, p->name);
	ssize_t n;

	if (!realpath(dir, real))
		return -errno;
	if (snprintf(p->path, sizeof(p->path), "%s%s%s", strcmp(real, "/") ? real : "",
		     plain || !strcmp(real, "/") ? "/" : "",
		     plain ? p->name : "") >= (int)sizeof(p->path))
		return -ENAMETOOLONG;
	n = plain ? readlink(p->path, target, sizeof(target) - 1) : -1;
	if (n < 0)
		return 1;
	if (is_descriptor_link(real, p->name)) {
		p->kind = OUTPUT_THROUGH;
		p->fd = open_descriptor_link(real, p->name);
		return p->fd < 0 ? p->fd : 1;
	}
	target[n] = '\0';
	if (snprintf(path, PATH_MAX, "%s%s%s", target[0] == '/' ? "" : real,
		     target[0] == '/' ? "" : "/", target) >= PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

int output_place_find(struct output_place *p, const char *path)
{
	char at[PATH_MAX];
	struct stat st;
	unsigned links;
	int r = 0;

	*p = (struct output_place){.fd = -1};
	if (strlcpy(at, path, sizeof(at)) >= sizeof(at))
		return -ENAMETOOLONG;
	/* The kernel's own word on links that others planted (fs.protected_symlinks). */
	if (stat(path, &st) < 0 && errno != ENOENT)
		return -errno;
	for (links = 0; r == 0 && links < LINKS; links++)
		r = follow(p, at);
	if (r < 0)
		return r;
	if (r == 0)
		return -ELOOP;
	return p->fd >= 0 ? 0 : output_place_judge(p);
}
