/* SPDX-License-Identifier: MIT
 *
 * The generic gates: syscall() and ioctl().
 *
 * syscall() is hot in Rust hosts (futex): what is not ours goes straight on. What is, goes through
 * the same bodies as the libc function of that name. io_uring would carry writes past all of us; it
 * is answered with ENOSYS, and its users fall back.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "preload/call.h"

#define PATH(x) ((const char *)(x))
#define FD(x) ((int)(x))
#define CALLER __builtin_return_address(0)

static long gate_data(long number, long a, long b, long c, long d, long e)
{
	switch (number) {
	case SYS_write:
		return do_write(FD(a), (const void *)b, (size_t)c);
	case SYS_pwrite64:
		return do_pwrite(FD(a), (const void *)b, (size_t)c, d);
	case SYS_writev:
		return do_writev(FD(a), (const struct iovec *)b, (int)c);
	case SYS_pwritev:
		return do_pwritev(FD(a), (const struct iovec *)b, (int)c, d);
	case SYS_ftruncate:
		return do_ftruncate(FD(a), b);
	case SYS_truncate:
		return do_truncate(PATH(a), b);
	case SYS_fallocate:
		return do_fallocate(FD(a), (int)b, c, d);
	case SYS_fsync:
		return do_fsync(FD(a));
	case SYS_fdatasync:
		return do_fdatasync(FD(a));
	case SYS_syncfs:
		return do_syncfs(FD(a));
	case SYS_sync_file_range:
		return do_sync_file_range(FD(a), b, c, (unsigned)d);
	case SYS_sendfile:
		return do_sendfile(FD(a), FD(b), (off_t *)c, (size_t)d);
	case SYS_msync:
		return do_msync((void *)a, (size_t)b, (int)c);
	case SYS_ioctl:
		return do_ioctl(FD(a), (unsigned long)b, (unsigned long)c);
	case SYS_pwritev2:
		return do_pwritev2(FD(a), (const struct iovec *)b, (int)c, d, (int)e);
	}
	return -1;
}

static long gate_descriptors(long number, long a, long b, long c, long d)
{
	switch (number) {
	case SYS_openat:
		return do_openat(CALLER, FD(a), PATH(b), (int)c, (mode_t)d);
	case SYS_open_by_handle_at:
		return do_open_by_handle_at(FD(a), (struct file_handle *)b, (int)c);
	case SYS_close:
		return do_close(FD(a));
	case SYS_close_range:
		return do_close_range((unsigned)a, (unsigned)b, (int)c);
	case SYS_dup:
		return do_dup(FD(a));
	case SYS_dup3:
		return do_dup3(FD(a), FD(b), (int)c);
	case SYS_fcntl:
		return do_fcntl(FD(a), (int)b, (unsigned long)c);
	case SYS_flock:
		return do_flock(FD(a), (int)b);
	}
	return -1;
}

static long gate_names(long number, long a, long b, long c, long d, long e)
{
	switch (number) {
	case SYS_renameat2:
		return do_renameat2(CALLER, FD(a), PATH(b), FD(c), PATH(d), (unsigned)e);
	case SYS_unlinkat:
		return do_unlinkat(CALLER, FD(a), PATH(b), (int)c);
	case SYS_mkdirat:
		return do_mkdirat(FD(a), PATH(b), (mode_t)c);
	case SYS_linkat:
		return do_linkat(FD(a), PATH(b), FD(c), PATH(d), (int)e);
	case SYS_symlinkat:
		return do_symlinkat(PATH(a), FD(b), PATH(c));
	case SYS_mknodat:
		return do_mknodat(FD(a), PATH(b), (mode_t)c, (dev_t)d);
	case SYS_fchmod:
		return do_fchmod(FD(a), (mode_t)b);
	case SYS_fchmodat:
		return do_fchmodat(FD(a), PATH(b), (mode_t)c, 0);
	case SYS_fchown:
		return do_fchown(FD(a), (uid_t)b, (gid_t)c);
	case SYS_fchownat:
		return do_fchownat(FD(a), PATH(b), (uid_t)c, (gid_t)d, (int)e);
	case SYS_utimensat:
		return do_utimensat(FD(a), PATH(b), (const struct timespec *)c, (int)d);
	case SYS_setxattr:
		return do_setxattr(PATH(a), PATH(b), (void *)c, (size_t)d, (int)e);
	case SYS_lsetxattr:
		return do_lsetxattr(PATH(a), PATH(b), (void *)c, (size_t)d, (int)e);
	case SYS_fsetxattr:
		return do_fsetxattr(FD(a), PATH(b), (void *)c, (size_t)d, (int)e);
	case SYS_removexattr:
		return do_removexattr(PATH(a), PATH(b));
	case SYS_lremovexattr:
		return do_lremovexattr(PATH(a), PATH(b));
	case SYS_fremovexattr:
		return do_fremovexattr(FD(a), PATH(b));
	}
	return -1;
}

#if defined(__x86_64__)
/* Numbers that newer architectures no longer have. */
static long gate_old(long number, long a, long b, long c)
{
	switch (number) {
	case SYS_open:
		return do_open(CALLER, PATH(a), (int)b, (mode_t)c);
	case SYS_creat:
		return do_creat(CALLER, PATH(a), (mode_t)b);
	case SYS_dup2:
		return do_dup2(FD(a), FD(b));
	case SYS_rename:
		return do_rename(CALLER, PATH(a), PATH(b));
	case SYS_unlink:
		return do_unlink(CALLER, PATH(a));
	case SYS_rmdir:
		return do_rmdir(PATH(a));
	case SYS_mkdir:
		return do_mkdir(PATH(a), (mode_t)b);
	case SYS_link:
		return do_link(PATH(a), PATH(b));
	case SYS_symlink:
		return do_symlink(PATH(a), PATH(b));
	case SYS_mknod:
		return do_mknod(PATH(a), (mode_t)b, (dev_t)c);
	case SYS_chmod:
		return do_chmod(PATH(a), (mode_t)b);
	case SYS_chown:
		return do_chown(PATH(a), (uid_t)b, (gid_t)c);
	case SYS_lchown:
		return do_lchown(PATH(a), (uid_t)b, (gid_t)c);
	}
	return -1;
}
#define OLD_CASES         \
	case SYS_open:    \
	case SYS_creat:   \
	case SYS_dup2:    \
	case SYS_rename:  \
	case SYS_unlink:  \
	case SYS_rmdir:   \
	case SYS_mkdir:   \
	case SYS_link:    \
	case SYS_symlink: \
	case SYS_mknod:   \
	case SYS_chmod:   \
	case SYS_chown:   \
	case SYS_lchown:
