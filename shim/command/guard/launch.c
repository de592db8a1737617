/* SPDX-License-Identifier: MIT
 *
 * Whether the library is really in who has the directory open: something between `chromashim run`
 * and Chroma may have dropped LD_PRELOAD, or the loader did not follow it. `run` is Chroma by now,
 * so it is said on the terminal of the process that is followed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "command/base/processes.h"
#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "command/run/run.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/openers.h"
#include "core/oplog/oplog.h"

#define FIRST SECOND	      /* between looks; twice as long each time */
#define SLOWEST (60 * SECOND) /* at most */
#define AGAIN_NS 200000000
#define ANCESTORS 64

void guardian_prepare_launch(struct guardian *g)
{
	if (!g->library || stat(g->library, &g->library_file) < 0)
		g->library = NULL;
	if (fstat(STDERR_FILENO, &g->terminal) < 0)
		g->terminal.st_mode = 0;
}

/* ---- who ---- */

/* Tells whether the process that is followed has started this one, by however many others. */
static bool is_descendant(const struct guardian *g, uint32_t pid)
{
	unsigned i;

	for (i = 0; i < ANCESTORS && pid > 1; i++) {
		if (pid == (uint32_t)g->follow)
			return true;
		pid = process_parent(pid);
	}
	return false;
}

/* A process that only reads the directory, as a copy does, is no backend. */
static bool is_suspect(const struct guardian *g, const struct process_opener *o)
{
	return o->writes && (is_descendant(g, o->pid) || process_is_chroma(o->pid)) &&
	       process_has_library(o->pid, g->library, &g->library_file) == 0;
}

static bool is_told(struct guardian *g, uint32_t pid)
{
	unsigned i;

	for (i = 0; i < GUARD_TOLD; i++)
		if (g->told[i] == pid)
			return true;
	return false;
}

/* ---- where it is said ---- */

/*
 * The standard error that `run` had, as long as the followed process still has it: by then it may
 * have opened anything in its place.
 */
static int open_terminal(const struct guardian *g, bool *is_socket)
{
	char path[64];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/fd/2", (int)g->follow);
	if (!g->terminal.st_mode || stat(path, &st) < 0 || st.st_dev != g->terminal.st_dev ||
	    st.st_ino != g->terminal.st_ino)
		return -1;
	*is_socket = S_ISSOCK(st.st_mode);
	if (*is_socket)
		return (int)syscall(SYS_pidfd_getfd, g->pidfd, STDERR_FILENO, 0);
	fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_ino != g->terminal.st_ino)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void say_there(const struct guardian *g, const char *text)
{
	char line[1400];
	bool is_socket = false;
	int fd = open_terminal(g, &is_socket);
	int n = snprintf(line, sizeof(line), "chromashim: %s\n", text);
	ssize_t written = -1;

	if (fd >= 0)
		written = is_socket ? send(fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL)
				    : write(fd, line, (size_t)n);
	if (written < 0)
		syslog(LOG_DAEMON | LOG_WARNING, "%s", text);
	if (fd >= 0)
		close(fd);
}

/* ---- what ---- */

static void find_reason(struct guardian *g, uint32_t pid, char *out, size_t room)
{
	struct backend *b = calloc(1, sizeof(*b));

	snprintf(out, room, "its loader did not load it");
	if (!b)
		return;
	snprintf(b->interpreter, sizeof(b->interpreter), "/proc/%" PRIu32 "/exe", pid);
	backend_judge(b);
	if (b->trouble[0])
		snprintf(out, room, "%s", b->trouble);
	else if (process_names_library(pid, g->library) == 0 && !is_descendant(g, pid))
		snprintf(out, room,
			 "it was started beside the backend, not by `chromashim run`. What it "
			 "writes waits as long as the backend is there. Put `chromashim run --` in "
			 "front of it, too, or let it ask the backend (a notebook: HttpClient)");
	else if (process_names_library(pid, g->library) == 0)
		snprintf(out, room,
			 "LD_PRELOAD was lost between `chromashim run` and it. Put `chromashim run "
			 "--` directly in front of what starts it");
	free(b);
}

static void launch_tell(struct guardian *g, const struct process_opener *o)
{
	char reason[400], text[1200];

	g->told[g->told_next++ % GUARD_TOLD] = o->pid;
	find_reason(g, o->pid, reason, sizeof(reason));
	snprintf(text, sizeof(text),
		 "UNPROTECTED: process %" PRIu32
		 " (%.80s) has '%.500s' open without the library: %s",
		 o->pid, *o->command ? o->command : o->name, g->s.data.dir, reason);
	say_there(g, text);
	guardian_tell(g, "backend.unprotected", 0, "%s", text);
}

/*
 * A child between fork() and the end of its exec() has the file open and the new program's map:
 * what counts is seen twice.
 */
static unsigned launch_look(struct guardian *g, const struct stat *database, bool second)
{
	struct process_opener *list = NULL;
	unsigned hidden, found = 0;
	int i, n = process_find_openers(database, CHROMA_DATABASE, &list, &hidden);

	for (i = 0; i < n; i++) {
		if (is_told(g, list[i].pid) || !is_suspect(g, &list[i]))
			continue;
		found++;
		if (second)
			launch_tell(g, &list[i]);
	}
	free(list);
	return found;
}

void guardian_look_at_launch(struct guardian *g)
{
	struct timespec pause = {0, AGAIN_NS};
	uint64_t now = oplog_now();
	struct stat st;

	if (!g->library || now < g->launch_at)
		return;
	g->launch_pause = g->launch_pause * 2 > SLOWEST ? SLOWEST
			  : g->launch_pause		? g->launch_pause * 2
							: FIRST;
	g->launch_at = now + g->launch_pause;
	if (fstatat(g->s.data.dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !launch_look(g, &st, false))
		return;
	nanosleep(&pause, NULL);
	launch_look(g, &st, true);
}
