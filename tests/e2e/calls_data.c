/* SPDX-License-Identifier: MIT
 *
 * calls: bytes, lengths, and what brings them to the disk; and syscall(), by which all of it can be
 * done.
 */
#include <aio.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.h"

/* ---- data ---- */

CASE(writes)
{
	int fd = make(name, "");

	lseek(fd, 4, SEEK_SET);
	AS(ssize_t, int, const void *, size_t)(fd, "write", 5);
	AS(ssize_t, int, const void *, size_t)(fd, "", 0);
	AS(ssize_t, int, const void *, size_t)(fd, (void *)8, 5);
	close(fd);
	fd = open(path_of(name, ""), O_RDONLY);
	AS(ssize_t, int, const void *, size_t)(fd, "no", 2);
	close(fd);
}

CASE(pwrites)
{
	int fd = make(name, "");

	AS(ssize_t, int, const void *, size_t, off_t)(fd, "pwrite", 6, 100);
	AS(ssize_t, int, const void *, size_t, off_t)(fd, "far", 3, (off_t)1 << 33);
	AS(ssize_t, int, const void *, size_t, off_t)(fd, "bad", 3, -2);
	ftruncate(fd, 200);
	close(fd);
}

static const struct iovec parts[] = {{.iov_base = "one", .iov_len = 3},
				     {.iov_base = "", .iov_len = 0},
				     {.iov_base = "three", .iov_len = 5}};

CASE(writevs)
{
	int fd = make(name, "");

	AS(ssize_t, int, const struct iovec *, int)(fd, parts, 3);
	AS(ssize_t, int, const struct iovec *, int)(fd, parts, -1);
	close(fd);
}

CASE(pwritevs)
{
	int fd = make(name, "");

	AS(ssize_t, int, const struct iovec *, int, off_t)(fd, parts, 3, 30);
	close(fd);
}

CASE(pwritev2s)
{
	int fd = make(name, "");

	AS(ssize_t, int, const struct iovec *, int, off_t, int)(fd, parts, 3, 30, RWF_SYNC);
	AS(ssize_t, int, const struct iovec *, int, off_t, int)(fd, parts, 3, -1, 0);
	AS(ssize_t, int, const struct iovec *, int, off_t, int)(fd, parts, 3, 0, RWF_APPEND);
	close(fd);
}

CASE(sendfiles)
{
	int from = make(name, "-from"), to = make(name, "");
	off_t at = 4;

	AS(ssize_t, int, int, off_t *, size_t)(to, from, &at, 8);
	lseek(from, 0, SEEK_SET);
	AS(ssize_t, int, int, off_t *, size_t)(to, from, NULL, 4);
	close(from);
	close(to);
}

CASE(copies)
{
	int from = make(name, "-from"), to = make(name, "");
	off_t in = 2, out = 100;

	AS(ssize_t, int, off_t *, int, off_t *, size_t, unsigned)(from, &in, to, &out, 9, 0);
	AS(ssize_t, int, off_t *, int, off_t *, size_t, unsigned)(from, &in, to, NULL, 3, 0);
	close(from);
	close(to);
}

CASE(splices)
{
	int fd = make(name, ""), ends[2];
	off_t at = 50;

	if (pipe(ends) < 0 || write(ends[1], "through a pipe", 14) != 14)
		err(1, "pipe");
	AS(ssize_t, int, off_t *, int, off_t *, size_t, unsigned)(ends[0], NULL, fd, &at, 7, 0);
	AS(ssize_t, int, off_t *, int, off_t *, size_t, unsigned)(ends[0], NULL, fd, NULL, 7, 0);
	close(ends[0]);
	close(ends[1]);
	close(fd);
}

CASE(ioctls)
{
	int from = make(name, "-from"), to = make(name, "");

	AS(int, int, unsigned long, ...)(to, FICLONE, from);
	close(from);
	close(to);
}

/* ---- asynchronous: done by threads of libc's own ---- */

static void wait_for(struct aiocb *cb)
{
	const struct aiocb *list[] = {cb};

	while (aio_error(cb) == EINPROGRESS)
		aio_suspend(list, 1, NULL);
	aio_return(cb);
}

CASE(aio_writes)
{
	struct aiocb cb = {.aio_fildes = make(name, ""),
			   .aio_buf = "asynchronous",
			   .aio_nbytes = 12,
			   .aio_offset = 40};

	AS(int, struct aiocb *)(&cb);
	wait_for(&cb);
	close(cb.aio_fildes);
}

CASE(aio_fsyncs)
{
	struct aiocb cb = {.aio_fildes = make(name, "")};

	AS(int, int, struct aiocb *)(O_DSYNC, &cb);
	wait_for(&cb);
	close(cb.aio_fildes);
}

