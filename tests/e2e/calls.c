/* SPDX-License-Identifier: MIT
 *
 * Calls every libc entry point that changes a file, by every name that libc has for it.
 *
 *	calls --list		the names, one a line
 *	calls DIR [NAME...]	all of them, or those named; each works on files called
 *<DIR>/<NAME>*
 *
 * Each case prints "NAME ok", or "NAME absent" if this libc has no such symbol. Whether a call
 * succeeds is not checked here: what it leaves behind and what was recorded is compared outside.
 */
#include <dlfcn.h>
#include <err.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "calls.h"

int dirfd_;
const char *directory;

const char *path_of(const char *name, const char *suffix)
{
	static char paths[4][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, PATH_MAX, "%s/%s%s", directory, name, suffix);
	return path;
}

const char *base(const char *path)
{
	return strrchr(path, '/') + 1;
}

int make(const char *name, const char *suffix)
{
	int fd = open(path_of(name, suffix), FD_MODE, 0644);

	if (fd < 0)
		err(1, "%s%s", name, suffix);
	if (write(fd, "0123456789abcdef", 16) != 16)
		err(1, "write");
	return fd;
}

void leave(const char *name, const char *suffix)
{
	close(make(name, suffix));
}

void put(int fd, const char *text)
{
	if (fd >= 0) {
		ssize_t n = write(fd, text, strlen(text));

		(void)n;
		close(fd);
	}
}

static const struct call_case *const tables[] = {files_cases, data_cases, names_cases,
						 streams_cases};
#define TABLES (sizeof tables / sizeof *tables)

static int wanted(const char *name, char **names)
{
	if (!*names)
		return 1;
	for (; *names; names++)
		if (!strcmp(*names, name))
			return 1;
	return 0;
}

static void run(const struct call_case *one)
{
	void *symbol = dlsym(RTLD_DEFAULT, one->name);

	/* One line a case; unbuffered output would be in the way of nobody, but is slow. */
	printf("%s %s\n", one->name, symbol ? "ok" : "absent");
	fflush(stdout);
	if (symbol)
		one->run(one->name, symbol);
}

int main(int argc, char **argv)
{
	int list = argc == 2 && !strcmp(argv[1], "--list");
	const struct call_case *one;
	size_t i;

	if (argc < 2)
		errx(2, "usage: calls --list | calls DIR [NAME...]");
	directory = argv[1];
	dirfd_ = list ? -1 : open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!list && dirfd_ < 0)
		err(1, "%s", directory);
	for (i = 0; i < TABLES; i++)
		for (one = tables[i]; one->name; one++)
			if (list)
				puts(one->name);
			else if (wanted(one->name, argv + 2))
				run(one);
	return 0;
}
