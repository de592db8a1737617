/* SPDX-License-Identifier: MIT
 *
 * Changing a file's mode, owner, times or attributes.
 */
#include "preload/calls/call.h"

#include "preload/base/readable.h"

/* Which of the two finders, by the flag of the ...at() calls. */
#define FINDER(flags) ((flags)&AT_SYMLINK_NOFOLLOW ? place_find : place_find_target)

/* By path: find the place, and the change around the call. */
#define BY_PATH(find, dirfd, path, op, length_, arg_, call)                                  \
	do {                                                                                 \
		A_PLACE(place_);                                                             \
                                                                                             \
		if (LIKELY(!(find)(&place_, dirfd, path, true)))                             \
			return call;                                                         \
		return CHANGED(CHANGE_PATH(op, &place_, .length = (length_), .arg = (arg_)), \
			       call);                                                        \
	} while (0)

/* The calls that name the file by a descriptor. */
#define BY_FD(fd_, op, length_, arg_, call)                                                    \
	do {                                                                                   \
		union slot s_ = slot_of(fd_);                                                  \
                                                                                               \
		if (LIKELY(!s_.all))                                                           \
			return call;                                                           \
		return CHANGED(CHANGE_FD(op, fd_, s_, -1, .length = (length_), .arg = (arg_)), \
			       call);                                                          \
	} while (0)

int do_chmod(const char *path, mode_t mode)
{
	BY_PATH(place_find_target, AT_FDCWD, path, OP_CHMOD, 0, mode, real.chmod(path, mode));
}

int do_fchmod(int fd, mode_t mode)
{
	BY_FD(fd, OP_CHMOD, 0, mode, real.fchmod(fd, mode));
}

int do_fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
	BY_PATH(FINDER(flags), dirfd, path, OP_CHMOD, 0, mode,
		REAL_LATE(fchmodat)(dirfd, path, mode, flags));
}

/* By its number: libc's own function takes fewer flags than the kernel. */
int do_fchmodat2(long number, int dirfd, const char *path, mode_t mode, int flags)
{
	if ((flags & AT_EMPTY_PATH) && address_is_readable(path, 1) && !*path)
		BY_FD(dirfd, OP_CHMOD, 0, mode,
		      (int)real.syscall(number, dirfd, (long)path, mode, flags, 0, 0));
	BY_PATH(FINDER(flags), dirfd, path, OP_CHMOD, 0, mode,
		(int)real.syscall(number, dirfd, (long)path, mode, flags, 0, 0));
}

int do_lchmod(const char *path, mode_t mode)
{
	BY_PATH(place_find, AT_FDCWD, path, OP_CHMOD, 0, mode, REAL_LATE(lchmod)(path, mode));
}

int do_chown(const char *path, uid_t uid, gid_t gid)
{
	BY_PATH(place_find_target, AT_FDCWD, path, OP_CHOWN, gid, uid, real.chown(path, uid, gid));
}

int do_fchown(int fd, uid_t uid, gid_t gid)
{
	BY_FD(fd, OP_CHOWN, gid, uid, real.fchown(fd, uid, gid));
}

int do_lchown(const char *path, uid_t uid, gid_t gid)
{
	BY_PATH(place_find, AT_FDCWD, path, OP_CHOWN, gid, uid, real.lchown(path, uid, gid));
}

int do_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
	if ((flags & AT_EMPTY_PATH) && address_is_readable(path, 1) && !*path)
		BY_FD(dirfd, OP_CHOWN, gid, uid, real.fchownat(dirfd, path, uid, gid, flags));
	BY_PATH(FINDER(flags), dirfd, path, OP_CHOWN, gid, uid,
		real.fchownat(dirfd, path, uid, gid, flags));
}

int do_utime(const char *path, const struct utimbuf *times)
{
	BY_PATH(place_find_target, AT_FDCWD, path, OP_UTIME, 0, 0, REAL_LATE(utime)(path, times));
}

int do_utimes(const char *path, const struct timeval times[2])
{
	BY_PATH(place_find_target, AT_FDCWD, path, OP_UTIME, 0, 0, REAL_LATE(utimes)(path, times));
}

int do_lutimes(const char *path, const struct timeval times[2])
{
	BY_PATH(place_find, AT_FDCWD, path, OP_UTIME, 0, 0, REAL_LATE(lutimes)(path, times));
}

int do_futimes(int fd, const struct timeval times[2])
{
	BY_FD(fd, OP_UTIME, 0, 0, REAL_LATE(futimes)(fd, times));
}

int do_futimesat(int dirfd, const char *path, const struct timeval times[2])
{
	if (!path)
		BY_FD(dirfd, OP_UTIME, 0, 0, REAL_LATE(futimesat)(dirfd, path, times));
	BY_PATH(place_find_target, dirfd, path, OP_UTIME, 0, 0,
		REAL_LATE(futimesat)(dirfd, path, times));
}

int do_utimensat(int dirfd, const char *path, const struct timespec times[2], int flags)
{
	if (!path || ((flags & AT_EMPTY_PATH) && address_is_readable(path, 1) && !*path))
		BY_FD(dirfd, OP_UTIME, 0, 0, real.utimensat(dirfd, path, times, flags));
	BY_PATH(FINDER(flags), dirfd, path, OP_UTIME, 0, 0,
		real.utimensat(dirfd, path, times, flags));
}

int do_futimens(int fd, const struct timespec times[2])
{
	BY_FD(fd, OP_UTIME, 0, 0, REAL_LATE(futimens)(fd, times));
}

int do_setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
	BY_PATH(place_find_target, AT_FDCWD, path, OP_SETXATTR, size, 0,
		real.setxattr(path, name, value, size, flags));
}

int do_lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
	BY_PATH(place_find, AT_FDCWD, path, OP_SETXATTR, size, 0,
		real.lsetxattr(path, name, value, size, flags));
}

int do_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	BY_FD(fd, OP_SETXATTR, size, 0, real.fsetxattr(fd, name, value, size, flags));
}

int do_removexattr(const char *path, const char *name)
{
	BY_PATH(place_find_target, AT_FDCWD, path, OP_REMOVEXATTR, 0, 0,
		real.removexattr(path, name));
}

int do_lremovexattr(const char *path, const char *name)
{
	BY_PATH(place_find, AT_FDCWD, path, OP_REMOVEXATTR, 0, 0, real.lremovexattr(path, name));
}

int do_fremovexattr(int fd, const char *name)
{
	BY_FD(fd, OP_REMOVEXATTR, 0, 0, real.fremovexattr(fd, name));
}
