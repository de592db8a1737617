/* SPDX-License-Identifier: MIT
 *
 * A directory with pins, and a writer that saves before it writes. After cmocka.h.
 */
#ifndef UNIT_PIN_FIXTURE_H
#define UNIT_PIN_FIXTURE_H

#include <dirent.h>
#include <time.h>

#include "core/pin/view.h"
#include "core/sqlite/database.h"
#include "scratch.h"

#define SEGMENT "0a1b2c3d-0000-4000-8000-00000000abcd"
#define SEGMENT_FILE SEGMENT "/data_level0.bin"
#define PICKLE SEGMENT "/index_metadata.pickle"
#define FILES 3u
#define SIZE_LIMIT 60000u
#define KEPT 4u

static const char *const paths[FILES] = {CHROMA_DATABASE, SEGMENT_FILE, PICKLE};

struct content {
	bool there;
	size_t size;
	unsigned char bytes[SIZE_LIMIT];
};

struct kept {
	struct pin_slot *slot;
	struct content files[FILES];
};

struct fixture {
	struct scratch root;
	int storefd;
	struct pins pins;
	struct pin_writer *writer;
	struct kept kept[KEPT];
	unsigned seed;
};

static inline void make(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	scratch_make(&f->root);
	assert_int_equal(mkdirat(f->root.fd, ".chromashim", 0700), 0);
	assert_int_equal(mkdirat(f->root.fd, SEGMENT, 0700), 0);
	f->storefd = openat(f->root.fd, ".chromashim", O_RDONLY | O_DIRECTORY);
	assert_int_equal(pins_open(&f->pins, f->storefd, true), 0);
	f->writer = pins_be_writer(&f->pins, 0);
	assert_non_null(f->writer);
	f->seed = 1;
}

static inline void release(struct fixture *f)
{
	pins_close(&f->pins);
	close(f->storefd);
	scratch_remove(&f->root);
}

static inline unsigned roll(struct fixture *f, unsigned n)
{
	return (unsigned)rand_r(&f->seed) % n;
}

static inline void leave(struct fixture *f, uint64_t epoch, const char *path)
{
	struct pin_file file;

	if (epoch) {
		assert_int_equal(pin_file_open_existing(&file, &f->pins, epoch, path), 0);
		pin_file_leave(&file, f->root.fd);
		pin_file_close(&file);
	}
	__atomic_fetch_sub(&f->writer->writes, 1, __ATOMIC_SEQ_CST);
}

/* Up to leave(), of the epoch it gives. */
static inline uint64_t save(struct fixture *f, const char *path, uint64_t offset, uint64_t length)
{
	struct pin_file file;
	uint64_t epoch;
	int fd;

	__atomic_fetch_add(&f->writer->writes, 1, __ATOMIC_SEQ_CST);
	epoch = pins_epoch(&f->pins);
	if (!epoch)
		return 0;
	assert_int_equal(pin_file_open(&file, &f->pins, epoch, f->root.fd, path), 0);
	fd = openat(f->root.fd, path, O_RDONLY);
	if (fd >= 0) {
		assert_int_equal(pin_file_save(&file, &f->pins, fd, offset, length), 0);
		close(fd);
	}
	pin_file_enter(&file);
	pin_file_close(&file);
	return epoch;
}

static inline void write_at(struct fixture *f, const char *path, uint64_t offset, const void *data,
			    size_t n)
{
	uint64_t epoch = save(f, path, offset, n);
	int fd;

	fd = openat(f->root.fd, path, O_RDWR | O_CREAT, 0644);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, n, (off_t)offset), n);
	close(fd);
	leave(f, epoch, path);
}

static inline struct pin_slot *pin(struct fixture *f)
{
	struct pin_request q = {.reason = "manual", .description = "a test"};
	struct pin_slot *slot;

	assert_int_equal(pin_begin(&f->pins, &q, &slot), 0);
	assert_int_equal(pin_list_make(&f->pins, slot->id, f->root.fd), 0);
	pin_hold(slot);
	return slot;
}

static inline void damage(struct fixture *f, const char *part, off_t at, int cut_to)
{
	int fd = openat(f->pins.dirfd, ".", O_RDONLY | O_DIRECTORY), file;
	DIR *dir = fdopendir(fd);
	const struct dirent *e;
	unsigned char c;

	while ((e = readdir(dir))) {
		if (!strstr(e->d_name, part))
			continue;
		file = openat(f->pins.dirfd, e->d_name, O_RDWR);
		if (cut_to >= 0) {
			assert_int_equal(ftruncate(file, cut_to), 0);
		} else {
			assert_int_equal(pread(file, &c, 1, at), 1);
			c ^= 0x40;
			assert_int_equal(pwrite(file, &c, 1, at), 1);
		}
		close(file);
	}
	closedir(dir);
}

#endif
