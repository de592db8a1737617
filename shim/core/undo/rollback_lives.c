/* SPDX-License-Identifier: MIT
 *
 * Whether the process of an undo file lives.
 */
#include <errno.h>
#include <string.h>

#include "core/base/alive.h"
#include "core/base/number.h"
#include "core/base/sys.h"
#include "core/oplog/oplog.h"
#include "core/undo/rollback_internal.h"

int rollback_lock_state(int fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int r = sys_fcntl(fd, F_OFD_GETLK, (unsigned long)&lock);

	return r < 0 ? r : lock.l_type != F_UNLCK;
}

/* By the number alone: only where there is no lock to ask. */
static bool pid_lives(const struct undo_header *h)
{
	char path[48] = "/proc/";

	if (!rollback_same_boot(h) || (int)h->pid == sys_getpid())
		return false;
	memcpy(number_put(path + 6, path + 40, h->pid, 10, 1), "/stat", 6);
	return oplog_start_ticks(path) == h->start_ticks;
}

bool rollback_lives(int undofd, const struct undo_header *h)
{
	enum alive alive = ALIVE_UNKNOWN;
	int storefd;

	if (h->life) {
		storefd = sys_openat(undofd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
		if (storefd >= 0) {
			alive = alive_is(storefd, h->life);
			sys_close(storefd);
		}
	}
	return alive == ALIVE_UNKNOWN ? pid_lives(h) : alive == ALIVE_LIVES;
}
