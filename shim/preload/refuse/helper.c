/* SPDX-License-Identifier: MIT
 *
 * Starting the command beside the backend.
 *
 * It must not be seen by the host: a process between the two has no exit signal, so that no handler
 * runs and no wait() finds it, and what is started is nobody's child. Both borrow this process's
 * memory until the program runs, which takes about a millisecond, in which only the calling thread
 * stands still. All they need is in a map of their own: the thread's stack may be small.
 */
#include "preload/refuse/helper.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "preload/base/shim.h"

#define KERNEL_SIGNALS 8 /* bytes of a signal set */
#define CLOSE_RANGE_AT_EXEC 4u

extern char **environ;

static char library_dir[PATH_MAX];

void helper_find_command(void)
{
	char link[SYS_FD_PATH], *slash;
	Dl_info self;
	ssize_t n = -1;
	int fd;

	if (!dladdr(library_dir, &self) || !self.dli_fname)
		return;
	/* As the loader was told it, hence perhaps relative to where it was then: here. */
	fd = sys_openat(AT_FDCWD, self.dli_fname, O_PATH | O_CLOEXEC, 0);
	if (fd >= 0) {
		sys_fd_path(link, fd);
		n = sys_readlinkat(AT_FDCWD, link, library_dir, sizeof(library_dir) - 1);
		sys_close(fd);
	}
	library_dir[n > 0 ? n : 0] = '\0';
	slash = strrchr(library_dir, '/');
	library_dir[slash ? slash - library_dir : 0] = '\0';
}

/* In a build directory, or installed with any prefix, and with or without a directory of the
 * machine.
 */
static bool find_command(struct helper *h)
{
	static const char *const places[] = {"/chromashim", "/../bin/chromashim",
					     "/../../bin/chromashim"};
	size_t i, n = strlen(library_dir);

	for (i = 0; n && i < sizeof(places) / sizeof(places[0]); i++) {
		memcpy(h->command, library_dir, n);
		memcpy(h->command + n, places[i], strlen(places[i]) + 1);
		if (SYS3(SYS_faccessat, AT_FDCWD, h->command, X_OK) == 0)
			return true;
	}
	return false;
}

struct helper *helper_new(const char **why)
{
	struct helper *h =
	    sys_mmap(sizeof(*h), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (sys_map_failed(h)) {
		*why = "there is no memory for it";
		return NULL;
	}
	h->keep = -1;
	if (find_command(h))
		return h;
	*why = "there is no command `chromashim` beside the library";
	helper_free(h);
	return NULL;
}

void helper_free(struct helper *h)
{
	sys_munmap(h, sizeof(*h));
}

/* ---- the two processes; nothing but the helper is written to ---- */

static int become_command(void *helper)
{
	struct helper *h = helper;

	SYS3(SYS_close_range, 3, ~0U, CLOSE_RANGE_AT_EXEC);
	if (h->keep >= 0)
		SYS3(SYS_fcntl, h->keep, F_SETFD, 0);
	if (!h->is_heard)
		SYS3(SYS_dup3, SYS4(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR, 0), 2, 0);
	h->error = (int)SYS3(SYS_execve, h->command, h->words, environ);
	SYS1(SYS_exit_group, 1);
	return 1;
}

static int go_between(void *helper)
{
	struct helper *h = helper;

	SYS0(SYS_setsid);
	h->pid = clone(become_command, h->stack + HELPER_STACK, CLONE_VM | CLONE_VFORK, h);
	if (h->pid < 0)
		h->error = -errno;
	SYS1(SYS_exit_group, 0);
	return 0;
}

/* 0 or -errno. errno is the caller's to keep. */
static int start_both(struct helper *h)
{
	uint64_t all = ~UINT64_C(0), before;
	int child;

	/* A handler of the host's must not run in a process that borrows its memory. */
	SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, KERNEL_SIGNALS);
	child = clone(go_between, h->between + HELPER_STACK, CLONE_VM | CLONE_VFORK, h);
	if (child < 0)
		h->error = -errno;
	else
		while (SYS4(SYS_wait4, child, NULL, __WCLONE, NULL) == -EINTR)
			;
	SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, KERNEL_SIGNALS);
	return h->error;
}

const char *helper_start(struct helper *h)
{
	int saved = errno, error = start_both(h);

	errno = saved;
	return error == 0	  ? NULL
	       : error == -EAGAIN ? "there are too many processes"
				  : "its program cannot be run";
}
