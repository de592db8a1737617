/* SPDX-License-Identifier: MIT
 *
 * A persist inside the library, killed at every point and failed at every call: the next start
 * finds the segment as it was before or after it, never a mixture.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "inside.h"

#define ELEMENTS 8
#define STRIDE 700

static const char *const names[] = {"header.bin", "data_level0.bin", "length.bin", "link_lists.bin",
				    "index_metadata.pickle"};
static const size_t sizes[] = {100, ELEMENTS *STRIDE, ELEMENTS * 4, ELEMENTS * 36, 3000};
enum { HEADER, LEVEL0, LENGTH, LINKS, PICKLE, FILES };

/* Of generation g every byte of every file is another one than of the others. */
static void fill(unsigned char *out, int file, int generation)
{
	size_t i;

	for (i = 0; i < sizes[file]; i++)
		out[i] = (unsigned char)(i * 7 + (size_t)file + 31 * (size_t)generation);
	if (file == PICKLE)
		out[sizes[file] - 1] = '.';
}

static void put_generation(struct inside *f, int generation)
{
	unsigned char bytes[ELEMENTS * STRIDE];
	int file, fd = tree_make_directory(f->root.fd, SEGMENT);

	for (file = 0; file < FILES; file++) {
		fill(bytes, file, generation);
		scratch_put(fd, names[file], bytes, sizes[file]);
	}
	close(fd);
}

/* 1 or 2; 0: a mixture. */
static int generation_of(struct inside *f)
{
	unsigned char bytes[ELEMENTS * STRIDE];
	int file, g, found = 0, fd = tree_make_directory(f->root.fd, SEGMENT);

	for (file = 0; file < FILES; file++) {
		size_t size = 0;
		char *data = scratch_get(fd, names[file], &size);

		for (g = 1; g <= 2; g++) {
			fill(bytes, file, g);
			if (data && size == sizes[file] && !memcmp(data, bytes, size))
				break;
		}
		free(data);
		found = file == 0 ? g : found == g ? found : 0;
	}
	close(fd);
	return found > 2 ? 0 : found;
}

/* As hnswlib and Chroma do it: elements in place, then the pickle anew. Errors of the files of the
 * index are swallowed, those of the pickle are not. */
