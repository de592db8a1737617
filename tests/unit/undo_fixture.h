/* SPDX-License-Identifier: MIT
 *
 * A directory with one segment, and persists that overwrite it. Rolling back must make it as
 * before.
 */
#ifndef UNIT_UNDO_FIXTURE_H
#define UNIT_UNDO_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/checksum.h"
#include "core/oplog/oplog.h"
#include "core/undo/rollback.h"

#define SEGMENT "0a1b2c3d-0000-4000-8000-00000000abcd"
#define MAX_SIZE 200000

struct content {
	long size; /* -1: no such file */
	unsigned char bytes[MAX_SIZE];
};

struct fixture {
	char root[64];
	int rootfd, undofd, segmentfd;
	struct undo_header header;
	struct undo_writer w;
	unsigned char buffer[UNDO_BUFFER];
	struct content before[UNDO_FILES];
	/* what was reported */
	unsigned reports;
	struct rollback_outcome last;
	unsigned steps, die_at; /* 0: never */
};

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline void put(struct fixture *f, unsigned file, const void *bytes, size_t n)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

static inline void get(struct fixture *f, unsigned file, struct content *c)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_RDONLY);

	c->size = -1;
	if (fd < 0)
		return;
	c->size = read(fd, c->bytes, MAX_SIZE);
	close(fd);
}

static inline int setup(void **state)
{
	static const size_t sizes[UNDO_FILES] = {100, 150001, 4000, 9000, 5000};
	struct fixture *f = calloc(1, sizeof(*f));
	unsigned i;

	strcpy(f->root, "/tmp/chromashim-undo-XXXXXX");
	if (!f || !mkdtemp(f->root))
		return -1;
	f->rootfd = open(f->root, O_RDONLY | O_DIRECTORY);
	mkdirat(f->rootfd, "undo", 0700);
	mkdirat(f->rootfd, SEGMENT, 0755);
	f->undofd = openat(f->rootfd, "undo", O_RDONLY | O_DIRECTORY);
	f->segmentfd = openat(f->rootfd, SEGMENT, O_RDONLY | O_DIRECTORY);
	for (i = 0; i < UNDO_FILES; i++) {
		unsigned char *p = malloc(sizes[i]);
		size_t k;

		for (k = 0; k < sizes[i]; k++)
			p[k] = (unsigned char)(i * 31 + k * 7 + k / 4096);
		put(f, i, p, sizes[i]);
		get(f, i, &f->before[i]);
		free(p);
	}
	f->w.fd = -1;
	f->w.buffer = f->buffer;
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->w.fd >= 0)
		close(f->w.fd);
	close(f->segmentfd);
	close(f->undofd);
	close(f->rootfd);
	nftw(f->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static inline uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A group of a process that is dead. */
static inline void begin(struct fixture *f)
{
	struct undo_header *h = &f->header;
	unsigned i;

	memset(h, 0, sizeof(*h));
	h->pid = 999999;
	h->start_ticks = 12345;
	oplog_boot_id(h->boot_id);
	h->number = 1;
	strcpy(h->segment, SEGMENT);
	for (i = 0; i < UNDO_FILES; i++)
		h->files[i].size = f->before[i].size;
	h->pickle_check = checksum64(
	    f->before[UNDO_PICKLE].bytes,
	    f->before[UNDO_PICKLE].size < 0 ? 0 : (size_t)f->before[UNDO_PICKLE].size, 0);
	assert_int_equal(undo_create(&f->w, f->undofd, h, false), 0);
}

/* The file's grain, as it will be with n bytes of `with` at offset. */
static inline void announce_grain(struct fixture *f, unsigned file, uint64_t grain,
				  const unsigned char *with, uint64_t offset, uint64_t n)
{
	struct undo_becomes b = {0};
	unsigned char bytes[UNDO_GRAIN];
	int fd = openat(f->segmentfd, undo_file_names[file], O_RDONLY);
	uint64_t at = grain * UNDO_GRAIN, size = (uint64_t)f->before[file].size, i;
	uint64_t want = size - at < UNDO_GRAIN ? size - at : UNDO_GRAIN;
	ssize_t got = pread(fd, bytes, want, (off_t)at);

	close(fd);
	for (i = 0; i < want; i++)
		if (at + i >= offset && at + i < offset + n)
			bytes[i] = with[at + i - offset];
	b.check = checksum32_nonzero(bytes, (size_t)got, 0);
	assert_int_equal(undo_put_data(&f->w, UNDO_BECOMES, file, at, &b, sizeof(b)), 0);
}

static inline void announce(struct fixture *f, unsigned file, uint64_t offset,
			    const unsigned char *with, uint64_t n)
{
	uint64_t end = offset + n, size = (uint64_t)f->before[file].size, grain;

	end = end < size ? end : size;
	for (grain = offset / UNDO_GRAIN; grain * UNDO_GRAIN < end; grain++)
		announce_grain(f, file, grain, with, offset, n);
	assert_int_equal(undo_flush(&f->w), 0);
}

static inline void set_reach(struct fixture *f, unsigned file, uint64_t reach)
{
	off_t at = (off_t)(offsetof(struct undo_header, reach) + file * sizeof(reach));

	assert_int_equal(pwrite(f->w.fd, &reach, sizeof(reach), at), sizeof(reach));
}

static inline void save(struct fixture *f, unsigned file, uint64_t offset, uint32_t length)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_RDONLY);

	assert_int_equal(undo_save(&f->w, file, fd, offset, length), 0);
	close(fd);
}

