/* SPDX-License-Identifier: MIT
 *
 * calls: names and metadata.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

#include "calls.h"

/* ---- names ---- */

CASE(renames)
{
	leave(name, "-from");
	AS(int, const char *, const char *)(path_of(name, "-from"), path_of(name, ""));
	AS(int, const char *, const char *)(path_of(name, "-absent"), path_of(name, ""));
}

CASE(renameats)
{
	leave(name, "-from");
	AS(int, int, const char *, int, const char *)
	(dirfd_, base(path_of(name, "-from")), AT_FDCWD, path_of(name, ""));
}

CASE(renameat2s)
{
	int fd = make(name, "-from");

	leave(name, "");
	AS(int, int, const char *, int, const char *, unsigned)
	(AT_FDCWD, path_of(name, "-from"), dirfd_, name, RENAME_NOREPLACE);
	put(fd, "first");
	fd = open(path_of(name, "-from"), O_WRONLY);
	AS(int, int, const char *, int, const char *, unsigned)
	(AT_FDCWD, path_of(name, "-from"), dirfd_, name, RENAME_EXCHANGE);
	put(fd, "other");
}

CASE(unlinks)
{
	int fd = make(name, "-gone");

	AS(int, const char *)(path_of(name, "-gone"));
	put(fd, "still open");
	AS(int, const char *)(path_of(name, "-gone"));
}

CASE(unlinkats)
{
	leave(name, "-gone");
	AS(int, int, const char *, int)(dirfd_, base(path_of(name, "-gone")), 0);
	mkdir(path_of(name, "-dir"), 0755);
	AS(int, int, const char *, int)(AT_FDCWD, path_of(name, "-dir"), AT_REMOVEDIR);
}

CASE(rmdirs)
{
	mkdir(path_of(name, "-dir"), 0755);
	AS(int, const char *)(path_of(name, "-dir"));
	AS(int, const char *)(path_of(name, "-dir"));
}

CASE(removes)
{
	leave(name, "-gone");
	AS(int, const char *)(path_of(name, "-gone"));
	mkdir(path_of(name, "-dir"), 0755);
	AS(int, const char *)(path_of(name, "-dir"));
}

CASE(mkdirs)
{
	AS(int, const char *, mode_t)(path_of(name, ""), 0750);
	AS(int, const char *, mode_t)(path_of(name, ""), 0750);
	leave(name, "/file");
}

CASE(mkdirats)
{
	AS(int, int, const char *, mode_t)(dirfd_, name, 0750);
	leave(name, "/file");
}

CASE(links)
{
	leave(name, "-from");
	AS(int, const char *, const char *)(path_of(name, "-from"), path_of(name, ""));
	put(open(path_of(name, ""), O_WRONLY), "linked");
}

CASE(linkats)
{
	int fd = open(directory, O_TMPFILE | O_RDWR, 0600);

	leave(name, "-from");
	AS(int, int, const char *, int, const char *, int)
	(dirfd_, base(path_of(name, "-from")), AT_FDCWD, path_of(name, ""), 0);
	if (fd >= 0 && write(fd, "unnamed", 7) == 7)
		AS(int, int, const char *, int, const char *, int)
	(fd, "", dirfd_, base(path_of(name, "-named")), AT_EMPTY_PATH);
	put(fd, "now named");
}

CASE(symlinks)
{
	AS(int, const char *, const char *)("target", path_of(name, ""));
}

CASE(symlinkats)
{
	AS(int, const char *, int, const char *)("target", dirfd_, name);
}

CASE(mknods)
{
	AS(int, const char *, mode_t, dev_t)(path_of(name, ""), S_IFREG | 0600, 0);
	put(open(path_of(name, ""), O_WRONLY), name);
}

CASE(mknodats)
{
	AS(int, int, const char *, mode_t, dev_t)(dirfd_, name, S_IFREG | 0600, 0);
}

CASE(xmknods)
{
	dev_t dev = 0;

	AS(int, int, const char *, mode_t, dev_t *)(0, path_of(name, ""), S_IFREG | 0600, &dev);
}

CASE(xmknodats)
{
	dev_t dev = 0;

	AS(int, int, int, const char *, mode_t, dev_t *)(0, dirfd_, name, S_IFREG | 0600, &dev);
}

CASE(mkfifos)
{
	AS(int, const char *, mode_t)(path_of(name, ""), 0600);
}

