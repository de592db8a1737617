/* SPDX-License-Identifier: MIT
 *
 * Who has a data directory open.
 */
#include "command/base/in_use.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/alive.h"
#include "core/base/names.h"
#include "core/base/openers.h"
#include "core/pin/outside.h"
#include "core/sqlite/page.h"

/* SQLite's locks, in case /proc may not be looked into. */
static bool is_locked(const struct data_directory *t)
{
	struct flock lock = {.l_type = F_WRLCK,
			     .l_whence = SEEK_SET,
			     .l_start = SQLITE_PENDING_BYTE,
			     .l_len = SQLITE_LOCKS_SIZE};
	int fd = openat(t->dirfd, CHROMA_DATABASE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool locked = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;

	if (fd >= 0)
		close(fd);
	return locked;
}

int in_use_process(const struct data_directory *t, char *name_out, size_t room)
{
	struct process_opener *list;
	unsigned hidden;
	struct stat st;
	int n, pid = 0;

	snprintf(name_out, room, "another process");
	if (fstatat(t->dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	n = process_find_openers(&st, CHROMA_DATABASE, &list, &hidden);
	if (n > 0) {
		pid = (int)list[0].pid;
		snprintf(name_out, room, "%s", list[0].command[0] ? list[0].command : list[0].name);
	}
	free(list);
	if (!pid && (is_locked(t) || (t->storefd >= 0 && alive_in_use(t->storefd, -1))))
		pid = -1; /* in another container, it may be, and has not written yet */
	return pid;
}

bool in_use(const struct data_directory *t)
{
	char name[64];

	return alive_any(t->storefd) == ALIVE_LIVES || pin_has_writer(t->storefd) ||
	       in_use_process(t, name, sizeof(name)) != 0;
}

int in_use_refuse(const struct data_directory *t, const char *todo)
{
	char name[256];
	int pid = in_use_process(t, name, sizeof(name));

	if (pid > 0)
		return fail(EXIT_IN_THE_WAY, 0, todo, "process %d (%s) has '%s' open", pid, name,
			    t->dir);
	if (pid < 0)
		return fail(EXIT_IN_THE_WAY, 0, todo,
			    "a process that may not be looked into has '%s' open", t->dir);
	return 0;
}
