/* SPDX-License-Identifier: MIT
 *
 * calls: files that are opened, and descriptors.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "calls.h"

/* ---- open ---- */

CASE(opens)
{
	put(AS(int, const char *, int, ...)(path_of(name, ""), FD_MODE, 0644), name);
	put(AS(int, const char *, int, ...)(path_of(name, ""), O_WRONLY | O_APPEND), "more");
	AS(int, const char *, int, ...)(path_of(name, "-absent"), O_RDWR);
	AS(int, const char *, int, ...)(path_of(name, ""), O_RDWR | O_CREAT | O_EXCL, 0644);
	close(AS(int, const char *, int, ...)(path_of(name, ""), O_RDONLY));
	put(AS(int, const char *, int, ...)(directory, O_TMPFILE | O_RDWR, 0600), "unnamed");
}

CASE(opens_2)
{
	leave(name, "");
	put(AS(int, const char *, int)(path_of(name, ""), O_RDWR | O_TRUNC), name);
}

CASE(openats)
{
	put(AS(int, int, const char *, int, ...)(dirfd_, name, FD_MODE, 0644), name);
	put(AS(int, int, const char *, int, ...)(AT_FDCWD, path_of(name, ""), O_WRONLY), "N");
}

CASE(openats_2)
{
	leave(name, "");
	put(AS(int, int, const char *, int)(dirfd_, name, O_RDWR | O_TRUNC), name);
}

CASE(creats)
{
	put(AS(int, const char *, mode_t)(path_of(name, ""), 0640), name);
}

CASE(handles)
{
	struct {
		struct file_handle handle;
		unsigned char space[MAX_HANDLE_SZ];
	} h = {.handle.handle_bytes = MAX_HANDLE_SZ};
	int mount;

	leave(name, "");
	if (name_to_handle_at(AT_FDCWD, path_of(name, ""), &h.handle, &mount, 0) == 0)
		put(AS(int, int, struct file_handle *, int)(dirfd_, &h.handle, O_WRONLY), "handle");
}

/* The templates' names are random: what they made gets the case's name. */
static char *template_of(const char *name, const char *suffix)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s-XXXXXX%s", directory, name, suffix);
	return path;
}

static void made(int fd, const char *name, const char *template)
{
	put(fd, "temporary");
	rename(template, path_of(name, ""));
}

CASE(mkstemps_0)
{
	char *t = template_of(name, "");

	made(AS(int, char *)(t), name, t);
}

CASE(mkstemps_suffix)
{
	char *t = template_of(name, ".tmp");

	made(AS(int, char *, int)(t, 4), name, t);
}

CASE(mkstemps_flags)
{
	char *t = template_of(name, "");

	made(AS(int, char *, int)(t, O_CLOEXEC), name, t);
}

CASE(mkstemps_both)
{
	char *t = template_of(name, ".tmp");

	made(AS(int, char *, int, int)(t, 4, O_APPEND), name, t);
}

CASE(mkdtemps)
{
	char *t = template_of(name, "");

	if (AS(char *, char *)(t))
		rename(t, path_of(name, ""));
}

/* ---- descriptors: what was closed is forgotten, what was duplicated is not ---- */

/* Takes the lowest number again, for a file that is nobody's business. */
void elsewhere(void)
{
	int fd = open("/dev/null", O_WRONLY);
	ssize_t n = write(fd, "nothing", 7);

	(void)n;
	close(fd);
}

CASE(closes)
{
	AS(int, int)(make(name, ""));
	elsewhere();
	AS(int, int)(-1);
}

CASE(close_ranges)
{
	int fd = make(name, ""), last = make(name, "-2");

	AS(int, unsigned, unsigned, int)((unsigned)fd, (unsigned)last, 0);
	elsewhere();
}

CASE(closefroms)
{
	int fd = make(name, "");

	make(name, "-2");
	AS(void, int)(fd);
	elsewhere();
}

static void moved(int from, int to)
{
	close(from);
	put(to, "moved");
	elsewhere();
}

CASE(dups)
{
	int fd = make(name, "");

	moved(fd, AS(int, int)(fd));
}

CASE(dup2s)
{
	int fd = make(name, "");

	AS(int, int, int)(fd, fd);
	moved(fd, AS(int, int, int)(fd, 77));
	fd = make(name, "-2");
	AS(int, int, int)(fd, make(name, "-3")); /* over another protected one */
	put(fd, "left");
	closefrom(fd);
}

CASE(dup3s)
{
	int fd = make(name, "");

	moved(fd, AS(int, int, int, int)(fd, 78, O_CLOEXEC));
}

CASE(fcntls)
{
	struct flock lock = {.l_type = F_WRLCK, .l_start = 0x40000001, .l_len = 1};
	int fd = make(name, ""), copy;

	AS(int, int, int, ...)(fd, F_SETLK, &lock);
	lock.l_type = F_RDLCK;
	lock.l_len = 0;
	AS(int, int, int, ...)(fd, F_SETLKW, &lock);
	lock.l_type = F_UNLCK;
	AS(int, int, int, ...)(fd, F_SETLK, &lock);
	AS(int, int, int, ...)(fd, F_GETLK, &lock);
	lock = (struct flock){.l_type = F_WRLCK, .l_start = 2, .l_len = 510};
	AS(int, int, int, ...)(fd, F_OFD_SETLK, &lock);
	copy = AS(int, int, int, ...)(fd, F_DUPFD, 90);
	AS(int, int, int, ...)(copy, F_SETFD, FD_CLOEXEC);
	moved(copy, AS(int, int, int, ...)(copy, F_DUPFD_CLOEXEC, 0));
	close(fd);
}

CASE(flocks)
{
	int fd = make(name, "");

	AS(int, int, int)(fd, LOCK_EX);
	AS(int, int, int)(fd, LOCK_UN);
	close(fd);
}

CASE(lockfs)
{
	int fd = make(name, "");

	AS(int, int, int, off_t)(fd, F_TLOCK, 10);
	AS(int, int, int, off_t)(fd, F_ULOCK, 10);
	lseek(fd, 0, SEEK_SET);
	AS(int, int, int, off_t)(fd, F_LOCK, 0);
	close(fd);
}

const struct call_case files_cases[] = {
    {"open", opens},
    {"open64", opens},
    {"__open", opens},
    {"__open64", opens},
    {"__open_2", opens_2},
    {"__open64_2", opens_2},
    {"openat", openats},
    {"openat64", openats},
    {"__openat_2", openats_2},
    {"__openat64_2", openats_2},
    {"creat", creats},
    {"creat64", creats},
    {"open_by_handle_at", handles},
    {"mkstemp", mkstemps_0},
    {"mkstemp64", mkstemps_0},
    {"mkstemps", mkstemps_suffix},
    {"mkstemps64", mkstemps_suffix},
    {"mkostemp", mkstemps_flags},
    {"mkostemp64", mkstemps_flags},
    {"mkostemps", mkstemps_both},
    {"mkostemps64", mkstemps_both},
    {"mkdtemp", mkdtemps},
    {"close", closes},
    {"__close", closes},
    {"close_range", close_ranges},
    {"closefrom", closefroms},
    {"dup", dups},
    {"dup2", dup2s},
    {"__dup2", dup2s},
    {"dup3", dup3s},
    {"fcntl", fcntls},
    {"fcntl64", fcntls},
    {"__fcntl", fcntls},
    {"flock", flocks},
    {"lockf", lockfs},
    {"lockf64", lockfs},
    {NULL, NULL},
};
