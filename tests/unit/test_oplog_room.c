/* SPDX-License-Identifier: MIT
 *
 * The op log's bound where there are many logs: it is kept, and the directory is looked at now and
 * then.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/alive.h"
#include "core/base/clock.h"
#include "oplog_fixture.h"

#define PIECE (UINT64_C(128) << 10)
#define LIMIT (UINT64_C(32) << 20) /* 256 of them, of which 32 are made between two looks */

static const char pattern[] = "%016x-7-000000.oplog";

/* A log that a dead process left, or one that lives. */
static void leave_log(struct fixture *f, unsigned number, uint64_t life)
{
	struct oplog_header h = {.magic = OPLOG_MAGIC, .version = OPLOG_VERSION, .life = life};
	char name[64];
	int fd;

	h.pid = 0x3fffffff; /* which nobody has */
	h.features = OPLOG_HAS_WRITER;
	snprintf(name, sizeof(name), pattern, number);
	fd = openat(f->oplogfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	assert_int_equal(ftruncate(fd, (off_t)PIECE), 0);
	close(fd);
}

static bool is_left(struct fixture *f, unsigned number)
{
	char name[64];

	snprintf(name, sizeof(name), pattern, number);
	return faccessat(f->oplogfd, name, F_OK, 0) == 0;
}

static uint64_t total(struct fixture *f)
{
	struct oplog_reader *reader = open_reader(f);
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < oplog_reader_segments(reader); i++)
		n += oplog_reader_segment(reader, i)->size;
	oplog_reader_close(reader);
	return n;
}

/* As a process that changes something and ends. */
static void come_and_go(struct fixture *f)
{
	memset(f->w, 0, sizeof(*f->w));
	assert_int_equal(open_writer(f, LIMIT), 0);
	put_write(f, 0, 1);
	oplog_writer_close(f->w);
}

static void test_bound_is_kept(void **state)
{
	struct fixture *f = *state;
	unsigned i, looks = 0;
	uint64_t life, before = 0, now;
	int fd = alive_open(f->storefd);

	assert_int_equal(alive_begin(fd, &life), 0);
	f->w = calloc(1, sizeof(*f->w));
	for (i = 1; i <= 500; i++)
		leave_log(f, i, i == 3 || i == 200 ? life : 0);
	for (i = 0; i < 100; i++) {
		come_and_go(f);
		now = total(f);
		assert_in_range(now, LIMIT - LIMIT / 8 - PIECE, LIMIT);
		looks += i && now <= before;
		before = now;
	}
	assert_in_range(looks, 2, 4); /* of a hundred */
	assert_true(is_left(f, 3) && is_left(f, 200) && is_left(f, 500));
	assert_false(is_left(f, 1) || is_left(f, 201));
	close(fd);
}

/* What was written while the clock was ahead goes before all that came after it was set back. */
static void test_clock_that_was_set_back(void **state)
{
	struct fixture *f = *state;
	uint64_t later = clock_read(CLOCK_REALTIME) + 3600 * SECOND;
	unsigned i, left = 0;
	char from[64], to[64];

	f->w = calloc(1, sizeof(*f->w));
	for (i = 1; i <= 256; i++) {
		leave_log(f, i, 0);
		if (i % 4)
			continue;
		snprintf(from, sizeof(from), pattern, i);
		snprintf(to, sizeof(to), "%016llx-7-000000.oplog", (unsigned long long)later + i);
		assert_int_equal(renameat(f->oplogfd, from, f->oplogfd, to), 0);
	}
	for (i = 0; i < 100; i++)
		come_and_go(f);
	for (i = 4; i <= 256; i += 4) {
		snprintf(to, sizeof(to), "%016llx-7-000000.oplog", (unsigned long long)later + i);
		left += faccessat(f->oplogfd, to, F_OK, 0) == 0;
	}
	assert_int_equal(left, 0);
	assert_true(is_left(f, 255) && !is_left(f, 1));
}

/* The file that counts is no one's to rely on: emptied, gone, grown or something else. */
static void test_count_is_lost(void **state)
{
	static const off_t sizes[] = {-1, 0, 1000000};
	struct fixture *f = *state;
	unsigned i, k;

	f->w = calloc(1, sizeof(*f->w));
	for (k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		for (i = 1; i <= 300; i++)
			leave_log(f, 1000 * (k + 1) + i, 0);
		if (sizes[k] < 0)
			unlinkat(f->oplogfd, "made", 0);
		else
			close(openat(f->oplogfd, "made", O_CREAT | O_TRUNC | O_WRONLY, 0600));
		if (sizes[k] > 0) {
			int fd = openat(f->oplogfd, "made", O_WRONLY);

			assert_int_equal(ftruncate(fd, sizes[k]), 0);
			close(fd);
		}
		come_and_go(f);
		assert_in_range(total(f), LIMIT / 2, LIMIT);
	}
	for (i = 1; i <= 300; i++)
		leave_log(f, 9000 + i, 0);
	unlinkat(f->oplogfd, "made", 0);
	assert_int_equal(mkdirat(f->oplogfd, "made", 0700), 0);
	come_and_go(f);
	assert_in_range(total(f), LIMIT / 2, LIMIT);
}

static void leave_packed(struct fixture *f, unsigned number, unsigned pid, unsigned sequence,
			 bool packed)
{
	char name[64];

	snprintf(name, sizeof(name), "%016x-%u-%06u.oplog%s", number, pid, sequence,
		 packed ? ".zst" : "");
	close(openat(f->oplogfd, name, O_CREAT | O_WRONLY, 0600));
}

static bool is_packed_left(struct fixture *f, unsigned number, unsigned pid, unsigned sequence)
{
	char name[64];

	snprintf(name, sizeof(name), "%016x-%u-%06u.oplog.zst", number, pid, sequence);
	return faccessat(f->oplogfd, name, F_OK, 0) == 0;
}

/* The oldest of short processes go, whose number may have come again; nothing of longer ones. */
static void test_short_ones_are_thinned(void **state)
{
	struct fixture *f = *state;
	char later[64]; /* while the clock was ahead: it counts as the oldest */
	unsigned i;

	snprintf(later, sizeof(later), "%016llx-99-000000.oplog.zst",
		 (unsigned long long)clock_read(CLOCK_REALTIME) + 3600 * SECOND);
	close(openat(f->oplogfd, later, O_CREAT | O_WRONLY, 0600));
	for (i = 0; i < 4; i++)
		leave_packed(f, i, 5, i, true);
	leave_packed(f, 9, 6, 0, false); /* still written, perhaps */
	for (i = 0; i < 30; i++)
		leave_packed(f, 100 + i, 100 + i % 20, 0, true);
	assert_int_equal(oplog_thin(f->storefd, 40), 0);
	assert_int_equal(oplog_thin(f->storefd, 12), 19);
	assert_int_equal(faccessat(f->oplogfd, later, F_OK, 0), -1);
	for (i = 0; i < 30; i++)
		assert_int_equal(is_packed_left(f, 100 + i, 100 + i % 20, 0), i >= 18);
	for (i = 0; i < 4; i++)
		assert_true(is_packed_left(f, i, 5, i));
	assert_int_equal(oplog_thin(f->storefd, 12), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_bound_is_kept),
	    TEST(test_clock_that_was_set_back),
	    TEST(test_count_is_lost),
	    TEST(test_short_ones_are_thinned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
