/* SPDX-License-Identifier: MIT
 *
 * A segment as hnswlib and Chroma write it, without either: every file is written in place, errors
 * of the .bin files are swallowed, the pickle's are not.
 *
 * Generation g of a file is a function of g, so any mixture shows.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT "0a1b2c3d-0000-4000-8000-00000000abcd"
#define STRIDE 700
#ifndef FIRST_ELEMENTS
#define FIRST_ELEMENTS 40
#endif
#define GROWTH 6 /* elements that each generation has more */

static const char *const names[] = {"header.bin", "data_level0.bin", "length.bin", "link_lists.bin",
				    "index_metadata.pickle"};
enum { HEADER, LEVEL0, LENGTH, LINKS, PICKLE, FILES };

static char directory[4000];
static int files[FILES];
static void (*after_write)(void); /* of any file of the segment; NULL: nothing */

static const char *path_of(const char *name)
{
	static char path[4200];

	snprintf(path, sizeof(path), "%s/" SEGMENT "/%s", directory, name);
	return path;
}

static int elements(int generation)
{
	return FIRST_ELEMENTS + GROWTH * generation;
}

/* Which generation wrote element i last: the new ones, and a third of the old ones, differ. */
static int written_in(int i, int generation)
{
	int g = generation;

	while (g > 1 && i < elements(g - 1) && (i + g) % 3)
		g--;
	return g;
}

static size_t content(int file, int i, int generation, unsigned char *out)
{
	static const size_t sizes[] = {100, STRIDE, 4, 36};
	size_t k;

	for (k = 0; k < sizes[file]; k++)
		out[k] = (unsigned char)(generation * 37 + i * 11 + (int)k + file);
	return sizes[file];
}

static void put(int file, int i, int generation)
{
	unsigned char bytes[STRIDE];
	size_t n = content(file, i, generation, bytes);

	lseek(files[file], (off_t)(n * (size_t)i), SEEK_SET);
	if (write(files[file], bytes, n) < 0) {
		/* as hnswlib: nobody looks */
	}
	if (after_write)
		after_write();
}

static size_t pickle_size(int generation)
{
	return 3000 + 100 * (size_t)(generation % 60);
}

static int put_pickle(int generation)
{
	unsigned char bytes[9000];
	size_t n = pickle_size(generation), at;
	int fd = open(path_of(names[PICKLE]), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		return -errno;
	memset(bytes, generation, n);
	memcpy(bytes, &generation, sizeof(generation));
	bytes[n - 1] = '.';
	for (at = 0; at < n; at += 2000) {
		if (write(fd, bytes + at, n - at < 2000 ? n - at : 2000) < 0) {
			int error = errno;

			close(fd);
			return -error;
		}
		if (after_write)
			after_write();
	}
	close(fd);
	return 0;
}

/* 1, or 0: one cannot be opened, none is open then. */
static int segment_open(void)
{
	int file, made;

	mkdir(path_of(""), 0755);
	made = access(path_of(names[PICKLE]), F_OK) == 0;
	for (file = HEADER; file < PICKLE; file++) {
		files[file] = open(path_of(names[file]),
				   O_RDWR | O_CLOEXEC | (made ? 0 : O_CREAT | O_TRUNC), 0644);
		if (files[file] < 0) {
			while (file-- > HEADER)
				close(files[file]);
			return 0;
		}
	}
	return 1;
}

/* 0, or -errno of the pickle. */
static int segment_persist(int generation)
{
	int file, i, n = elements(generation);

	put(HEADER, 0, generation);
	for (file = LEVEL0; file <= LINKS; file++)
		for (i = 0; i < n; i++)
			if (written_in(i, generation) == generation)
				put(file, i, generation);
	return put_pickle(generation);
}

/* ---- check ---- */

static int has_generation(int generation)
{
	static unsigned char found[8 << 20], wanted[STRIDE];
	int file, i, n = elements(generation);
	size_t size, k = 0;

	for (file = HEADER; file < PICKLE; file++) {
		FILE *f = fopen(path_of(names[file]), "rb");

		if (!f)
			return 0;
		size = fread(found, 1, sizeof(found), f);
		fclose(f);
		for (i = 0; i < (file == HEADER ? 1 : n); i++) {
			k = content(file, i,
				    file == HEADER ? generation : written_in(i, generation),
				    wanted);
			if (k * (size_t)(i + 1) > size || memcmp(found + k * (size_t)i, wanted, k))
				return 0;
		}
		if (size != k * (size_t)i)
			return 0;
	}
	return 1;
}

/* The generation; 0: never persisted; -1: torn, which is told. */
static int segment_check(void)
{
	struct stat st;
	int fd = open(path_of(names[PICKLE]), O_RDONLY), generation = 0;

	if (fd < 0) {
		int file;

		/* Never persisted: none of the files, or (new ones) all to be made anew. */
		for (file = HEADER; file < PICKLE; file++)
			if (access(path_of(names[file]), F_OK) == 0) {
				printf("torn: %s without a pickle\n", names[file]);
				return -1;
			}
		return 0;
	}
	fstat(fd, &st);
	if (pread(fd, &generation, sizeof(generation), 0) != sizeof(generation) ||
	    generation <= 0 || (size_t)st.st_size != pickle_size(generation) ||
	    !has_generation(generation)) {
		printf("torn: pickle of %d, %ld bytes\n", generation, (long)st.st_size);
		return -1;
	}
	close(fd);
	return generation;
}
