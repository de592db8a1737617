/* SPDX-License-Identifier: MIT
 *
 * Syncing files and directories to the disk.
 */
#include "preload/calls/call.h"

#include "preload/persist/persists.h"
#include "preload/place/faults.h"

int do_fsync(int fd)
{
	union slot s = slot_of(fd);

	persist_reading(s);
	if (LIKELY(!slot_protected(s)))
		return real.fsync(fd);
	return RECORDED(s, OP_FSYNC, -1, 0, 0, fault_of_sync(s) ? -1 : real.fsync(fd));
}

int do_fdatasync(int fd)
{
	union slot s = slot_of(fd);

	persist_reading(s);
	if (LIKELY(!slot_protected(s)))
		return real.fdatasync(fd);
	return RECORDED(s, OP_FDATASYNC, -1, 0, 0, fault_of_sync(s) ? -1 : real.fdatasync(fd));
}

int do_syncfs(int fd)
{
	union slot s = slot_of(fd);

	persist_reading(s);
	if (LIKELY(!slot_protected(s)))
		return real.syncfs(fd);
	return RECORDED(s, OP_SYNCFS, -1, 0, 0, real.syncfs(fd));
}

int do_sync_file_range(int fd, off_t offset, off_t n, unsigned int flags)
{
	union slot s = slot_of(fd);

	persist_reading(s);
	if (LIKELY(!slot_protected(s)))
		return real.sync_file_range(fd, offset, n, flags);
	return RECORDED(s, OP_SYNC_FILE_RANGE, offset, (uint64_t)n, flags,
			real.sync_file_range(fd, offset, n, flags));
}
