/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: starting the guardian beside the backend.
 */
#include "command/run/run.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/owner.h"

static void become_guardian(const struct run *r, pid_t backend)
{
	char pid[16], self[] = "/proc/self/exe", name[] = "chromashim", verb[] = "guard",
		      follow[] = "--follow", background[] = "--background", option[] = "--library";
	char dir[PATH_MAX], library[PATH_MAX];
	char *argv[] = {name, verb, dir, follow, pid, background, option, library, NULL};

	snprintf(pid, sizeof(pid), "%d", (int)backend);
	snprintf(dir, sizeof(dir), "%s", r->dir);
	snprintf(library, sizeof(library), "%s", r->library);
	if (!*library)
		argv[6] = NULL; /* said already */
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
