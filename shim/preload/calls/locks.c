/* SPDX-License-Identifier: MIT
 *
 * Locks: SQLite's are byte ranges, and tell its transactions.
 */
#include "preload/calls/call.h"

#include "core/sqlite/page.h"
#include "preload/base/readable.h"
#include "preload/refuse/readers.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/carriers.h"
#include "preload/sqlite/transactions.h"

static uint64_t lock_arg(int cmd, short type)
{
	uint64_t arg = type == F_WRLCK	 ? OPLOG_LOCK_WRITE
		       : type == F_UNLCK ? OPLOG_LOCK_UNLOCK
					 : OPLOG_LOCK_READ;

	if (cmd == F_SETLKW || cmd == F_OFD_SETLKW)
		arg |= OPLOG_LOCK_WAIT;
	if (cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW)
		arg |= OPLOG_LOCK_OFD;
	return arg;
}

/* Start of the range from the beginning of the file. */
static off_t lock_start(int fd, const struct flock *lock)
{
	struct stat st;

	if (lock->l_whence == SEEK_CUR)
		return lock->l_start + position_of(fd);
	if (lock->l_whence == SEEK_END && sys_fstat(fd, &st) == 0)
		return lock->l_start + st.st_size;
	return lock->l_start;
}

static int real_record_lock(int fd, union slot s, int cmd, struct flock *lock)
{
	int ret;

	if (!carrier_lock(s, fd, cmd, lock, &ret))
		return real.fcntl(fd, cmd, (unsigned long)lock);
	if (ret < 0) {
		errno = -ret;
		ret = -1;
	}
	return ret;
}

/*
 * SQLite asks whether somebody else is in a transaction, and a journal thus not hot. The fence that
 * the guardian keeps is none; nor is a writer's own, who shares it.
 */
static void forgive_fence(union slot s, struct flock *lock)
{
	if (s.role == ROLE_DATABASE && lock->l_type == F_RDLCK &&
	    lock->l_start == SQLITE_RESERVED_BYTE && !transaction_open(s.protection) &&
	    !writer_is_foreign(protection_of(s)))
		lock->l_type = F_UNLCK;
}

/* Another thread had the right when this one asked, and has given it back since. */
static bool asks_again(int fd, union slot s, int cmd, struct flock *lock, off_t start, int *tries)
{
	if (lock->l_type != F_WRLCK || start != SQLITE_RESERVED_BYTE || !writer_lacks_right(s) ||
	    (*tries)++)
		return false;
	lock->l_type = F_UNLCK;
	real_record_lock(fd, s, cmd, lock);
	lock->l_type = F_WRLCK;
	return true;
}

int do_record_lock(int fd, int cmd, struct flock *lock)
{
	union slot s = slot_of(fd);
	short type;
	off_t calls_locks_start, length;
	int ret, tries = 0;

	if (!address_is_readable(lock, sizeof(*lock)))
		return real.fcntl(fd, cmd, (unsigned long)lock);
	if (cmd == F_GETLK || cmd == F_OFD_GETLK) {
		ret = real_record_lock(fd, s, cmd, lock);
		if (ret == 0)
			forgive_fence(s, lock);
		return ret;
	}
	type = lock->l_type;
	calls_locks_start = lock_start(fd, lock);
	length = lock->l_len;
	if (reader_lock(fd, s, lock, calls_locks_start, &ret)) {
		errno = ret < 0 ? -ret : errno;
		return ret < 0 ? -1 : 0;
	}
	if (type == F_UNLCK)
		transaction_unlocks(s, calls_locks_start, length);
	do
		ret = CHANGED(CHANGE_FD(OP_LOCK, fd, s, calls_locks_start,
					.length = (uint64_t)length, .arg = lock_arg(cmd, type)),
			      real_record_lock(fd, s, cmd, lock));
	while (ret == 0 && asks_again(fd, s, cmd, lock, calls_locks_start, &tries));
	if (ret == 0)
		transaction_locked(s, type, calls_locks_start, length);
	if (type == F_UNLCK)
		writer_leaves(s);
	return ret;
}

int do_flock(int fd, int operation)
{
	union slot s = slot_of(fd);

	if (LIKELY(!slot_protected(s)))
		return real.flock(fd, operation);
	return RECORDED(s, OP_FLOCK, -1, 0, (unsigned)operation, real.flock(fd, operation));
}

/* As libc does it, through our own fcntl. */
int do_lockf(int fd, int cmd, off_t length)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_len = length};

	if (LIKELY(!slot_protected(slot_of(fd))))
		return REAL_LATE(lockf)(fd, cmd, length);
	switch (cmd) {
	case F_TEST:
		lock.l_type = F_RDLCK;
		if (real.fcntl(fd, F_GETLK, (unsigned long)&lock) < 0)
			return -1;
		if (lock.l_type == F_UNLCK || lock.l_pid == sys_getpid())
			return 0;
		errno = EACCES;
		return -1;
	case F_ULOCK:
		lock.l_type = F_UNLCK;
		return do_record_lock(fd, F_SETLK, &lock);
	case F_LOCK:
		return do_record_lock(fd, F_SETLKW, &lock);
	case F_TLOCK:
		return do_record_lock(fd, F_SETLK, &lock);
	default:
		errno = EINVAL;
		return -1;
	}
}
