/* SPDX-License-Identifier: MIT
 *
 * Writing: every way to change a file's bytes through a descriptor.
 */
#include "preload/call.h"

#include <limits.h>

#include "preload/transactions.h"

static inline bool of_sqlite(union slot s)
{
	return s.role >= ROLE_DATABASE && s.role <= ROLE_SHM;
}

/* A write at the position: with O_APPEND only known afterwards. */
static void fix_offset(struct oplog_claim claim, int fd, union slot s, ssize_t ret)
{
	if ((s.writable & SLOT_APPEND) && claim.record && ret > 0)
		claim.record->offset = position_of(fd) - ret;
}

static void tell_vector(union slot s, const struct iovec *iov, int count, ssize_t n, off_t offset)
{
	int i;

	for (i = 0; i < count && n > 0; i++) {
		size_t length = iov[i].iov_len < (size_t)n ? iov[i].iov_len : (size_t)n;

		if (length)
			transaction_written(s, iov[i].iov_base, length, offset);
		offset += (off_t)length;
		n -= (ssize_t)length;
	}
}

static uint64_t vector_length(const struct iovec *iov, int count)
{
	uint64_t n = 0;
	int i;

	if (count < 0 || count > IOV_MAX)
		return 0;
	for (i = 0; i < count; i++)
		n += iov[i].iov_len;
	return n;
}

static ssize_t protected_write(int fd, union slot s, const void *buf, size_t n)
{
	int64_t offset = position_of(fd);
	struct oplog_claim claim = record_begin(s, OP_WRITE, offset, n, 0);
	ssize_t ret = real.write(fd, buf, n);

	fix_offset(claim, fd, s, ret);
	record_end(claim, ret);
	if (ret > 0 && of_sqlite(s))
		transaction_written(s, buf, (size_t)ret, offset);
	return ret;
}

ssize_t do_write(int fd, const void *buf, size_t n)
{
	union slot s = slot_of(fd);

	if (LIKELY(!slot_protected(s)))
		return real.write(fd, buf, n);
	return protected_write(fd, s, buf, n);
}

ssize_t do_pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	union slot s = slot_of(fd);
	ssize_t ret;

	if (LIKELY(!slot_protected(s)))
		return real.pwrite(fd, buf, n, offset);
	ret = RECORDED(s, OP_PWRITE, offset, n, 0, real.pwrite(fd, buf, n, offset));
	if (ret > 0 && of_sqlite(s))
		transaction_written(s, buf, (size_t)ret, offset);
	return ret;
}

ssize_t do_writev(int fd, const struct iovec *iov, int count)
{
	union slot s = slot_of(fd);
	struct oplog_claim claim;
	int64_t offset;
	ssize_t ret;

	if (LIKELY(!slot_protected(s)))
		return real.writev(fd, iov, count);
	offset = position_of(fd);
	claim = record_begin(s, OP_WRITEV, offset, vector_length(iov, count), (unsigned)count);
	ret = real.writev(fd, iov, count);
	fix_offset(claim, fd, s, ret);
	record_end(claim, ret);
	if (of_sqlite(s))
		tell_vector(s, iov, count, ret, offset);
	return ret;
}

/* Offset -1 in pwritev2: at the position. */
ssize_t do_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	union slot s = slot_of(fd);
	off_t at = offset;
	ssize_t ret;

	if (LIKELY(!slot_protected(s)))
		return real.pwritev2(fd, iov, count, offset, flags);
	if (at == -1)
		at = position_of(fd);
	ret = RECORDED(s, OP_PWRITEV, at, vector_length(iov, count), (unsigned)count,
		       real.pwritev2(fd, iov, count, offset, flags));
	if (of_sqlite(s))
		tell_vector(s, iov, count, ret, at);
	return ret;
}

ssize_t do_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	union slot s = slot_of(fd);
	ssize_t ret;

	if (LIKELY(!slot_protected(s)))
		return real.pwritev(fd, iov, count, offset);
	ret = RECORDED(s, OP_PWRITEV, offset, vector_length(iov, count), (unsigned)count,
		       real.pwritev(fd, iov, count, offset));
	if (of_sqlite(s))
		tell_vector(s, iov, count, ret, offset);
	return ret;
}

/* ---- copies made by the kernel; what they wrote to a database is not looked into ---- */

ssize_t do_sendfile(int out, int in, off_t *offset, size_t n)
{
	union slot s = slot_of(out);

	if (LIKELY(!slot_protected(s)))
		return real.sendfile(out, in, offset, n);
	return RECORDED(s, OP_SENDFILE, position_of(out), n, 0, real.sendfile(out, in, offset, n));
}

static int64_t target_offset(int fd, const off_t *offset)
{
	return offset ? *offset : position_of(fd);
}

ssize_t do_copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t n,
			   unsigned int flags)
{
	union slot s = slot_of(out);

	if (LIKELY(!slot_protected(s)))
		return real.copy_file_range(in, in_offset, out, out_offset, n, flags);
	return RECORDED(s, OP_COPY_FILE_RANGE, target_offset(out, out_offset), n, 0,
			real.copy_file_range(in, in_offset, out, out_offset, n, flags));
}

ssize_t do_splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t n,
		  unsigned int flags)
{
	union slot s = slot_of(out);

	if (LIKELY(!slot_protected(s)))
		return real.splice(in, in_offset, out, out_offset, n, flags);
	return RECORDED(s, OP_SPLICE, target_offset(out, out_offset), n, 0,
			real.splice(in, in_offset, out, out_offset, n, flags));
}

/* ---- POSIX AIO: libc's threads write later; recorded when handed in ---- */

static void note_aio(const struct aiocb *cb, int ret)
{
	union slot s = cb ? slot_of(cb->aio_fildes) : (union slot){0};

	if (slot_protected(s))
		record_end(record_begin(s, OP_AIO_WRITE, cb->aio_offset, cb->aio_nbytes, 0), ret);
}

int do_aio_write(struct aiocb *cb)
{
	int ret = REAL_LATE(aio_write)(cb);

	note_aio(cb, ret);
	return ret;
}

int do_aio_fsync(int op, struct aiocb *cb)
{
	union slot s = cb ? slot_of(cb->aio_fildes) : (union slot){0};

	if (LIKELY(!slot_protected(s)))
		return REAL_LATE(aio_fsync)(op, cb);
	return RECORDED(s, op == O_DSYNC ? OP_FDATASYNC : OP_FSYNC, -1, 0, 0,
			REAL_LATE(aio_fsync)(op, cb));
}

int do_lio_listio(int mode, struct aiocb *const *list, int count, struct sigevent *event)
{
	int ret = REAL_LATE(lio_listio)(mode, list, count, event);
	int i;

	for (i = 0; list && i < count; i++)
		if (list[i] && list[i]->aio_lio_opcode == LIO_WRITE)
			note_aio(list[i], ret);
	return ret;
}
