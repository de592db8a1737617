/* SPDX-License-Identifier: MIT
 *
 * The op log: a record and the names that it mentions stand in the same segment; what its header
 * says of the process is so.
 */
#include <fcntl.h>
#include <pthread.h>
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
#include "oplog_fixture.h"

#define LIMIT (1 << 20) /* segments of 128 KiB, the least there are */
#define THREADS 4
#define NAMES 64u

static char texts[NAMES + 1][120]; /* some with one slot of text, some with three */
static _Atomic uint32_t told[NAMES + 1];

static void make_texts(void)
{
	unsigned i;

	for (i = 1; i <= NAMES; i++) {
		snprintf(texts[i], sizeof(texts[i]), "name-%u%.*s", i, i % 2 ? 0 : 100,
			 "////////////////////////////////////////////////////////////"
			 "////////////////////////////////////////");
		atomic_store(&told[i], 0);
	}
}

static struct oplog_name name_of(uint32_t number)
{
	return (struct oplog_name){.number = number,
				   .length = (uint32_t)strlen(texts[number]),
				   .kind = OPLOG_NAME_FILE,
				   .text = texts[number],
				   .told = &told[number]};
}

static void put_rename(struct fixture *f, uint32_t from, uint32_t to)
{
	struct oplog_record r = {.op = OP_RENAME, .file = from, .arg = to, .offset = -1};
	struct oplog_name names[2] = {name_of(from), name_of(to)};

	oplog_end(oplog_begin(f->w, &r, names, 2), 0);
}

/* How many renames there are; each has both of its names. */
static unsigned check_names(struct fixture *f)
{
	struct oplog_reader *reader = open_reader(f);
	struct oplog_entry e;
	unsigned n = 0;

	while (oplog_reader_next(reader, &e) > 0) {
		if (e.op != OP_RENAME)
			continue;
		n++;
		assert_non_null(e.name);
		assert_non_null(e.name2);
		assert_string_equal(e.name, texts[e.file]);
		assert_string_equal(e.name2, texts[e.arg]);
	}
	oplog_reader_close(reader);
	return n;
}

/* Whatever room the segment has left. */
static void test_at_the_end_of_a_segment(void **state)
{
	struct fixture *f = *state;
	unsigned left;

	make_texts();
	for (left = 0; left < 9; left++) {
		struct oplog_header *h;

		assert_int_equal(open_writer(f, 1 << 30), 0);
		h = atomic_load(&f->w->current)->header;
		while (h->claimed + left < h->capacity)
			put_write(f, 0, 1);
		put_rename(f, 1, 2);
		put_rename(f, 2, 3);
		assert_int_equal(check_names(f), 2 * (left + 1));
	}
}

/* Another thread, which is ahead, has told them in the next segment meanwhile. */
static void test_told_elsewhere_meanwhile(void **state)
{
	struct fixture *f = *state;
	uint32_t now;

	make_texts();
	assert_int_equal(open_writer(f, LIMIT), 0);
	now = atomic_load(&f->w->current)->sequence + 1;
	atomic_store(&told[1], now + 1);
	atomic_store(&told[2], now - 1);
	put_rename(f, 1, 2);
	assert_int_equal(check_names(f), 1);
	assert_int_equal(atomic_load(&told[1]), now);
}

/* In a log of another directory its number of a segment means nothing. */
static void test_of_another_directory(void **state)
{
	struct fixture *f = *state;
	struct oplog_record r = {.op = OP_RENAME, .file = 1, .arg = 2, .offset = -1};
	struct oplog_name names[2];

	make_texts();
	assert_int_equal(open_writer(f, LIMIT), 0);
	names[0] = name_of(1);
	names[1] = name_of(2);
	names[1].told = NULL;
	assert_int_not_equal(oplog_put(f->w, &r, NULL, 0, names, 2), 0);
	assert_int_equal(check_names(f), 1);
}

static void *rename_many(void *context)
{
	struct fixture *f = context;
	unsigned i;

	for (i = 0; i < 20000; i++)
		put_rename(f, 1 + i * 7 % NAMES, 1 + (i * 11 + 3) % NAMES);
	return NULL;
}

static void test_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[THREADS];
	int i;

	make_texts();
	assert_int_equal(open_writer(f, LIMIT), 0);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, rename_many, f), 0);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_in_range(check_names(f), 1000, THREADS * 20000);
}

/* ---- headers ---- */

static unsigned count_files(struct fixture *f)
{
	struct oplog_reader *reader = open_reader(f);
	unsigned n = (unsigned)oplog_reader_segments(reader);

	oplog_reader_close(reader);
	return n;
}

/* The second one is made while nothing was changed yet. */
static void test_features_go_along(void **state)
{
	struct fixture *f = *state;
	int i;

	assert_int_equal(open_writer(f, LIMIT), 0);
	oplog_feature(f->w, OPLOG_IDLE, true);
	for (i = 0; i < 1500; i++)
		put_write(f, i, 1);
	assert_int_equal(count_files(f), 2);
	oplog_feature(f->w, OPLOG_IDLE, false);
	oplog_feature(f->w, OPLOG_HAS_WRITER, true);
	oplog_refused(f->w);
	for (i = 0; i < 1500; i++)
		put_write(f, i, 1);
	assert_int_equal(atomic_load(&f->w->current)->header->sequence, 1);
	assert_int_equal(atomic_load(&f->w->current)->header->features, OPLOG_HAS_WRITER);
	assert_int_not_equal(atomic_load(&f->w->current)->header->refused, 0);
}

/* What is recorded after a process said that it leaves is not in the file that went. */
static void test_idle_ones_go(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(open_writer(f, LIMIT), 0);
	oplog_feature(f->w, OPLOG_IDLE, true);
	put_write(f, 0, 1);
	oplog_writer_finish(f->w);
	assert_int_equal(count_files(f), 0);
	oplog_feature(f->w, OPLOG_IDLE, false);
	put_write(f, 0, 1);
	assert_int_equal(count_files(f), 1);
	assert_int_equal(count_records(f, OP_PWRITE), 1);
	oplog_writer_finish(f->w);
	assert_int_equal(count_files(f), 1);
}

static uint64_t own_life;

static uint64_t life_of(void *context)
{
	(void)context;
	return own_life;
}

/* Of one that lives, and as long as it does. */
static void test_at_limit(void **state)
{
	struct fixture *f = *state;
	struct oplog_header h;
	int fd = alive_open(f->storefd);

	assert_int_equal(alive_begin(fd, &own_life), 0);
	f->w = calloc(1, sizeof(*f->w));
	f->w->life = life_of;
	assert_int_equal(open_writer(f, LIMIT), 0);
	assert_int_equal(oplog_at_limit(f->storefd, &h), 0);
	oplog_feature(f->w, OPLOG_LIMIT, true);
	assert_int_equal(oplog_at_limit(f->storefd, &h), 1);
	assert_int_equal(h.pid, getpid());
	close(fd);
	assert_int_equal(oplog_at_limit(f->storefd, &h), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_at_the_end_of_a_segment),
	    TEST(test_told_elsewhere_meanwhile),
	    TEST(test_of_another_directory),
	    TEST(test_threads),
	    TEST(test_features_go_along),
	    TEST(test_idle_ones_go),
	    TEST(test_at_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
