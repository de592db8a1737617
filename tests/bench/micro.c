/* SPDX-License-Identifier: MIT
 *
 * micro WORK FILE COUNT DATABASE: what one call costs, in nanoseconds, as the median of many short
 * stretches. DATABASE is opened first and stays open, as a backend has it; "-" for none.
 */
#include <err.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STRETCHES 51
#define WRITE_SIZE 64
#define FILE_SIZE (1 << 20)

extern char **environ;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* One after the other, as hnswlib writes its elements; the file's pages stay in memory. */
static void do_pwrite(const char *path, long count)
{
	static int fd = -1;
	static char data[WRITE_SIZE];
	static off_t at;

	if (fd < 0) {
		static char page[FILE_SIZE];

		fd = open(path, O_RDWR | O_CREAT, 0600);
		if (fd < 0 || pwrite(fd, page, sizeof(page), 0) != sizeof(page))
			err(1, "%s", path);
	}
	for (long i = 0; i < count; i++) {
		if (pwrite(fd, data, sizeof(data), at) != sizeof(data))
			err(1, "%s", path);
		at = (at + WRITE_SIZE) % FILE_SIZE;
	}
}

static void do_open(const char *path, long count)
{
	for (long i = 0; i < count; i++) {
		int fd = open(path, O_RDWR | O_CREAT, 0600);

		if (fd < 0 || close(fd) < 0)
			err(1, "%s", path);
	}
}

static void do_spawn(const char *path, long count)
{
	char *argv[] = {strdup(path), NULL};

	for (long i = 0; i < count; i++) {
		pid_t pid;
		int status;
		int r = posix_spawn(&pid, path, NULL, NULL, argv, environ);

		if (r || waitpid(pid, &status, 0) != pid || status)
			errx(1, "%s does not run", path);
	}
	free(argv[0]);
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(const char *path, long count);
	} works[] = {{"pwrite", do_pwrite}, {"open", do_open}, {"spawn", do_spawn}};
	double taken[STRETCHES];
	long count = argc == 5 ? atol(argv[3]) / STRETCHES : 0;

	if (count < 1)
		errx(2, "usage: micro pwrite|open|spawn FILE COUNT(>=%d) DATABASE|-", STRETCHES);
	if (strcmp(argv[4], "-") != 0 && open(argv[4], O_RDWR | O_CREAT, 0600) < 0)
		err(1, "%s", argv[4]);
	for (size_t w = 0; w < sizeof(works) / sizeof(works[0]); w++) {
		if (strcmp(works[w].name, argv[1]) != 0)
			continue;
		works[w].run(argv[2], 1);
		for (int i = 0; i < STRETCHES; i++) {
			double begin = now();

			works[w].run(argv[2], count);
			taken[i] = (now() - begin) / (double)count;
		}
		qsort(taken, STRETCHES, sizeof(taken[0]), compare);
		printf("%.2f\n", taken[STRETCHES / 2]);
		return 0;
	}
	errx(2, "no such work: %s", argv[1]);
}
