/* SPDX-License-Identifier: MIT
 *
 * The generic gates: syscall() and ioctl().
 *
 * syscall() is hot in Rust hosts (futex): what is not ours goes straight on. What is, goes through
 * the same bodies as the libc function of that name; gate.def lists them. io_uring would carry
 * writes past all of us; it is answered with ENOSYS, and its users fall back. So are openat2 and
 * its like on what is protected: what they ask is behind a pointer, which may be a bad one.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "preload/calls/call.h"
#include "preload/persist/persists.h"

/* The same on all architectures; this libc's headers may be older. */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_setxattrat
#define SYS_setxattrat 463
#endif
#ifndef SYS_removexattrat
#define SYS_removexattrat 466
#endif
#ifndef SYS_file_setattr
#define SYS_file_setattr 469
#endif

#define PATH(x) ((const char *)(x))
#define FD(x) ((int)(x))

static long refuse_uring(void)
{
	errno = ENOSYS;
	return -1;
}

/* Calls whose arguments lie in a struct that grows; all begin with a directory and a path. */
static long not_on_protected(long number, long a, long b, long c, long d, long e, long f)
{
	A_PLACE(place);

	if (!place_find_for_open(&place, FD(a), PATH(b), O_RDWR))
		return real.syscall(number, a, b, c, d, e, f);
	errno = ENOSYS;
	return -1;
}

static long through_gate(void *caller, long number, long a, long b, long c, long d, long e, long f)
{
	switch (number) {
#define GATE(name, call) \
	case SYS_##name: \
		return call;
#include "preload/calls/gate.def"
#undef GATE
	}
	return -1;
}

/* Whether a system call can change a file or what a descriptor means. */
static bool concerns_files(long number)
{
	switch (number) {
#define GATE(name, call) case SYS_##name:
#include "preload/calls/gate.def"
#undef GATE
		return true;
	}
	return false;
}

long do_syscall(long number, long a, long b, long c, long d, long e, long f)
{
	uint8_t before;
	long ret;

	if (LIKELY(!concerns_files(number)) || !shim_live)
		return real.syscall(number, a, b, c, d, e, f);
	before = record_flags;
	record_flags = (uint8_t)(before | OPLOG_F_SYSCALL);
	ret = through_gate(__builtin_return_address(0), number, a, b, c, d, e, f);
	record_flags = before;
	return ret;
}

/* The file that is cloned: what is held back of it has to be there. */
static int cloned_from(unsigned long request, unsigned long arg)
{
	const struct file_clone_range *range = (const void *)arg;

	return request == FICLONE ? (int)arg : range ? (int)range->src_fd : -1;
}

/* The requests that change a file; the others are passed on unseen. */
int do_ioctl(int fd, unsigned long request, unsigned long arg)
{
	union slot s = slot_of(fd);

	if (request == FICLONE || (request == FICLONERANGE && atomic_load(&persists_holding)))
		persist_reading(slot_of(cloned_from(request, arg)));
	if (LIKELY(!s.all))
		return real.ioctl(fd, request, arg);
	switch (request) {
	case FICLONE:
		return CHANGED(CHANGE_FD(OP_CLONE_RANGE, fd, s, 0, .arg = request),
			       real.ioctl(fd, request, arg));
	case FICLONERANGE: {
		const struct file_clone_range *range = (const void *)arg;

		return CHANGED(CHANGE_FD(OP_CLONE_RANGE, fd, s, (int64_t)range->dest_offset,
					 .length = range->src_length, .arg = request),
			       real.ioctl(fd, request, arg));
	}
	case FS_IOC_SETFLAGS:
	case FS_IOC_FSSETXATTR:
		return CHANGED(CHANGE_FD(OP_IOCTL, fd, s, -1, .arg = request),
			       real.ioctl(fd, request, arg));
	default:
		return real.ioctl(fd, request, arg);
	}
}
