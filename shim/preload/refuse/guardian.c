/* SPDX-License-Identifier: MIT
 *
 * A guardian for a directory that `chromashim run` did not know of: its path is in the backend's
 * code, or the library was preloaded without `run`.
 *
 * It must not be seen by the host: a process between the two has no exit signal, so that no handler
 * runs and no wait() finds it, and the guardian is nobody's child. Both borrow this process's
 * memory until the guardian's program runs, which takes about a millisecond, in which only the
 * calling thread stands still. All they need is in a map of their own: the thread's stack may be
 * small.
 */
#include "preload/refuse/guardian.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "preload/base/shim.h"
#include "preload/place/lives.h"

#define GUARD_LOCK "guard.lock" /* its first byte is locked by the guardian */
#define STACK (32u << 10)
#define KERNEL_SIGNALS 8 /* bytes of a signal set */
#define CLOSE_RANGE_AT_EXEC 4u

extern char **environ;

struct launch {
	char between[STACK], guardian[STACK]; /* stacks */
	char command[PATH_MAX + 32];
	char dir[PATH_MAX];
	char *argv[6];
	int error; /* of the last step that failed */
};

static char library_dir[PATH_MAX];

void guardian_find_command(void)
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
static bool find_command(struct launch *l)
{
	static const char *const places[] = {"/chromashim", "/../bin/chromashim",
					     "/../../bin/chromashim"};
	size_t i, n = strlen(library_dir);

	for (i = 0; n && i < sizeof(places) / sizeof(places[0]); i++) {
		memcpy(l->command, library_dir, n);
		memcpy(l->command + n, places[i], strlen(places[i]) + 1);
		if (SYS3(SYS_faccessat, AT_FDCWD, l->command, X_OK) == 0)
			return true;
	}
	return false;
}

/* Whether there is one already; it stays until the last process has let go of the directory. */
static bool has_guardian(const struct area *a)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	int r, fd = sys_openat(a->store_fd, GUARD_LOCK,
			       O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);

	if (fd < 0)
		return false;
	r = sys_fcntl(fd, F_OFD_GETLK, (unsigned long)&lock);
	sys_close(fd);
	return r == 0 && lock.l_type != F_UNLCK;
}

/* ---- the two processes; nothing but the launch is written to ---- */

static int become_guardian(void *launch)
{
	struct launch *l = launch;

	SYS3(SYS_close_range, 3, ~0U, CLOSE_RANGE_AT_EXEC);
	l->error = (int)SYS3(SYS_execve, l->command, l->argv, environ);
	SYS1(SYS_exit_group, 1);
	return 1;
}

static int go_between(void *launch)
{
	struct launch *l = launch;
	int child;

	SYS0(SYS_setsid);
	child = clone(become_guardian, l->guardian + STACK, CLONE_VM | CLONE_VFORK, l);
	if (child < 0)
		l->error = -errno;
	SYS1(SYS_exit_group, 0);
	return 0;
}

/* 0 or -errno. errno is the caller's to keep. */
static int start_both(struct launch *l)
{
	uint64_t all = ~UINT64_C(0), before;
	int child;

	/* A handler of the host's must not run in a process that borrows its memory. */
	SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, KERNEL_SIGNALS);
	child = clone(go_between, l->between + STACK, CLONE_VM | CLONE_VFORK, l);
	if (child < 0)
		l->error = -errno;
	else
		while (SYS4(SYS_wait4, child, NULL, __WCLONE, NULL) == -EINTR)
			;
	SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, KERNEL_SIGNALS);
	return l->error;
}

static void fill_in(struct launch *l, const struct area *a)
{
	static char name[] = "chromashim", verb[] = "guard", while_open[] = "--while-open",
		    background[] = "--background";

	memcpy(l->dir, a->spelling[0], a->spelling_length[0] + 1);
	l->argv[0] = name;
	l->argv[1] = verb;
	l->argv[2] = l->dir;
	l->argv[3] = while_open;
	l->argv[4] = background;
}

static void say_none(const struct area *a, const char *why)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&said))
		shim_say(a->spelling[0], ": no guardian could be started: ", why,
			 ". Writes are protected, but no snapshot is copied, verified or taken by "
			 "the clock; start one: chromashim guard DIR (CHROMASHIM_GUARD=off: none "
			 "is wanted)",
			 NULL);
}

void guardian_start(struct area *a)
{
	struct launch *l;
	int error, saved = errno;
	long map;

	if (!settings.guard || a->store_fd < 0 || a->failed || shim_borrowed())
		return;
	area_life(a); /* so that a guardian which is about to end sees this process */
	if (has_guardian(a))
		return;
	map = SYS6(SYS_mmap, NULL, sizeof(*l), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1, 0);
	if (map < 0 && map > -4096) {
		say_none(a, "there is no memory for it");
		return;
	}
	l = (struct launch *)map; /* NOLINT: a map */
	if (find_command(l)) {
		fill_in(l, a);
		error = start_both(l);
		if (error < 0)
			say_none(a, error == -EAGAIN ? "there are too many processes"
						     : "its program cannot be run");
	} else {
		say_none(a, "there is no command `chromashim` beside the library");
	}
	SYS2(SYS_munmap, l, sizeof(*l));
	errno = saved;
}
