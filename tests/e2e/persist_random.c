/* SPDX-License-Identifier: MIT
 *
 * Random persists of two segments, with a model of what is in them.
 *
 *	persist_random DIRECTORY MODEL make SEED	the segments as they are at first
 *	persist_random DIRECTORY MODEL run SEED STEPS	changes them, and dies by SIGKILL after
 *STEPS persist_random DIRECTORY MODEL find		notes what the death left, not preloaded
 *	persist_random DIRECTORY MODEL meddle SEED	so it does, after a change by somebody else
 *	persist_random DIRECTORY MODEL check		says of each segment what its files are
 *
 * MODEL is a map that outlives the death: of each file what is in it, what was committed last, and
 * what the commit that is under way would make of it. `check` says "old" (committed), "new" (that
 * commit was done), "there" (as it was found), or of a torn one which of these (1, 2, 4) each file
 *is.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 60000
#define SEGMENTS 2
#define PICKLE 4
#define FILES 5

static const char *const segments[SEGMENTS] = {"0a1b2c3d-0000-4000-8000-00000000000a",
					       "0a1b2c3d-0000-4000-8000-00000000000b"};
static const char *const names[FILES] = {"header.bin", "data_level0.bin", "length.bin",
					 "link_lists.bin", "index_metadata.pickle"};

struct content {
	int64_t size; /* -1: there is none */
	unsigned char bytes[MOST];
};

struct segment {
	bool committing;
	struct content now[FILES], committed[FILES], found[FILES];
};

static struct model {
	struct segment segments[SEGMENTS];
} * model;

static const char *directory;
static uint64_t seed;
static int fds[SEGMENTS][FILES];

static uint64_t any(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % below;
}

static const char *path_of(unsigned segment, unsigned file)
{
	static char path[4200];

	snprintf(path, sizeof(path), "%s/%s/%s", directory, segments[segment], names[file]);
	return path;
}

static void must(bool good, const char *what)
{
	if (good)
		return;
	printf("%s: %s\n", what, strerror(errno));
	exit(3);
}

static void read_into(unsigned segment, unsigned file, struct content *c)
{
	int fd = open(path_of(segment, file), O_RDONLY | O_CLOEXEC);

	c->size = fd < 0 ? -1 : read(fd, c->bytes, MOST);
	if (fd >= 0)
		close(fd);
}

static bool same(const struct content *a, const struct content *b)
{
	return a->size == b->size &&
	       (a->size <= 0 || memcmp(a->bytes, b->bytes, (size_t)a->size) == 0);
}

/* ---- what a persist does ---- */

static void fill(unsigned char *bytes, size_t n)
{
	size_t i, of = any(3) ? n : any(n) + 1; /* the rest stays */
	unsigned char c = (unsigned char)any(256);

	for (i = 0; i < of; i++)
		bytes[i] = (unsigned char)(c + i / 50);
}

static void put(struct content *c, size_t at, const void *bytes, size_t n)
{
	if ((int64_t)at > c->size)
		memset(c->bytes + c->size, 0, at - (size_t)c->size);
	memcpy(c->bytes + at, bytes, n);
	if ((int64_t)(at + n) > c->size)
		c->size = (int64_t)(at + n);
}

/* One graph at a time: who wrote through another descriptor goes on with new ones. */
static void open_again(unsigned segment)
{
	unsigned k;

	close(open(path_of(segment, 0), O_RDWR)); /* whoever opens it once more is a new one */
	for (k = 0; k < PICKLE; k++) {
		if (fds[segment][k] >= 0)
			close(fds[segment][k]);
		fds[segment][k] = open(path_of(segment, k), O_RDWR | O_CLOEXEC);
		must(fds[segment][k] >= 0, "open");
	}
}

