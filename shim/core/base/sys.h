/* SPDX-License-Identifier: MIT
 *
 * System calls without libc: no errno, no cancellation, nothing interposed. Each returns what the
 * kernel gave, -errno on failure. For code that runs inside the backend, in signal handlers, in
 * vfork children and before main.
 */
#ifndef CORE_SYS_H
#define CORE_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>

#if defined(__x86_64__)
static inline long sys_call(long n, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long sys_call(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
#else
#error "chromashim knows the system call conventions of x86-64 and aarch64"
#endif

#define SYS0(n) sys_call((n), 0, 0, 0, 0, 0, 0)
#define SYS1(n, a) sys_call((n), (long)(a), 0, 0, 0, 0, 0)
#define SYS2(n, a, b) sys_call((n), (long)(a), (long)(b), 0, 0, 0, 0)
#define SYS3(n, a, b, c) sys_call((n), (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define SYS4(n, a, b, c, d) sys_call((n), (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define SYS5(n, a, b, c, d, e) \
	sys_call((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define SYS6(n, a, b, c, d, e, f) \
	sys_call((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* In tests, each call by which the shim changes something may fail: see preload/place/faults.h. */
#ifdef CHROMASHIM_FAULTS
int fault_of_own(void);
#define SYS_MAY_FAIL()                       \
	do {                                 \
		int fault_ = fault_of_own(); \
		if (fault_)                  \
			return fault_;       \
	} while (0)
#else
#define SYS_MAY_FAIL() ((void)0)
#endif

static inline int sys_close(int fd)
{
	return (int)SYS1(SYS_close, fd);
}

static inline ssize_t sys_read(int fd, void *buf, size_t n)
{
	return SYS3(SYS_read, fd, buf, n);
}

static inline ssize_t sys_write(int fd, const void *buf, size_t n)
{
	return SYS3(SYS_write, fd, buf, n);
}

static inline ssize_t sys_pread(int fd, void *buf, size_t n, off_t offset)
{
	return SYS4(SYS_pread64, fd, buf, n, offset);
}

/*
 * A file of ours must not raise SIGXFSZ in a process whose limit (ulimit -f, LimitFSIZE=) was set
 * for its own: what would go beyond it is an error.
 */
static inline int sys_within_limit(off_t end)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

	SYS4(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit);
	return limit.rlim_cur == RLIM_INFINITY || (uint64_t)end <= limit.rlim_cur ? 0 : -EFBIG;
}

static inline ssize_t sys_pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	SYS_MAY_FAIL();
	if (sys_within_limit(offset + (off_t)n) < 0)
		return -EFBIG;
	return SYS4(SYS_pwrite64, fd, buf, n, offset);
}

/*
 * What must not be left half done is done with the thread's signals held back: a handler could jump
 * out of it, and a cancellation, which comes as a signal, end the thread in it. Not held back are
 * those that the thread itself causes, of which the kernel ends a process that blocks them. Returns
 * what was blocked before, for sys_let_signals().
 */
static inline uint64_t sys_hold_signals(void)
{
	const uint64_t own = UINT64_C(1) << (SIGBUS - 1) | UINT64_C(1) << (SIGSEGV - 1) |
			     UINT64_C(1) << (SIGILL - 1) | UINT64_C(1) << (SIGFPE - 1) |
			     UINT64_C(1) << (SIGTRAP - 1) | UINT64_C(1) << (SIGSYS - 1);
	const uint64_t held = ~own;
	uint64_t before = 0;

	SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &held, &before, sizeof(held));
	return before;
}

static inline void sys_let_signals(uint64_t before)
{
	SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
}

static inline off_t sys_lseek(int fd, off_t offset, int whence)
{
	return SYS3(SYS_lseek, fd, offset, whence);
}

static inline int sys_fstat(int fd, struct stat *st)
{
	return (int)SYS2(SYS_fstat, fd, st);
}

static inline int sys_fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
	return (int)SYS4(SYS_newfstatat, dirfd, path, st, flags);
}

/*
 * Gives a file to the owner of another one, as root does. Where they are the same nothing is
 * called: a sandbox may end a process that only tries.
 */
static inline int sys_chown_like(int fd, const struct stat *to)
{
	struct stat st;
	int r = sys_fstat(fd, &st);

	if (r < 0 || (st.st_uid == to->st_uid && st.st_gid == to->st_gid))
		return r;
	return (int)SYS3(SYS_fchown, fd, to->st_uid, to->st_gid);
}

/* What root has just made belongs to the owner of the directory it is in: see owner.h. */
static inline void sys_give_made(int dirfd, int fd)
{
	struct stat directory;

	if (fd >= 0 && SYS0(SYS_geteuid) == 0 && sys_fstat(dirfd, &directory) == 0)
		sys_chown_like(fd, &directory);
}

static inline int sys_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	int fd;

	if (flags & O_CREAT)
		SYS_MAY_FAIL();
	fd = (int)SYS4(SYS_openat, dirfd, path, flags, mode);
	if (flags & O_CREAT)
		sys_give_made(dirfd, fd);
	return fd;
}

static inline int sys_ftruncate(int fd, off_t size)
{
	SYS_MAY_FAIL();
	if (size && sys_within_limit(size) < 0)
		return -EFBIG;
	return (int)SYS2(SYS_ftruncate, fd, size);
}

static inline int sys_fallocate(int fd, int mode, off_t offset, off_t size)
{
	SYS_MAY_FAIL();
	if (sys_within_limit(offset + size) < 0)
		return -EFBIG;
	return (int)SYS4(SYS_fallocate, fd, mode, offset, size);
}

static inline int sys_fdatasync(int fd)
{
	SYS_MAY_FAIL();
	return (int)SYS1(SYS_fdatasync, fd);
}

/* Starts writing what is dirty of n bytes (0: all) and does not wait; a sync does, and tells. */
static inline void sys_start_writing(int fd, uint64_t offset, uint64_t n)
{
	SYS4(SYS_sync_file_range, fd, offset, n, SYNC_FILE_RANGE_WRITE);
}

/* And waits until it is with the disk, in whose memory it may still be; 0 or -errno. */
static inline int sys_wait_written(int fd)
{
	return (int)SYS4(SYS_sync_file_range, fd, 0, 0,
			 SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			     SYNC_FILE_RANGE_WAIT_AFTER);
}

static inline int sys_fsync(int fd)
{
	SYS_MAY_FAIL();
	return (int)SYS1(SYS_fsync, fd);
}

static inline int sys_mkdirat(int dirfd, const char *path, mode_t mode)
{
	int r, fd;

	SYS_MAY_FAIL();
	r = (int)SYS3(SYS_mkdirat, dirfd, path, mode);
	if (r == 0 && SYS0(SYS_geteuid) == 0) {
		fd = sys_openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
		sys_give_made(dirfd, fd);
		if (fd >= 0)
			sys_close(fd);
	}
	return r;
}

static inline int sys_unlinkat(int dirfd, const char *path, int flags)
{
	SYS_MAY_FAIL();
	return (int)SYS3(SYS_unlinkat, dirfd, path, flags);
}

static inline int sys_renameat(int from, const char *old, int to, const char *new)
{
	SYS_MAY_FAIL();
	return (int)SYS5(SYS_renameat2, from, old, to, new, 0);
}

/* -EEXIST where there is one; -EINVAL, -ENOSYS: not on this file system, not with this kernel. */
static inline int sys_rename_new(int from, const char *old, int to, const char *new)
{
	SYS_MAY_FAIL();
	return (int)SYS5(SYS_renameat2, from, old, to, new, 1 /* RENAME_NOREPLACE */);
}

static inline int sys_linkat(int from, const char *old, int to, const char *new)
{
	SYS_MAY_FAIL();
	return (int)SYS5(SYS_linkat, from, old, to, new, 0);
}

static inline ssize_t sys_readlinkat(int dirfd, const char *path, char *buf, size_t n)
{
	return SYS4(SYS_readlinkat, dirfd, path, buf, n);
}

/* What getdents64 gives, as the kernel lays it out; libc has no such type in its headers. */
struct linux_dirent64 {
	uint64_t ino;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

static inline ssize_t sys_getdents(int fd, void *buf, size_t n)
{
	return SYS3(SYS_getdents64, fd, buf, n);
}

static inline int sys_fcntl(int fd, int cmd, unsigned long arg)
{
	return (int)SYS3(SYS_fcntl, fd, cmd, arg);
}

#define SYS_FD_PATH 32

/* "/proc/self/fd/N": the file of an open descriptor, whatever its names are now. */
static inline void sys_fd_path(char out[SYS_FD_PATH], int fd)
{
	static const char prefix[] = "/proc/self/fd/";
	char digits[12];
	size_t n, k = 0;

	for (n = 0; prefix[n]; n++)
		out[n] = prefix[n];
	do {
		digits[k++] = (char)('0' + fd % 10);
		fd /= 10;
	} while (fd);
	while (k)
		out[n++] = digits[--k];
	out[n] = '\0';
}

/* As much of n bytes as there is, or -errno. */
static inline ssize_t sys_pread_all(int fd, void *buf, size_t n, uint64_t at)
{
	size_t have = 0;

	while (have < n) {
		ssize_t got = sys_pread(fd, (char *)buf + have, n - have, (off_t)(at + have));

		if (got == -EINTR)
			continue;
		if (got < 0)
			return got;
		if (got == 0)
			break;
		have += (size_t)got;
	}
	return (ssize_t)have;
}

static inline int sys_pwrite_all(int fd, const void *data, size_t n, uint64_t at)
{
	const char *p = data;

	while (n) {
		ssize_t done = sys_pwrite(fd, p, n, (off_t)at);

		if (done == -EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? (int)done : -EIO;
		p += done;
		at += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

/* The address, or -errno as a pointer: test with sys_map_failed(). */
static inline void *sys_mmap(size_t size, int prot, int flags, int fd, off_t offset)
{
	return (void *)SYS6(SYS_mmap, 0, size, prot, flags, fd, offset);
}

static inline int sys_map_failed(const void *map)
{
	return (unsigned long)map > (unsigned long)-4096;
}

static inline int sys_munmap(void *map, size_t size)
{
	return (int)SYS2(SYS_munmap, map, size);
}

static inline int sys_getpid(void)
{
	return (int)SYS0(SYS_getpid);
}

static inline int sys_gettid(void)
{
	return (int)SYS0(SYS_gettid);
}

static inline int sys_kill(int pid, int signal)
{
	return (int)SYS2(SYS_kill, pid, signal);
}

#endif