#endif

static long through_gate(long number, long a, long b, long c, long d, long e, long f)
{
	switch (number) {
	case SYS_io_uring_setup:
		errno = ENOSYS;
		return -1;
	case SYS_write:
	case SYS_pwrite64:
	case SYS_writev:
	case SYS_pwritev:
	case SYS_ftruncate:
	case SYS_truncate:
	case SYS_fallocate:
	case SYS_fsync:
	case SYS_fdatasync:
	case SYS_syncfs:
	case SYS_sync_file_range:
	case SYS_sendfile:
	case SYS_msync:
	case SYS_ioctl:
		return gate_data(number, a, b, c, d, e);
	case SYS_pwritev2: /* its offset comes in two halves */
		return gate_data(number, a, b, c, d, f);
	case SYS_copy_file_range:
		return do_copy_file_range(FD(a), (off_t *)b, FD(c), (off_t *)d, (size_t)e,
					  (unsigned)f);
	case SYS_splice:
		return do_splice(FD(a), (off_t *)b, FD(c), (off_t *)d, (size_t)e, (unsigned)f);
	case SYS_mmap:
		return (long)do_mmap((void *)a, (size_t)b, (int)c, (int)d, FD(e), f);
	case SYS_munmap:
		return do_munmap((void *)a, (size_t)b);
	case SYS_mprotect:
		return do_mprotect((void *)a, (size_t)b, (int)c);
	case SYS_madvise:
		return do_madvise((void *)a, (size_t)b, (int)c);
	case SYS_openat:
	case SYS_open_by_handle_at:
	case SYS_close:
	case SYS_close_range:
	case SYS_dup:
	case SYS_dup3:
	case SYS_fcntl:
	case SYS_flock:
		return gate_descriptors(number, a, b, c, d);
#if defined(__x86_64__)
		OLD_CASES
		return gate_old(number, a, b, c);
#endif
	default:
		return gate_names(number, a, b, c, d, e);
	}
}

/* Whether a system call can change a file or what a descriptor means. */
static bool concerns_files(long number)
{
	switch (number) {
	case SYS_io_uring_setup:
	case SYS_write:
	case SYS_pwrite64:
	case SYS_writev:
	case SYS_pwritev:
	case SYS_pwritev2:
	case SYS_ftruncate:
	case SYS_truncate:
	case SYS_fallocate:
	case SYS_fsync:
	case SYS_fdatasync:
	case SYS_syncfs:
	case SYS_sync_file_range:
	case SYS_sendfile:
	case SYS_copy_file_range:
	case SYS_splice:
	case SYS_mmap:
	case SYS_munmap:
	case SYS_mprotect:
	case SYS_madvise:
	case SYS_msync:
	case SYS_ioctl:
	case SYS_openat:
	case SYS_open_by_handle_at:
	case SYS_close:
	case SYS_close_range:
	case SYS_dup:
	case SYS_dup3:
	case SYS_fcntl:
	case SYS_flock:
	case SYS_renameat2:
	case SYS_unlinkat:
	case SYS_mkdirat:
	case SYS_linkat:
	case SYS_symlinkat:
	case SYS_mknodat:
	case SYS_fchmod:
	case SYS_fchmodat:
	case SYS_fchown:
	case SYS_fchownat:
	case SYS_utimensat:
	case SYS_setxattr:
	case SYS_lsetxattr:
	case SYS_fsetxattr:
	case SYS_removexattr:
	case SYS_lremovexattr:
	case SYS_fremovexattr:
#if defined(__x86_64__)
		OLD_CASES
#endif
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
	ret = through_gate(number, a, b, c, d, e, f);
	record_flags = before;
	return ret;
}

/* The requests that change a file; the others are passed on unseen. */
int do_ioctl(int fd, unsigned long request, unsigned long arg)
{
	union slot s = slot_of(fd);

	if (LIKELY(!slot_protected(s)))
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
