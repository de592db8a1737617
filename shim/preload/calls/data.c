/* SPDX-License-Identifier: MIT
 *
 * Writing: every way to change a file's bytes through a descriptor.
 */
#include "preload/calls/call.h"

#include <limits.h>

#include "preload/base/readable.h"
#include "preload/persist/persists.h"

static uint64_t vector_length(const struct iovec *iov, int count)
{
	uint64_t n = 0;
	int i;

	if (count < 0 || count > IOV_MAX || !address_is_readable(iov, (size_t)count * sizeof(*iov)))
		return 0;
	for (i = 0; i < count; i++)
		n += iov[i].iov_len;
	return n;
}

static ssize_t protected_write(int fd, union slot s, const void *buf, size_t n)
{
	struct iovec iov = {(void *)(uintptr_t)buf, n};

	return CHANGED(
	    CHANGE_FD(OP_WRITE, fd, s, position_of(fd), .length = n, .iov = &iov, .iov_count = 1),
	    real.write(fd, buf, n));
}

ssize_t do_write(int fd, const void *buf, size_t n)
{
	union slot s = slot_of(fd);

	if (LIKELY(!s.all))
		return real.write(fd, buf, n);
	return protected_write(fd, s, buf, n);
}

static ssize_t protected_pwrite(int fd, union slot s, const void *buf, size_t n, off_t offset)
{
	struct iovec iov = {(void *)(uintptr_t)buf, n};

	return CHANGED(
	    CHANGE_FD(OP_PWRITE, fd, s, offset, .length = n, .iov = &iov, .iov_count = 1),
	    real.pwrite(fd, buf, n, offset));
}

ssize_t do_pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	union slot s = slot_of(fd);

	if (LIKELY(!s.all))
		return real.pwrite(fd, buf, n, offset);
	return protected_pwrite(fd, s, buf, n, offset);
}

ssize_t do_writev(int fd, const struct iovec *iov, int count)
{
	union slot s = slot_of(fd);

	if (LIKELY(!s.all))
		return real.writev(fd, iov, count);
	return CHANGED(CHANGE_FD(OP_WRITEV, fd, s, position_of(fd),
				 .length = vector_length(iov, count), .arg = (unsigned)count,
				 .iov = iov, .iov_count = count),
		       real.writev(fd, iov, count));
}

/* Offset -1 in pwritev2: at the position. */
ssize_t do_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	union slot s = slot_of(fd);

	if (LIKELY(!s.all))
		return real.pwritev2(fd, iov, count, offset, flags);
	return CHANGED(CHANGE_FD(OP_PWRITEV, fd, s, offset == -1 ? position_of(fd) : offset,
				 .length = vector_length(iov, count), .arg = (unsigned)count,
				 .iov = iov, .iov_count = count),
		       real.pwritev2(fd, iov, count, offset, flags));
}

ssize_t do_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	union slot s = slot_of(fd);

	if (LIKELY(!s.all))
		return real.pwritev(fd, iov, count, offset);
	return CHANGED(CHANGE_FD(OP_PWRITEV, fd, s, offset, .length = vector_length(iov, count),
				 .arg = (unsigned)count, .iov = iov, .iov_count = count),
		       real.pwritev(fd, iov, count, offset));
}

/* ---- copies made by the kernel; what they wrote to a database is not looked into ---- */

ssize_t do_sendfile(int out, int in, off_t *offset, size_t n)
{
	union slot s = slot_of(out);

	persist_reading(slot_of(in));
	if (LIKELY(!s.all))
		return real.sendfile(out, in, offset, n);
	return CHANGED(CHANGE_FD(OP_SENDFILE, out, s, position_of(out), .length = n),
		       real.sendfile(out, in, offset, n));
}

static int64_t target_offset(int fd, const off_t *offset)
{
	return offset && address_is_readable(offset, sizeof(*offset)) ? *offset : position_of(fd);
}

ssize_t do_copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t n,
			   unsigned int flags)
{
	union slot s = slot_of(out);

	persist_reading(slot_of(in));
	if (LIKELY(!s.all))
		return real.copy_file_range(in, in_offset, out, out_offset, n, flags);
	return CHANGED(
	    CHANGE_FD(OP_COPY_FILE_RANGE, out, s, target_offset(out, out_offset), .length = n),
	    real.copy_file_range(in, in_offset, out, out_offset, n, flags));
}

ssize_t do_splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t n,
		  unsigned int flags)
{
	union slot s = slot_of(out);

	persist_reading(slot_of(in));
	if (LIKELY(!s.all))
		return real.splice(in, in_offset, out, out_offset, n, flags);
	return CHANGED(CHANGE_FD(OP_SPLICE, out, s, target_offset(out, out_offset), .length = n),
		       real.splice(in, in_offset, out, out_offset, n, flags));
}

/* ---- POSIX AIO: libc's threads write later; recorded when handed in ---- */

static struct change aio_change(const struct aiocb *cb, union slot s)
{
	return CHANGE_FD(OP_AIO_WRITE, cb->aio_fildes, s, cb->aio_offset, .length = cb->aio_nbytes);
}

int do_aio_write(struct aiocb *cb)
{
	union slot s = cb ? slot_of(cb->aio_fildes) : (union slot){0};

	if (LIKELY(!s.all))
		return REAL_LATE(aio_write)(cb);
	return CHANGED(aio_change(cb, s), REAL_LATE(aio_write)(cb));
}

int do_aio_fsync(int op, struct aiocb *cb)
{
	union slot s = cb ? slot_of(cb->aio_fildes) : (union slot){0};

	if (LIKELY(!s.all))
		return REAL_LATE(aio_fsync)(op, cb);
	return RECORDED(s, op == O_DSYNC ? OP_FDATASYNC : OP_FSYNC, -1, 0, 0,
			REAL_LATE(aio_fsync)(op, cb));
}

/* One by one where one is ours: the list as a whole could not be refused in part. */
int do_lio_listio(int mode, struct aiocb *const *list, int count, struct sigevent *event)
{
	int i;

	for (i = 0; list && i < count; i++) {
		union slot s = list[i] ? slot_of(list[i]->aio_fildes) : (union slot){0};

		if (s.all && list[i]->aio_lio_opcode == LIO_WRITE) {
			struct change c = aio_change(list[i], s);

			if (change_begin(&c) == CHANGE_ANSWERED)
				return (int)c.result;
			change_end(&c, 0);
		}
	}
	return REAL_LATE(lio_listio)(mode, list, count, event);
}
