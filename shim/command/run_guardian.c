/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: starting the guardian beside the backend. It is nobody's child, has no terminal
 * and none of the backend's descriptors: a pipe that it kept open would never end for its reader.
 */
#include "command/run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/owner.h"

#define LOG_NAME "guard.log"
#define LOG_OLD "guard.log.1"
#define LOG_BOUND (1 << 20)

static int open_log(const struct run *r)
{
	struct target t;
	struct stat st;
	int fd = -1;

	memset(&t, 0, sizeof(t));
	t.dirfd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t.dirfd < 0)
		return -1;
	snprintf(t.dir, sizeof(t.dir), "%.4000s", r->dir);
	target_find_store(&t);
	if (target_make_store(&t) == 0) {
		if (fstatat(t.storefd, LOG_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    st.st_size > LOG_BOUND)
			renameat(t.storefd, LOG_NAME, t.storefd, LOG_OLD);
		fd = openat(t.storefd, LOG_NAME,
			    O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
			    0600);
	}
	target_close(&t);
	return fd;
}

static void become_guardian(const struct run *r, pid_t backend)
{
	char pid[16], self[] = "/proc/self/exe", name[] = "chromashim", verb[] = "guard",
		      follow[] = "--follow";
	char dir[PATH_MAX];
	char *argv[] = {name, verb, dir, follow, pid, NULL};
	int log, null;
	sigset_t none;
	int number;

	snprintf(pid, sizeof(pid), "%d", (int)backend);
	snprintf(dir, sizeof(dir), "%s", r->dir);
	log = open_log(r);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		_exit(EXIT_FAILED);
	dup2(null, 0);
	dup2(log >= 0 ? log : null, 1);
	dup2(log >= 0 ? log : null, 2);
	close_range(3, ~0U, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	unsetenv("LD_PRELOAD");
	owner_pause();
	execv(self, argv);
	_exit(EXIT_FAILED);
}

void run_start_guardian(const struct run *r)
{
	pid_t backend = getpid(), child;

	/* A guess, and nothing there: nothing to guard. */
	if (access(r->dir, F_OK) < 0)
		return;
	fflush(NULL);
	child = fork();
	if (child < 0) {
		warn("the guardian was not started: %s", strerror(errno));
		return;
	}
	if (child == 0) {
		setsid();
		child = fork();
		if (child == 0)
			become_guardian(r, backend);
		_exit(child < 0);
	}
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
}