static void change(unsigned segment, unsigned file)
{
	struct content *c = &model->segments[segment].now[file];
	static unsigned char bytes[MOST];
	int fd = fds[segment][file];
	size_t most = any(8) ? 700 : 20000, n = any(most) + 1;
	size_t at = any((uint64_t)c->size + (any(4) ? 1 : 500)), half = n / 2;
	struct iovec iov[2];
	ssize_t done;
	FILE *f;

	if (at + n > MOST - 1000) {
		at = any(MOST / 2);
		n = n < 1000 ? n : 1000;
		half = n / 2;
	}
	memset(bytes, 0, n);
	if ((int64_t)at < c->size)
		memcpy(bytes, c->bytes + at, n < (size_t)c->size - at ? n : (size_t)c->size - at);
	fill(bytes, n);
	iov[0] = (struct iovec){bytes, half};
	iov[1] = (struct iovec){bytes + half, n - half};
	switch (any(6)) {
	case 0:
		done = pwrite(fd, bytes, n, (off_t)at);
		break;
	case 1:
		lseek(fd, (off_t)at, SEEK_SET);
		done = write(fd, bytes, n);
		break;
	case 2:
		lseek(fd, (off_t)at, SEEK_SET);
		done = writev(fd, iov, 2);
		break;
	case 3:
		done = pwritev(fd, iov, 2, (off_t)at);
		break;
	case 4:
		f = fopen(path_of(segment, file), "r+");
		must(f != NULL, "fopen");
		fseek(f, (long)at, SEEK_SET);
		done = (ssize_t)fwrite(bytes, 1, n, f);
		fclose(f);
		open_again(segment);
		break;
	default: /* at its end, whatever its position */
		fd = open(path_of(segment, file), O_WRONLY | O_APPEND | O_CLOEXEC);
		if (c->size + (int64_t)n > MOST)
			n = 1;
		at = (size_t)c->size;
		done = write(fd, bytes, n);
		close(fd);
		open_again(segment);
		break;
	}
	must(done == (ssize_t)n, "write");
	put(c, at, bytes, n);
}

static void change_by_map(unsigned segment, unsigned file)
{
	struct content *c = &model->segments[segment].now[file];
	size_t n = (size_t)c->size, at;
	unsigned char *p;

	if (!n)
		return;
	p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fds[segment][file], 0);
	must(p != MAP_FAILED, "mmap");
	at = any(n);
	p[at] = c->bytes[at] = (unsigned char)any(256);
	munmap(p, n);
}

static void cut(unsigned segment, unsigned file)
{
	struct content *c = &model->segments[segment].now[file];
	size_t n = any(6) ? any((uint64_t)c->size + 300) : 0;

	n = n < MOST ? n : MOST;
	must((any(2) ? ftruncate(fds[segment][file], (off_t)n)
		     : truncate(path_of(segment, file), (off_t)n)) == 0,
	     "truncate");
	if ((int64_t)n > c->size)
		memset(c->bytes + c->size, 0, n - (size_t)c->size);
	c->size = (int64_t)n;
}

static void empty(unsigned segment, unsigned file)
{
	int fd = open(path_of(segment, file), O_RDWR | O_TRUNC | O_CLOEXEC);

	must(fd >= 0, "open");
	close(fd);
	open_again(segment);
	model->segments[segment].now[file].size = 0;
}

/* What is held back is seen by whoever reads. */
static void look(unsigned segment, unsigned file)
{
	const struct content *c = &model->segments[segment].now[file];
	static unsigned char bytes[MOST];
	size_t at = any((uint64_t)c->size + 1), n = any(3000) + 1;
	ssize_t done, due = (int64_t)(at + n) > c->size ? c->size - (int64_t)at : (ssize_t)n;

	if (any(2)) {
		done = pread(fds[segment][file], bytes, n, (off_t)at);
	} else {
		lseek(fds[segment][file], (off_t)at, SEEK_SET);
		done = read(fds[segment][file], bytes, n);
	}
	must(done == due && memcmp(bytes, c->bytes + at, (size_t)due) == 0, "read differs");
}

