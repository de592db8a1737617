/* SPDX-License-Identifier: MIT
 *
 * Reading: change nothing, recorded with CHROMASHIM_LOG_READS=on.
 */
#include "preload/calls/call.h"
#include "preload/persist/persists.h"
#include "preload/refuse/readers.h"
#include "preload/sqlite/transactions.h"

static inline bool wanted(union slot s)
{
	return __builtin_expect(slot_protected(s), 0) && settings.log_reads;
}

/* What SQLite reads of its own files tells the state before a transaction. */
static inline bool tells(union slot s)
{
	return s.role == ROLE_DATABASE || s.role == ROLE_JOURNAL || s.role == ROLE_WAL;
}

static uint64_t room_in(const struct iovec *iov, int count)
{
	uint64_t n = 0;
	int i;

	for (i = 0; i < count; i++)
		n += iov[i].iov_len;
	return n;
}

static ssize_t protected_read(int fd, union slot s, void *buf, size_t n)
{
	bool holds = persist_holds(s);
	uint64_t before = holds ? persist_read_begin() : 0;
	off_t at = position_of(fd);
	ssize_t ret = wanted(s) ? RECORDED(s, OP_READ, at, n, 0, real.read(fd, buf, n))
				: real.read(fd, buf, n);

	if (holds && ret > 0 && at >= 0)
		persist_read_end(before, fd, s, at, buf, (size_t)ret);
	if (ret >= 0 && tells(s))
		transaction_read(s, buf, (size_t)ret, at);
	return ret;
}

ssize_t do_read(int fd, void *buf, size_t n)
{
	union slot s = slot_of(fd);

	if (LIKELY(!slot_protected(s)) || (!wanted(s) && !tells(s) && !persist_holds(s)))
		return real.read(fd, buf, n);
	return protected_read(fd, s, buf, n);
}

ssize_t do_read_chk(int fd, void *buf, size_t n, size_t room)
{
	persist_reading(slot_of(fd));
	if (n > room || !wanted(slot_of(fd)))
		return REAL_LATE(__read_chk)(fd, buf, n, room);
	return do_read(fd, buf, n);
}

static ssize_t protected_pread(int fd, union slot s, void *buf, size_t n, off_t offset)
{
	bool holds = persist_holds(s);
	uint64_t before = holds ? persist_read_begin() : 0;
	ssize_t ret = wanted(s)
			  ? RECORDED(s, OP_PREAD, offset, n, 0, real.pread(fd, buf, n, offset))
			  : real.pread(fd, buf, n, offset);

	if (holds && ret > 0)
		persist_read_end(before, fd, s, offset, buf, (size_t)ret);
	if (ret >= 0 && tells(s))
		transaction_read(s, buf, (size_t)ret, offset);
	return reader_concerns(s) ? reader_reads(fd, s, buf, n, offset, ret) : ret;
}

ssize_t do_pread(int fd, void *buf, size_t n, off_t offset)
{
	union slot s = slot_of(fd);

	if (LIKELY(!slot_protected(s)) || (!wanted(s) && !tells(s) && !persist_holds(s)))
		return real.pread(fd, buf, n, offset);
	return protected_pread(fd, s, buf, n, offset);
}

ssize_t do_pread_chk(int fd, void *buf, size_t n, off_t offset, size_t room)
{
	persist_reading(slot_of(fd));
	if (n > room || !wanted(slot_of(fd)))
		return REAL_LATE(__pread_chk)(fd, buf, n, offset, room);
	return do_pread(fd, buf, n, offset);
}

ssize_t do_readv(int fd, const struct iovec *iov, int count)
{
	union slot s = slot_of(fd);

	persist_reading(s);
	if (!wanted(s))
		return real.readv(fd, iov, count);
	return RECORDED(s, OP_READV, position_of(fd), room_in(iov, count), (unsigned)count,
			real.readv(fd, iov, count));
}

ssize_t do_preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
	union slot s = slot_of(fd);

	persist_reading(s);
	if (!wanted(s))
		return real.preadv(fd, iov, count, offset);
	return RECORDED(s, OP_PREADV, offset, room_in(iov, count), (unsigned)count,
			real.preadv(fd, iov, count, offset));
}

ssize_t do_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	union slot s = slot_of(fd);

	persist_reading(s);
	if (!wanted(s))
		return real.preadv2(fd, iov, count, offset, flags);
	return RECORDED(s, OP_PREADV, offset == -1 ? position_of(fd) : offset, room_in(iov, count),
			(unsigned)count, real.preadv2(fd, iov, count, offset, flags));
}