CASE(lio_listios)
{
	struct aiocb a = {.aio_fildes = make(name, ""),
			  .aio_buf = "first",
			  .aio_nbytes = 5,
			  .aio_offset = 20,
			  .aio_lio_opcode = LIO_WRITE};
	struct aiocb b = a;
	struct aiocb *list[] = {&a, NULL, &b};

	b.aio_offset = 30;
	AS(int, int, struct aiocb *const *, int, struct sigevent *)(LIO_WAIT, list, 3, NULL);
	close(a.aio_fildes);
}

/* ---- length and allocation ---- */

CASE(ftruncates)
{
	int fd = make(name, "");

	AS(int, int, off_t)(fd, 9);
	AS(int, int, off_t)(fd, 900);
	AS(int, int, off_t)(fd, -1);
	close(fd);
}

CASE(truncates)
{
	leave(name, "");
	AS(int, const char *, off_t)(path_of(name, ""), 5);
	AS(int, const char *, off_t)(path_of(name, "-absent"), 5);
}

CASE(fallocates)
{
	int fd = make(name, "");

	AS(int, int, int, off_t, off_t)(fd, 0, 100, 200);
	AS(int, int, int, off_t, off_t)(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8);
	close(fd);
}

CASE(posix_fallocates)
{
	int fd = make(name, "");

	AS(int, int, off_t, off_t)(fd, 100, 300);
	AS(int, int, off_t, off_t)(fd, 0, 0);
	close(fd);
}

/* ---- sync ---- */

CASE(syncs)
{
	int fd = make(name, "");

	AS(int, int)(fd);
	close(fd);
}

CASE(sync_ranges)
{
	int fd = make(name, "");

	AS(int, int, off_t, off_t, unsigned)(fd, 0, 16, SYNC_FILE_RANGE_WRITE);
	close(fd);
}

/* ---- the gate ---- */

CASE(syscalls)
{
	long (*call)(long, ...) = (long (*)(long, ...))symbol;
	int fd = (int)call(SYS_openat, AT_FDCWD, path_of(name, ""), FD_MODE, 0644), copy;

	call(SYS_write, fd, "by number", 9);
	call(SYS_pwrite64, fd, "offset", 6, 40);
	call(SYS_writev, fd, parts, 3);
	call(SYS_ftruncate, fd, 60);
	call(SYS_fsync, fd);
	copy = (int)call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0);
	call(SYS_close, fd);
	call(SYS_write, copy, "copy", 4);
	call(SYS_dup3, copy, 79, 0);
	call(SYS_close_range, copy, copy, 0);
	call(SYS_write, 79, "last", 4);
	call(SYS_close, 79);
	elsewhere();
	leave(name, "-from");
	call(SYS_renameat2, AT_FDCWD, path_of(name, "-from"), dirfd_, base(path_of(name, "-to")),
	     0);
	call(SYS_linkat, dirfd_, base(path_of(name, "-to")), dirfd_, base(path_of(name, "-link")),
	     0);
	call(SYS_unlinkat, dirfd_, base(path_of(name, "-to")), 0);
	call(SYS_mkdirat, dirfd_, base(path_of(name, "-dir")), 0700);
	call(SYS_truncate, path_of(name, "-link"), 3);
	call(SYS_fallocate, -1, 0, 0, 1);
	call(SYS_write, -1, "nowhere", 7);
}

const struct call_case data_cases[] = {
    {"write", writes},
    {"__write", writes},
    {"pwrite", pwrites},
    {"pwrite64", pwrites},
    {"__pwrite64", pwrites},
    {"writev", writevs},
    {"pwritev", pwritevs},
    {"pwritev64", pwritevs},
    {"pwritev2", pwritev2s},
    {"pwritev64v2", pwritev2s},
    {"sendfile", sendfiles},
    {"sendfile64", sendfiles},
    {"copy_file_range", copies},
    {"splice", splices},
    {"ioctl", ioctls},
    {"aio_write", aio_writes},
    {"aio_write64", aio_writes},
    {"aio_fsync", aio_fsyncs},
    {"aio_fsync64", aio_fsyncs},
    {"lio_listio", lio_listios},
    {"lio_listio64", lio_listios},
    {"ftruncate", ftruncates},
    {"ftruncate64", ftruncates},
    {"truncate", truncates},
    {"truncate64", truncates},
    {"fallocate", fallocates},
    {"fallocate64", fallocates},
    {"posix_fallocate", posix_fallocates},
    {"posix_fallocate64", posix_fallocates},
    {"fsync", syncs},
    {"fdatasync", syncs},
    {"syncfs", syncs},
    {"sync_file_range", sync_ranges},
    {"syscall", syscalls},
    {NULL, NULL},
};
