/* SPDX-License-Identifier: MIT
 *
 * Running the programs that reach a replica.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command/replica/link.h"
#include "core/base/fileio.h"
#include "core/base/owner.h"

#define COMPLAINT 4096

static void run_child(const struct replica_link *l, const char *const *argv, pid_t parent, int out,
		      int complaints)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || null < 0 || fchdir(l->workfd) < 0 || dup2(null, 0) < 0 ||
	    dup2(out, 1) < 0 || dup2(complaints, 2) < 0)
		_exit(126);
	signal(SIGPIPE, SIG_DFL);
	owner_pause();
	execvp(argv[0], (char *const *)argv);
	_exit(errno == ENOENT ? 127 : 126);
}

/* The last line that says something. */
static void note_complaint(struct replica_link *l, int fd)
{
	char text[COMPLAINT + 1], *line, *end;
	off_t size = lseek(fd, 0, SEEK_END);
	ssize_t n =
	    file_read_at(fd, text, COMPLAINT, size > COMPLAINT ? (uint64_t)(size - COMPLAINT) : 0);

	end = text + (n > 0 ? n : 0);
	while (end > text && strchr(" \r\n\t", end[-1]))
		end--;
	*end = '\0';
	line = strrchr(text, '\n');
	if (end > text)
		snprintf(l->error, sizeof(l->error), "%.500s", line ? line + 1 : text);
}

static int read_lines(int fd, link_line_fn *line, void *context)
{
	FILE *in = fdopen(fd, "r");
	char *text = NULL;
	size_t room = 0;
	int r = in ? 0 : -ENOMEM;

	if (!in)
		close(fd);
	while (in && getline(&text, &room, in) > 0)
		if (r == 0 && line)
			r = line(context, text);
	free(text);
	if (in)
		fclose(in);
	return r;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int link_run(struct replica_link *l, const char *const *argv, link_line_fn *line, void *context)
{
	int complaints = memfd_create("chromashim-replica", MFD_CLOEXEC), out[2] = {-1, -1};
	pid_t parent = getpid(), pid;
	int r, status;

	l->error[0] = '\0';
	if (complaints < 0 || pipe2(out, O_CLOEXEC) < 0) {
		r = -errno;
		if (complaints >= 0)
			close(complaints);
		return link_fail(l, r, "%s", strerror(-r));
	}
	pid = fork();
	if (pid == 0)
		run_child(l, argv, parent, out[1], complaints);
	r = pid < 0 ? -errno : 0;
	close(out[1]);
	if (pid > 0)
		r = read_lines(out[0], line, context);
	else
		close(out[0]);
	status = pid > 0 ? wait_for(pid) : r;
	if (status == 127)
		r = link_fail(l, -ENOENT, "there is no program '%s': install it", argv[0]);
	else if (status)
		note_complaint(l, complaints);
	if (status && !l->error[0])
		link_fail(l, r, "%s ended with status %d", argv[0], status);
	close(complaints);
	return r < 0 ? r : status;
}

int link_take_listed(void *context, const char *line)
{
	const struct link_listing *listing = context;
	struct replica_name name;
	uint64_t size;

	if (!replica_listing_parse(line, listing->folder, listing->is_sftp, &name, &size))
		return 0;
	return listing->fn(listing->context, &name, size);
}
