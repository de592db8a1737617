/* SPDX-License-Identifier: MIT
 *
 * Changing a file's length or its allocation.
 */
#include "preload/calls/call.h"

int do_ftruncate(int fd, off_t size)
{
	union slot s = slot_of(fd);

	if (LIKELY(!s.all))
		return real.ftruncate(fd, size);
	return CHANGED(CHANGE_FD(OP_FTRUNCATE, fd, s, -1, .length = (uint64_t)size),
		       real.ftruncate(fd, size));
}

int do_truncate(const char *path, off_t size)
{
	A_PLACE(place);

	if (LIKELY(!place_find_target(&place, AT_FDCWD, path, true)))
		return real.truncate(path, size);
	return CHANGED(CHANGE_PATH(OP_TRUNCATE, &place, .length = (uint64_t)size),
		       real.truncate(path, size));
}

int do_fallocate(int fd, int mode, off_t offset, off_t size)
{
	union slot s = slot_of(fd);

	if (LIKELY(!s.all))
		return real.fallocate(fd, mode, offset, size);
	return CHANGED(
	    CHANGE_FD(OP_FALLOCATE, fd, s, offset, .length = (uint64_t)size, .arg = (unsigned)mode),
	    real.fallocate(fd, mode, offset, size));
}

/* Returns its error instead of setting errno. */
int do_posix_fallocate(int fd, off_t offset, off_t size)
{
	union slot s = slot_of(fd);
	int saved = errno, error = 0;

	if (LIKELY(!s.all))
		return REAL_LATE(posix_fallocate)(fd, offset, size);
	if (CHANGED(CHANGE_FD(OP_FALLOCATE, fd, s, offset, .length = (uint64_t)size), ({
			    errno = REAL_LATE(posix_fallocate)(fd, offset, size);
			    errno ? -1 : 0;
		    })) < 0)
		error = errno;
	errno = saved;
	return error;
}