CASE(mkfifoats)
{
	AS(int, int, const char *, mode_t)(dirfd_, name, 0600);
}

/* ---- metadata ---- */

CASE(chmods)
{
	leave(name, "");
	AS(int, const char *, mode_t)(path_of(name, ""), 0600);
}

CASE(fchmods)
{
	int fd = make(name, "");

	AS(int, int, mode_t)(fd, 0600);
	close(fd);
}

CASE(fchmodats)
{
	leave(name, "");
	AS(int, int, const char *, mode_t, int)(dirfd_, name, 0600, 0);
}

CASE(chowns)
{
	leave(name, "");
	AS(int, const char *, uid_t, gid_t)(path_of(name, ""), getuid(), (gid_t)-1);
}

CASE(fchowns)
{
	int fd = make(name, "");

	AS(int, int, uid_t, gid_t)(fd, getuid(), (gid_t)-1);
	close(fd);
}

CASE(fchownats)
{
	leave(name, "");
	AS(int, int, const char *, uid_t, gid_t, int)(dirfd_, name, getuid(), (gid_t)-1, 0);
}

static const struct timeval when[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000001}};
static const struct timespec then[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000001}};

CASE(utime_s)
{
	struct utimbuf times = {.actime = 1000000000, .modtime = 1000000001};

	leave(name, "");
	AS(int, const char *, const struct utimbuf *)(path_of(name, ""), &times);
}

CASE(utimes_)
{
	leave(name, "");
	AS(int, const char *, const struct timeval *)(path_of(name, ""), when);
}

CASE(futimess)
{
	int fd = make(name, "");

	AS(int, int, const struct timeval *)(fd, when);
	close(fd);
}

CASE(futimesats)
{
	leave(name, "");
	AS(int, int, const char *, const struct timeval *)(dirfd_, name, when);
}

CASE(utimensats)
{
	leave(name, "");
	AS(int, int, const char *, const struct timespec *, int)(dirfd_, name, then, 0);
}

CASE(futimenss)
{
	int fd = make(name, "");

	AS(int, int, const struct timespec *)(fd, then);
	close(fd);
}

CASE(setxattrs)
{
	leave(name, "");
	AS(int, const char *, const char *, const void *, size_t, int)
	(path_of(name, ""), "user.test", "1", 1, 0);
}

CASE(fsetxattrs)
{
	int fd = make(name, "");

	AS(int, int, const char *, const void *, size_t, int)(fd, "user.test", "1", 1, 0);
	close(fd);
}

CASE(removexattrs)
{
	leave(name, "");
	setxattr(path_of(name, ""), "user.test", "1", 1, 0);
	AS(int, const char *, const char *)(path_of(name, ""), "user.test");
}

CASE(fremovexattrs)
{
	int fd = make(name, "");

	fsetxattr(fd, "user.test", "1", 1, 0);
	AS(int, int, const char *)(fd, "user.test");
	close(fd);
}

const struct call_case names_cases[] = {
    {"rename", renames},
    {"renameat", renameats},
    {"renameat2", renameat2s},
    {"unlink", unlinks},
    {"unlinkat", unlinkats},
    {"rmdir", rmdirs},
    {"remove", removes},
    {"mkdir", mkdirs},
    {"mkdirat", mkdirats},
    {"link", links},
    {"linkat", linkats},
    {"symlink", symlinks},
    {"symlinkat", symlinkats},
    {"mknod", mknods},
    {"mknodat", mknodats},
    {"__xmknod", xmknods},
    {"__xmknodat", xmknodats},
    {"mkfifo", mkfifos},
    {"mkfifoat", mkfifoats},
    {"chmod", chmods},
    {"fchmod", fchmods},
    {"fchmodat", fchmodats},
    {"lchmod", chmods},
    {"chown", chowns},
    {"lchown", chowns},
    {"fchown", fchowns},
    {"fchownat", fchownats},
    {"utime", utime_s},
    {"utimes", utimes_},
    {"lutimes", utimes_},
    {"futimes", futimess},
    {"futimesat", futimesats},
    {"utimensat", utimensats},
    {"futimens", futimenss},
    {"setxattr", setxattrs},
    {"lsetxattr", setxattrs},
    {"fsetxattr", fsetxattrs},
    {"removexattr", removexattrs},
    {"lremovexattr", removexattrs},
    {"fremovexattr", fremovexattrs},
    {NULL, NULL},
};
