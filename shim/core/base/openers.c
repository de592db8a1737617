/* SPDX-License-Identifier: MIT
 *
 * Who has a file open, by /proc.
 *
 * Rule here: nobody is waited for. A file on a network mount whose server is gone answers no stat,
 * not even through /proc; what the kernel knows by itself is asked first.
 */
#include "core/base/openers.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
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

/* ---- is it the file? ---- */

struct candidate {
	const char *pid, *number; /* of the process and its descriptor */
	int fds;		  /* /proc/PID/fd */
	const struct stat *file;  /* whose openers are looked for */
	const char *name;
};

/* The text of the link, as far as it ends in the file's name. A longer one may be it. */
static bool has_name(const struct candidate *c)
{
	static const char deleted[] = " (deleted)";
	char target[4096];
	size_t n, length = strlen(c->name);
	ssize_t r = readlinkat(c->fds, c->number, target, sizeof(target) - 1);

	if (r == (ssize_t)sizeof(target) - 1)
		return true;
	n = r > 0 ? (size_t)r : 0;
	if (n > sizeof(deleted) - 1 &&
	    !memcmp(target + n - (sizeof(deleted) - 1), deleted, sizeof(deleted) - 1))
		n -= sizeof(deleted) - 1;
	return n > length && target[n - length - 1] == '/' &&
	       !memcmp(target + n - length, c->name, length);
}

/* What the kernel knows by itself; -1 where it does not say ("ino" is there since Linux 5.14). */
static void read_facts(const struct candidate *c, long long *mount, long long *inode)
{
	char file[64], text[1024], *at;

	snprintf(file, sizeof(file), "fdinfo/%.32s", c->number);
	read_first(c->pid, file, text, sizeof(text));
	at = strstr(text, "mnt_id:");
	*mount = at ? strtoll(at + strlen("mnt_id:"), NULL, 10) : -1;
	at = strstr(text, "\nino:");
	*inode = at ? strtoll(at + strlen("\nino:"), NULL, 10) : -1;
}

/* Whose files have another device number than their mount, and no server that may be gone. */
static bool has_own_numbers(const char *type)
{
	static const char *const types[] = {"btrfs ", "overlay ", "bcachefs ", "zfs "};
	size_t i;

	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strncmp(type, types[i], strlen(types[i])))
			return true;
	return false;
}

/*
 * Whether a look at what is on that mount can be had without waiting for somebody else: it is the
 * file's own file system, which answers, or none of those whose server may be gone. What was
 * unmounted lazily is in no table, and is not looked at.
 */
static bool answers(const struct candidate *c, long long mount)
{
	char path[64], *line = NULL;
	bool good = false;
	size_t room = 0;
	FILE *table;

	snprintf(path, sizeof(path), "/proc/%.32s/mountinfo", c->pid);
	table = fopen(path, "re");
	while (table && getline(&line, &room, table) > 0) {
		unsigned major_number, minor_number;
		long long number;
		char *type;

		if (sscanf(line, "%lld %*d %u:%u", &number, &major_number, &minor_number) != 3 ||
		    number != mount)
			continue;
		type = strstr(line, " - ");
		good = makedev(major_number, minor_number) == c->file->st_dev ||
		       (type && has_own_numbers(type + 3));
		break;
	}
	free(line);
	if (table)
		fclose(table);
	return good;
}

/* Its file system is asked only where the answer may be yes, and will come. */
static bool is_file(const struct candidate *c)
{
	long long mount, inode;
	struct stat st;

	read_facts(c, &mount, &inode);
	if ((inode < 0 || (ino_t)inode != c->file->st_ino) && !has_name(c))
		return false;
	return answers(c, mount) && fstatat(c->fds, c->number, &st, 0) == 0 &&
	       st.st_dev == c->file->st_dev && st.st_ino == c->file->st_ino;
}

static bool is_for_writing(const struct candidate *c)
{
	char file[64], text[1024], *at;

	snprintf(file, sizeof(file), "fdinfo/%.32s", c->number);
	read_first(c->pid, file, text, sizeof(text));
	at = strstr(text, "flags:");
	return at && (strtol(at + strlen("flags:"), NULL, 8) & O_ACCMODE) != O_RDONLY;
}

enum { OPEN = 1, OPEN_TO_WRITE };

/* One of these, 0 or -errno. */
static int has_open(const char *pid, const struct stat *file, const char *name)
{
	struct candidate c = {.pid = pid, .file = file, .name = name};
	char path[320];
	struct dirent *d;
	int found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.255s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	c.fds = dirfd(dir);
	while (found != OPEN_TO_WRITE && (d = readdir(dir))) {
		c.number = d->d_name;
		if (isdigit((unsigned char)*d->d_name) && is_file(&c))
			found = is_for_writing(&c) ? OPEN_TO_WRITE : OPEN;
	}
	closedir(dir);
	return found;
}

static int compare_openers(const void *a, const void *b)
{
	const struct process_opener *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static int add_opener(struct process_opener **list, unsigned n, const char *pid, bool writes)
{
	struct process_opener *bigger = realloc(*list, (n + 1) * sizeof(**list));

	if (!bigger)
		return -ENOMEM;
	*list = bigger;
	memset(&bigger[n], 0, sizeof(bigger[n]));
	bigger[n].pid = (uint32_t)strtoul(pid, NULL, 10);
	bigger[n].writes = writes;
	read_first(pid, "comm", bigger[n].name, sizeof(bigger[n].name));
	read_first(pid, "cmdline", bigger[n].command, sizeof(bigger[n].command));
	return 0;
}

int process_find_openers(const struct stat *file, const char *name,
			 struct process_opener **list_out, unsigned *hidden_out)
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
		found = has_open(d->d_name, file, name);
		*hidden_out += found == -EACCES || found == -EPERM;
		if (found > 0)
			r = add_opener(list_out, n, d->d_name, found == OPEN_TO_WRITE);
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
