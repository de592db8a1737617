/* SPDX-License-Identifier: MIT
 *
 * Who has a file open, by /proc.
 */
#include "core/openers.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void read_first(const char *pid, const char *file, char *out, size_t room)
{
	char path[320];
	ssize_t n = 0, i;
	int fd;

	snprintf(path, sizeof(path), "/proc/%.255s/%s", pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, out, room - 1);
		close(fd);
	}
	n = n > 0 ? n : 0;
	while (n > 0 && (out[n - 1] == '\0' || out[n - 1] == '\n'))
		n--;
	for (i = 0; i < n; i++)
		if (out[i] == '\0')
			out[i] = ' ';
	out[n] = '\0';
}

/* 1, 0 or -errno. */
static int has_open(const char *pid, const struct stat *file)
{
	char path[320];
	struct dirent *d;
	struct stat st;
	int found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.255s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (!found && (d = readdir(dir)))
		if (isdigit((unsigned char)*d->d_name) &&
		    fstatat(dirfd(dir), d->d_name, &st, 0) == 0)
			found = st.st_dev == file->st_dev && st.st_ino == file->st_ino;
	closedir(dir);
	return found;
}

static int compare_openers(const void *a, const void *b)
{
	const struct process_opener *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static int add_opener(struct process_opener **list, unsigned n, const char *pid)
{
	struct process_opener *bigger = realloc(*list, (n + 1) * sizeof(**list));

	if (!bigger)
		return -ENOMEM;
	*list = bigger;
	memset(&bigger[n], 0, sizeof(bigger[n]));
	bigger[n].pid = (uint32_t)strtoul(pid, NULL, 10);
	read_first(pid, "comm", bigger[n].name, sizeof(bigger[n].name));
	read_first(pid, "cmdline", bigger[n].command, sizeof(bigger[n].command));
	return 0;
}

int process_find_openers(const struct stat *file, struct process_opener **list_out,
			 unsigned *hidden_out)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	unsigned n = 0;
	int r = 0;

	*list_out = NULL;
	*hidden_out = 0;
	if (!proc)
		return -errno;
	while (r == 0 && (d = readdir(proc))) {
		int found;

		if (!isdigit((unsigned char)*d->d_name) ||
		    strtoul(d->d_name, NULL, 10) == (unsigned long)getpid())
			continue;
		found = has_open(d->d_name, file);
		*hidden_out += found == -EACCES || found == -EPERM;
		if (found > 0)
			r = add_opener(list_out, n, d->d_name);
		n += found > 0 && r == 0;
	}
	closedir(proc);
	if (r < 0) {
		free(*list_out);
		*list_out = NULL;
		return r;
	}
	if (n)
		qsort(*list_out, n, sizeof(**list_out), compare_openers);
	return (int)n;
}
