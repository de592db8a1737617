/* SPDX-License-Identifier: MIT
 *
 * The library without LD_PRELOAD: a test is linked with its objects, and a child of the test makes
 * the host's calls by their bodies (calls/bodies.h), while the test itself looks by libc. What the
 * library asks of the kernel fails, or ends the child, where CHROMASHIM_FAULT says so
 * (place/faults.h). After cmocka.h.
 */
#ifndef UNIT_INSIDE_H
#define UNIT_INSIDE_H

#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>

#include "core/base/names.h"
#include "preload/base/settings.h"
#include "preload/calls/bodies.h"
#include "scratch.h"

#define SEGMENT "0a1b2c3d-0000-4000-8000-00000000abcd"
#define CALLER __builtin_return_address(0)

struct inside {
	struct scratch root; /* the data directory */
	int said;	     /* what children wrote to standard error */
};

/* Whatever the environment says: without a guardian, and with room enough. */
static inline void inside_start(void)
{
	settings.off = false;
	settings.guard = false;
	settings.min_free_bytes = 0;
	settings.min_free_percent = 0;
	settings.ballast = 0;
	settings.warn_full = 0;
}

static inline const char *inside_path(const struct inside *f, const char *name)
{
	static char path[2][PATH_MAX];
	static unsigned turn;
	char *out = path[turn++ % 2];

	snprintf(out, PATH_MAX, "%s/%s", f->root.path, name);
	return out;
}

/* The directory with a database that is none, and nothing else; said is emptied. */
static inline void inside_make(struct inside *f)
{
	scratch_make(&f->root);
	scratch_put(f->root.fd, CHROMA_DATABASE, "", 0);
	f->said = open(f->root.path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	assert_true(f->said >= 0);
}

static inline void inside_remove(struct inside *f)
{
	close(f->said);
	scratch_remove(&f->root);
}

typedef int inside_act(struct inside *f);

/*
 * Runs `act` in a child, which is what a backend is to the library. Returns what it returned (0 to
 * 99), or 128 and the number of the signal that ended it.
 */
static inline int inside_run(struct inside *f, const char *fault, inside_act *act)
{
	pid_t child;
	int status;

	assert_int_equal(ftruncate(f->said, 0), 0);
	child = fork();
	if (child == 0) {
		if (fault)
			setenv("CHROMASHIM_FAULT", fault, 1);
		lseek(f->said, 0, SEEK_SET);
		do_dup2(f->said, 2);
		do_exit(act(f));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static inline bool inside_said(const struct inside *f, const char *text)
{
	char buf[8192];
	ssize_t n = pread(f->said, buf, sizeof(buf) - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
	return strstr(buf, text) != NULL;
}

/* As SQLite opens it, to write. */
static inline int inside_open_database(struct inside *f)
{
	return do_open(CALLER, inside_path(f, CHROMA_DATABASE), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
}

#endif