static inline void scribble(struct fixture *f, unsigned file, uint64_t offset, size_t n)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_WRONLY);
	unsigned char *p = malloc(n);

	memset(p, 'x', n);
	if (f->w.fd >= 0) {
		announce(f, file, offset, p, n);
		set_reach(f, file, offset + n);
	}
	assert_int_equal(pwrite(fd, p, n, (off_t)offset), n);
	free(p);
	close(fd);
}

/* Into the pickle, which was emptied, as it is written. */
static inline void announce_piece(struct fixture *f, const char *bytes, uint64_t at, uint32_t n)
{
	struct undo_written w = {.length = n, .check = checksum32_nonzero(bytes, n, 0)};

	assert_int_equal(undo_put_data(&f->w, UNDO_WRITTEN, UNDO_PICKLE, at, &w, sizeof(w)), 0);
	assert_int_equal(undo_flush(&f->w), 0);
}

static inline void announce_pickle(struct fixture *f, const char *text)
{
	announce_piece(f, text, 0, (uint32_t)strlen(text));
}

/* An undo file gets another inode. */
static inline void copy_undo(struct fixture *f, const char *suffix)
{
	static unsigned char bytes[2 * MAX_SIZE];
	ssize_t n = pread(f->w.fd, bytes, sizeof(bytes), 0);
	char name[UNDO_NAME_MAX];
	int fd;

	undo_name(name, &f->header, suffix);
	if (strcmp(suffix, UNDO_LAST_SUFFIX) == 0)
		undo_last_name(name, SEGMENT);
	assert_int_equal(renameat(f->undofd, name, f->undofd, "original"), 0);
	fd = openat(f->undofd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_int_equal(write(fd, bytes, (size_t)n), n);
	close(fd);
}

/* What a persist does: overwrites, grows, replaces the pickle. */
static inline void persist(struct fixture *f)
{
	char moved[UNDO_NAME_MAX];

	begin(f);
	save(f, 0, 0, 100);
	scribble(f, 0, 0, 100);
	save(f, 1, 4096, 8192);
	scribble(f, 1, 5000, 6000);
	save(f, 1, 147456, 2545); /* the last block, which is a part of one */
	scribble(f, 1, 150000, 40000);
	save(f, 2, 0, 4000);
	scribble(f, 2, 0, 4400);
	save(f, 3, 8192, 808);
	scribble(f, 3, 8900, 100);
	assert_int_equal(undo_put(&f->w, UNDO_MOVED, UNDO_PICKLE, 0), 0);
	assert_int_equal(undo_flush(&f->w), 0);
	undo_moved_name(moved, &f->header, UNDO_PICKLE);
	assert_int_equal(linkat(f->segmentfd, undo_file_names[UNDO_PICKLE], f->undofd, moved, 0),
			 0);
	assert_int_equal(unlinkat(f->segmentfd, undo_file_names[UNDO_PICKLE], 0), 0);
	announce_pickle(f, "half a pick");
	put(f, UNDO_PICKLE, "half a pick", 11);
}

static inline void is_as_before(struct fixture *f)
{
	static struct content c;
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++) {
		get(f, i, &c);
		assert_int_equal(c.size, f->before[i].size);
		if (c.size > 0)
			assert_memory_equal(c.bytes, f->before[i].bytes, (size_t)c.size);
	}
}

static inline void report(void *context, const struct rollback_outcome *o)
{
	struct fixture *f = context;

	f->reports++;
	f->last = *o;
}

static inline void step(void *context)
{
	struct fixture *f = context;

	if (f->die_at && ++f->steps == f->die_at)
		_exit(7);
}

static inline struct rollback rollback_of(struct fixture *f)
{
	return (struct rollback){
	    .rootfd = f->rootfd, .undofd = f->undofd, .report = report, .step = step, .context = f};
}

static inline void roll_back(struct fixture *f)
{
	struct rollback rb = rollback_of(f);

	f->reports = 0;
	memset(&f->last, 0, sizeof(f->last));
	assert_int_equal(rollback_directory(&rb), 0);
}

static inline bool in_undo(struct fixture *f, const char *suffix)
{
	char name[UNDO_NAME_MAX];

	undo_name(name, &f->header, suffix);
	return faccessat(f->undofd, name, F_OK, 0) == 0;
}

#endif
