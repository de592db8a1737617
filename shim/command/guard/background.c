/* SPDX-License-Identifier: MIT
 *
 * The guardian as a process of its own: nobody's child, without a terminal and without any of the
 * backend's descriptors, since a pipe that it kept open would never end for its reader.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/guard/guardian.h"

#define LOG_NAME "guard.log"
#define LOG_OLD "guard.log.1"
#define LOG_BOUND (1 << 20)

static int open_log(int storefd)
{
	struct stat st;

	if (fstatat(storefd, LOG_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size > LOG_BOUND)
		renameat(storefd, LOG_NAME, storefd, LOG_OLD);
	return openat(storefd, LOG_NAME,
		      O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
}

void guard_go_to_background(int storefd)
{
	int log = open_log(storefd), null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup2(null, 0);
	dup2(log >= 0 ? log : null, 1);
	dup2(log >= 0 ? log : null, 2);
	close(null);
	if (log >= 0)
		close(log);
}