static int persist(struct inside *f)
{
	unsigned char bytes[ELEMENTS * STRIDE];
	char name[96];
	int file, fd, fds[PICKLE], r = 0;
	size_t at, piece;

	if (inside_open_database(f) < 0)
		return 10;
	for (file = 0; file < PICKLE; file++) {
		snprintf(name, sizeof(name), SEGMENT "/%s", names[file]);
		fds[file] = do_open(CALLER, inside_path(f, name), O_RDWR | O_CLOEXEC, 0);
		if (fds[file] < 0)
			return 11;
	}
	for (file = 0; file < PICKLE; file++) {
		fill(bytes, file, 2);
		piece = file == LEVEL0 ? STRIDE : sizes[file];
		for (at = 0; at < sizes[file]; at += piece)
			if (do_pwrite(fds[file], bytes + at, piece, (off_t)at) < 0)
				r = 1;
	}
	snprintf(name, sizeof(name), SEGMENT "/%s", names[PICKLE]);
	fd = do_open(CALLER, inside_path(f, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return 2;
	fill(bytes, PICKLE, 2);
	for (at = 0; at < sizes[PICKLE]; at += 1000)
		if (do_write(fd, bytes + at, 1000) != 1000)
			return 3;
	do_close(fd);
	return r;
}

static int start(struct inside *f)
{
	return inside_open_database(f) < 0 ? 10 : 0;
}

static void make(struct inside *f)
{
	inside_make(f);
	put_generation(f, 1);
}

static int copied_first; /* of the five files */
static int copied_flags;
static bool copied_by_rename;

/* As tar, dd, copytree and rsync bring a directory: one file after the other, the pickle where it
 * comes. */
static int copy(struct inside *f)
{
	unsigned char bytes[ELEMENTS * STRIDE];
	char name[96], to[96];
	int n, fd = inside_open_database(f);

	if (fd < 0 || do_pwrite(fd, "x", 1, 0) != 1 || do_close(fd) < 0)
		return 10;
	for (n = 0; n < FILES; n++) {
		int file = (copied_first + n) % FILES;

		fill(bytes, file, 2);
		snprintf(name, sizeof(name), SEGMENT "/%s%s", copied_by_rename ? "new-" : "",
			 names[file]);
		fd = do_open(CALLER, inside_path(f, name), copied_flags | O_WRONLY | O_CREAT, 0600);
		if (fd < 0 || do_write(fd, bytes, sizes[file]) != (ssize_t)sizes[file] ||
		    do_close(fd) < 0)
			return 11;
		snprintf(to, sizeof(to), SEGMENT "/%s", names[file]);
		if (copied_by_rename &&
		    do_rename(CALLER, inside_path(f, name), inside_path(f, to)) < 0)
			return 12;
	}
	return 0;
}

static void test_whole(void **state)
{
	struct inside f;

	(void)state;
	make(&f);
	assert_int_equal(generation_of(&f), 1);
	assert_int_equal(inside_run(&f, NULL, persist), 0);
	assert_int_equal(generation_of(&f), 2);
	/* Nothing is left to be undone. */
	assert_int_equal(inside_run(&f, NULL, start), 0);
	assert_int_equal(generation_of(&f), 2);
	assert_false(inside_said(&f, "undone"));
	inside_remove(&f);
}

static void test_killed_at_every_point(void **state)
{
	unsigned at, undone = 0;
	char fault[32];
	int status = 128 + SIGKILL, before = 0;

	(void)state;
	for (at = 1; status == 128 + SIGKILL; at++) {
		struct inside f;

		make(&f);
		snprintf(fault, sizeof(fault), "kill:%u", at);
		status = inside_run(&f, fault, persist);
		assert_true(status == 128 + SIGKILL || status == 0);
		assert_int_equal(inside_run(&f, NULL, start), 0);
		assert_true(generation_of(&f) != 0);
		/* Once it is there it stays. */
		assert_true(generation_of(&f) >= before);
		before = generation_of(&f);
		undone += inside_said(&f, "it was undone");
		/* Another persist after that is a whole one. */
		assert_int_equal(inside_run(&f, NULL, persist), 0);
		assert_int_equal(generation_of(&f), 2);
		inside_remove(&f);
	}
	assert_in_range(at, 20, 400);
	assert_true(undone > 5);
}

static void copy_is_whole(bool over_another)
{
	for (copied_first = 0; copied_first < FILES; copied_first++) {
		struct inside f;

		inside_make(&f);
		if (over_another)
			put_generation(&f, 1);
		else
			close(tree_make_directory(f.root.fd, SEGMENT));
		assert_int_equal(inside_run(&f, NULL, copy), 0);
		assert_int_equal(generation_of(&f), 2);
		assert_int_equal(inside_run(&f, NULL, start), 0);
		assert_int_equal(generation_of(&f), 2);
		assert_false(inside_said(&f, "undone"));
		inside_remove(&f);
	}
}

/* What copies has no pickle that comes last, and yet it has done all that it wanted. */
static void test_copied(void **state)
{
	(void)state;
	copied_flags = O_EXCL;
	copy_is_whole(false);
	copied_flags = O_TRUNC;
	copy_is_whole(false);
	copy_is_whole(true);
	copied_flags = 0; /* rsync --inplace */
	copy_is_whole(true);
	copied_by_rename = true;
	copy_is_whole(false);
	copy_is_whole(true);
}

static void fail_each(const char *format, unsigned least)
{
	unsigned at, failed = 0;
	char fault[48];

	for (at = 1; at <= least; at++) {
		struct inside f;
		int status;

		make(&f);
		snprintf(fault, sizeof(fault), format, at);
		status = inside_run(&f, fault, persist);
		assert_in_range(status, 0, 3);
		failed += status != 0;
		assert_int_equal(inside_run(&f, NULL, start), 0);
		assert_true(generation_of(&f) != 0);
		/* What was told to be written is. */
		if (status == 0)
			assert_true(generation_of(&f) == 2 || inside_said(&f, "undone"));
		inside_remove(&f);
	}
	print_message("%s: %u of %u persists failed\n", format, failed, least);
}

/* The segment's own writes: the disk is full for one of them, or from then on. */
static void test_the_hosts_calls_fail(void **state)
{
	(void)state;
	fail_each("once:%u:28", 14);
	fail_each("error:%u:28", 14);
}

/* The shim's own calls. */
static void test_the_shims_calls_fail(void **state)
{
	(void)state;
	fail_each("once:%u:28:own", 60);
	fail_each("error:%u:5:own", 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_whole),
	    cmocka_unit_test(test_killed_at_every_point),
	    cmocka_unit_test(test_copied),
	    cmocka_unit_test(test_the_hosts_calls_fail),
	    cmocka_unit_test(test_the_shims_calls_fail),
	};

	inside_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