/* One step of the pickle: opened, written piece by piece, closed. */
static void pickle(unsigned segment)
{
	struct segment *s = &model->segments[segment];
	struct content *c = &s->now[PICKLE];
	unsigned char bytes[9000];
	size_t n = any(sizeof(bytes)) + 1;
	int *fd = &fds[segment][PICKLE];

	if (*fd < 0) {
		*fd =
		    open(path_of(segment, PICKLE), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		must(*fd >= 0, "open");
		c->size = 0;
		return;
	}
	if (any(3) && c->size + (int64_t)n < MOST) {
		fill(bytes, sizeof(bytes));
		must(write(*fd, bytes, n) == (ssize_t)n, "write");
		put(c, (size_t)c->size, bytes, n);
		return;
	}
	must(write(*fd, ".", 1) == 1, "write");
	put(c, (size_t)c->size, ".", 1);
	s->committing = true;
	close(*fd);
	*fd = -1;
	memcpy(s->committed, s->now, sizeof(s->now));
	s->committing = false;
}

static void step(void)
{
	unsigned segment = (unsigned)any(SEGMENTS), file = (unsigned)any(PICKLE);
	unsigned which = (unsigned)any(40);

	if (fds[segment][PICKLE] >= 0 ? which < 20 : which < 3)
		pickle(segment);
	else if (which < 5)
		cut(segment, file);
	else if (which < 6)
		empty(segment, file);
	else if (which < 7)
		change_by_map(segment, file);
	else if (which < 17)
		look(segment, file);
	else
		change(segment, file);
}

static void run(long steps)
{
	memset(fds, -1, sizeof(fds));
	open_again(0);
	open_again(1);
	while (steps--)
		step();
	kill(getpid(), SIGKILL);
}

/* ---- the rest ---- */

static void make(void)
{
	unsigned i, k;
	int fd;

	for (i = 0; i < SEGMENTS; i++) {
		struct segment *s = &model->segments[i];

		snprintf((char *)s->found[0].bytes, MOST, "%s/%s", directory, segments[i]);
		mkdir((char *)s->found[0].bytes, 0755);
		for (k = 0; k < FILES; k++) {
			struct content *c = &s->now[k];

			c->size = any(5) ? (int64_t)any(20000) : 0;
			fill(c->bytes, (size_t)c->size + 1);
			fd = open(path_of(i, k), O_RDWR | O_CREAT | O_TRUNC, 0644);
			must(write(fd, c->bytes, (size_t)c->size) == c->size, "write");
			close(fd);
		}
		memcpy(s->committed, s->now, sizeof(s->now));
	}
}

static void note_found(void)
{
	unsigned i, k;

	for (i = 0; i < SEGMENTS; i++)
		for (k = 0; k < FILES; k++)
			read_into(i, k, &model->segments[i].found[k]);
}

static void meddle(void)
{
	unsigned segment = (unsigned)any(SEGMENTS), file, times = (unsigned)any(4) + 1;
	struct content *c;
	unsigned char byte;
	int fd;

	for (; times; times--) {
		file = (unsigned)any(FILES);
		fd = open(path_of(segment, file), O_RDWR | O_CREAT, 0644);
		must(fd >= 0, "open");
		c = &model->segments[segment].now[file];
		read_into(segment, file, c);
		if (c->size > 0) {
			byte = (unsigned char)any(256);
			must(pwrite(fd, &byte, 1, (off_t)any((uint64_t)c->size)) == 1, "pwrite");
		}
		close(fd);
	}
	fd = open(path_of(segment, PICKLE), O_WRONLY | O_CREAT | O_TRUNC, 0644);
	dprintf(fd, "pickle of somebody else %u.", (unsigned)any(1000000));
	close(fd);
	note_found();
	printf("%u\n", segment);
}

/* Bit 0: all are as committed; 1: as the commit that was under way; 2: as they were found. */
static unsigned what_is(const struct segment *s, const struct content *is, unsigned k)
{
	return (same(is, &s->committed[k]) ? 1 : 0) | (same(is, &s->now[k]) ? 2 : 0) |
	       (same(is, &s->found[k]) ? 4 : 0);
}

static void check(void)
{
	static struct content is;
	unsigned i, k, all, each[FILES];

	for (i = 0; i < SEGMENTS; i++) {
		const struct segment *s = &model->segments[i];

		for (k = 0, all = s->committing ? 7 : 5; k < FILES; k++) {
			read_into(i, k, &is);
			all &= each[k] = what_is(s, &is, k);
		}
		printf("%s%s%s%s\n", all & 1 ? "old " : "", all & 2 ? "new " : "",
		       all & 4 ? "there " : "", all ? "" : "torn");
		for (k = 0; k < FILES && !all; k++)
			printf("  %s %u\n", names[k], each[k]);
	}
}

int main(int argc, char **argv)
{
	int fd;

	if (argc < 4)
		return 2;
	directory = argv[1];
	fd = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	must(ftruncate(fd, sizeof(*model)) == 0, "truncate");
	model = mmap(NULL, sizeof(*model), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(model != MAP_FAILED, "mmap");
	close(fd);
	seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
	seed = seed * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(88172645463325252);
	if (strcmp(argv[3], "make") == 0)
		make();
	else if (strcmp(argv[3], "run") == 0)
		run(atol(argv[5]));
	else if (strcmp(argv[3], "find") == 0)
		note_found();
	else if (strcmp(argv[3], "meddle") == 0)
		meddle();
	else
		check();
	return 0;
}
