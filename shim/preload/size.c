/* SPDX-License-Identifier: MIT
 *
 * Changing a file's length or its allocation.
 */
#include "preload/call.h"

#include "preload/transactions.h"

int do_ftruncate(int fd, off_t size)
{
	union slot s = slot_of(fd);
	int ret;

	if (LIKELY(!slot_protected(s)))
		return real.ftruncate(fd, size);
	ret = RECORDED(s, OP_FTRUNCATE, -1, (uint64_t)size, 0, real.ftruncate(fd, size));
	if (ret == 0)
		transaction_truncated(s, size);
	return ret;
}

int do_truncate(const char *path, off_t size)
{
	struct place place;
	int ret;

	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return real.truncate(path, size);
	ret = RECORDED(place.slot, OP_TRUNCATE, -1, (uint64_t)size, 0, real.truncate(path, size));
	if (ret == 0)
		transaction_truncated(place.slot, size);
	return ret;
}

int do_fallocate(int fd, int mode, off_t offset, off_t size)
{
	union slot s = slot_of(fd);

	if (LIKELY(!slot_protected(s)))
		return real.fallocate(fd, mode, offset, size);
	return RECORDED(s, OP_FALLOCATE, offset, (uint64_t)size, (unsigned)mode,
			real.fallocate(fd, mode, offset, size));
}

/* Returns its error instead of setting errno. */
int do_posix_fallocate(int fd, off_t offset, off_t size)
{
	union slot s = slot_of(fd);
	struct oplog_claim claim;
	int error;

	if (LIKELY(!slot_protected(s)))
		return REAL_LATE(posix_fallocate)(fd, offset, size);
	claim = record_begin(s, OP_FALLOCATE, offset, (uint64_t)size, 0);
	error = REAL_LATE(posix_fallocate)(fd, offset, size);
	oplog_end(claim, -(int64_t)error);
	return error;
}
