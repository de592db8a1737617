/* SPDX-License-Identifier: MIT
 *
 * The op log: what the writer records, the reader gives back.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/alive.h"
#include "core/oplog/segments.h"
#include "oplog_fixture.h"

#define THREADS 8
#define PER_THREAD 100000

/* ---- what is written is read ---- */

static void test_round_trip(void **state)
{
	struct fixture *f = *state;
	struct oplog_record rename = {.op = OP_RENAME,
				      .flags = OPLOG_F_STDIO,
				      .file = 1,
				      .arg = 2,
				      .tid = 5,
				      .offset = -1,
				      .result = -ENOENT};
	struct oplog_reader *reader;
	struct oplog_entry e;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_write(f, 4096, 3); /* its name is told later */
	put_name(f, 1, "chroma.sqlite3");
	put_name(f, 2, "other");
	oplog_put(f->w, &rename, NULL, 0, NULL, 0);
	reader = open_reader(f);
	assert_int_equal(oplog_reader_next(reader, &e), 1);
	assert_int_equal(e.op, OP_PWRITE);
	assert_string_equal(e.name, "chroma.sqlite3");
	assert_int_equal(e.kind, OPLOG_NAME_FILE);
	assert_int_equal(e.offset, 4096);
	assert_int_equal(e.length, 10);
	assert_int_equal(e.result, 10);
	assert_int_equal(e.tid, 3);
	assert_int_equal(e.header->pid, getpid());
	assert_string_equal(e.header->program, "/usr/bin/program");
	assert_false(e.in_flight);
	assert_int_equal(oplog_reader_next(reader, &e), 1);
	assert_int_equal(e.op, OP_RENAME);
	assert_string_equal(e.name, "chroma.sqlite3");
	assert_string_equal(e.name2, "other");
	assert_int_equal(e.result, -ENOENT);
	assert_int_equal(e.flags, OPLOG_F_STDIO);
	assert_int_equal(oplog_reader_next(reader, &e), 0);
	assert_int_equal(oplog_reader_segment(reader, 0)->life, OPLOG_LIVE);
	oplog_reader_close(reader);
}

static void test_time_is_that_of_the_wall(void **state)
{
	struct fixture *f = *state;
	struct timespec now;
	struct oplog_reader *reader;
	struct oplog_entry e;
	int64_t ns;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_write(f, 0, 1);
	clock_gettime(CLOCK_REALTIME, &now);
	ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
	reader = open_reader(f);
	assert_int_equal(oplog_reader_next(reader, &e), 1);
	assert_true(llabs((int64_t)e.time - ns) < INT64_C(1000000000));
	oplog_reader_close(reader);
}

static void test_texts(void **state)
{
	static const size_t sizes[] = {0, 1, 51, 52, 53, 104, 600, 13000, 13001, 20000};
	struct fixture *f = *state;
	struct oplog_reader *reader;
	struct oplog_entry e;
	char text[20000];
	size_t i, k;

	for (i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i % 23);
	assert_int_equal(open_writer(f, 1 << 30), 0);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct oplog_record r = {.op = OP_NOTE, .arg = i, .offset = -1};

		assert_int_not_equal(oplog_put(f->w, &r, text, sizes[i], NULL, 0), 0);
	}
	reader = open_reader(f);
	for (k = 0; oplog_reader_next(reader, &e) > 0; k++) {
		size_t n = sizes[e.arg] < 13000 ? sizes[e.arg] : 13000;

		assert_int_equal(e.text_size, n);
		assert_memory_equal(e.text, text, n);
		assert_int_equal(!!(e.flags & OPLOG_F_CUT), sizes[e.arg] > 13000);
	}
	assert_int_equal(k, sizeof(sizes) / sizeof(sizes[0]));
	oplog_reader_close(reader);
}

/* The line that called Chroma is told apart from what the record says, whatever there is room for.
 */
static void test_caller(void **state)
{
	static const size_t texts[] = {0, 1, 24, 51, 52, 12798, 12799, 13000};
	static const size_t lines[] = {0, 1, 30, 49, 50, 51, 200, 201};
	struct fixture *f = *state;
	struct oplog_reader *reader;
	struct oplog_entry e;
	char text[13000], line[201];
	size_t i, k, n = 0;

	memset(text, 't', sizeof(text));
	memset(line, 'l', sizeof(line));
	assert_int_equal(open_writer(f, 1 << 30), 0);
	for (i = 0; i < 8; i++)
		for (k = 0; k < 8; k++) {
			struct oplog_record r = {.op = OP_RECORDS, .arg = i * 8 + k, .offset = -1};

			assert_int_not_equal(
			    oplog_put_caller(f->w, &r, text, texts[i], line, lines[k], NULL, 0), 0);
		}
	reader = open_reader(f);
	while (oplog_reader_next(reader, &e) > 0) {
		size_t size = texts[e.arg / 8], want = lines[e.arg % 8];

		if (want > 200 || size + want + 2 > 13000)
			want = 0;
		assert_int_equal(e.text_size, size);
		assert_memory_equal(e.text, text, size);
		assert_int_equal(e.text[size], 0);
		assert_int_equal(e.caller ? strlen(e.caller) : 0, want);
		n++;
	}
	assert_int_equal(n, 64);
	oplog_reader_close(reader);
}

/* A record that says it has a line, and has none. */
static void test_caller_that_is_none(void **state)
{
	static const char *const texts[] = {"", "a", "abc\001", "abc\0ab\003", "\0ab\377"};
	static const size_t sizes[] = {0, 1, 4, 7, 4};
	struct fixture *f = *state;
	struct oplog_reader *reader;
	struct oplog_entry e;
	size_t i = 0;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	for (i = 0; i < 5; i++) {
		struct oplog_record r = {
		    .op = OP_RECORDS, .flags = OPLOG_F_CALLER, .arg = i, .offset = -1};

		oplog_put(f->w, &r, texts[i], sizes[i], NULL, 0);
	}
	reader = open_reader(f);
	for (i = 0; oplog_reader_next(reader, &e) > 0; i++) {
		assert_null(e.caller);
		assert_int_equal(e.text_size, sizes[e.arg]);
	}
	assert_int_equal(i, 5);
	oplog_reader_close(reader);
}

static void test_in_flight(void **state)
{
	struct fixture *f = *state;
	struct oplog_record r = {.op = OP_FSYNC, .file = 1, .tid = 3, .offset = -1};
	struct oplog_reader *reader;
	struct oplog_entry e;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_name(f, 1, "x");
	oplog_begin(f->w, &r, NULL, 0);
	reader = open_reader(f);
	assert_int_equal(oplog_reader_next(reader, &e), 1);
	assert_true(e.in_flight);
	assert_int_equal(e.op, OP_FSYNC);
	assert_string_equal(e.name, "x");
	assert_int_equal(oplog_reader_next(reader, &e), 0);
	assert_int_equal(oplog_reader_segment(reader, 0)->in_flight, 1);
	oplog_reader_close(reader);
}

static void test_following(void **state)
{
	struct fixture *f = *state;
	struct oplog_record r = {.op = OP_FSYNC, .file = 1, .tid = 3, .offset = -1};
	struct oplog_reader *reader;
	struct oplog_claim claim;
	struct oplog_entry e;
	uint64_t n = 0;
	int i;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_name(f, 1, "x");
	put_write(f, 0, 1);
	claim = oplog_begin(f->w, &r, NULL, 0);
	reader = open_reader(f);
	oplog_reader_follow(reader);
	assert_int_equal(oplog_reader_next(reader, &e), 1);
	assert_int_equal(oplog_reader_next(reader, &e), 0); /* not what is under way */
	assert_int_equal(oplog_reader_poll(reader), 0);
	assert_int_equal(oplog_reader_next(reader, &e), 0);
	oplog_end(claim, 0);
	assert_int_equal(oplog_reader_poll(reader), 0);
	assert_int_equal(oplog_reader_next(reader, &e), 1);
	assert_int_equal(e.op, OP_FSYNC);
	assert_int_equal(oplog_reader_next(reader, &e), 0);
	for (i = 0; i < 100000; i++) { /* over several segments */
		put_write(f, i, 2);
		if (i % 7001 == 0) {
			assert_int_equal(oplog_reader_poll(reader), 0);
			while (oplog_reader_next(reader, &e) > 0)
				n++;
		}
	}
	for (i = 0; i < 2; i++) {
		assert_int_equal(oplog_reader_poll(reader), 0);
		while (oplog_reader_next(reader, &e) > 0)
			n++;
	}
	assert_int_equal(n, 100000);
	oplog_reader_close(reader);
}

/* ---- size, threads, processes ---- */

static uint64_t directory_size(struct fixture *f)
{
	struct oplog_reader *reader = open_reader(f);
	uint64_t total = 0;
	size_t i;

	for (i = 0; i < oplog_reader_segments(reader); i++)
		total += oplog_reader_segment(reader, i)->size;
	oplog_reader_close(reader);
	return total;
}

/* Only what dead processes left is given up: the log of a living one is never cut under it. */
static void test_rotation_and_limit(void **state)
{
	struct fixture *f = *state;
	const uint64_t limit = UINT64_C(16) << 20;
	int round, status;

	for (round = 0; round < 6; round++) {
		pid_t child = fork();

		if (child == 0) {
			int i, r = open_writer(f, limit);

			for (i = 0; i < 150000; i++)
				put_write(f, i, 1);
			_exit(r || atomic_load(&f->w->lost) ? 1 : 0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
		assert_true(directory_size(f) <= limit);
	}
	assert_true(count_records(f, OP_PWRITE) >= 100000);
}

static void *write_many(void *context)
{
	struct fixture *f = context;
	int i;

	for (i = 0; i < PER_THREAD; i++)
		put_write(f, i, 1);
	return NULL;
}

static void test_threads_lose_nothing_silently(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[THREADS];
	uint64_t lost;
	int i;

	assert_int_equal(open_writer(f, UINT64_C(1) << 30), 0);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, f), 0);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	/* On a busy machine a segment may take too long to be made. */
	lost = atomic_load(&f->w->lost);
	assert_true(lost < THREADS * PER_THREAD / 10);
	assert_int_equal(count_records(f, OP_PWRITE) + lost, THREADS * PER_THREAD);
}

/* A thread may be held up between its claim and the last byte of its record. */
static void test_place_in_use_is_not_mapped_over(void **state)
{
	struct fixture *f = *state;
	struct oplog_segment *used;
	uint32_t sequence;
	unsigned i, n = OPLOG_CAPACITY * (OPLOG_PLACES + 1);

	assert_int_equal(open_writer(f, UINT64_C(1) << 30), 0);
	used = atomic_load(&f->w->current);
	sequence = used->sequence;
	__atomic_fetch_add(&used->users, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < n; i++)
		put_write(f, 0, 1);
	assert_int_equal(used->sequence, sequence);
	assert_int_equal(used->header->sequence, sequence);
	assert_int_equal(used->users, 1);
	__atomic_fetch_sub(&used->users, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < n; i++)
		put_write(f, 0, 1);
	assert_int_not_equal(used->sequence, sequence);
	for (i = 0; i < f->w->place_count; i++)
		assert_int_equal(f->w->places[i].users, 0);
	assert_int_equal(atomic_load(&f->w->lost), 0);
	assert_int_equal(count_records(f, OP_PWRITE), 2 * n);
}

/* KiB of the log's files that are in this process's memory. */
static unsigned resident(const struct fixture *f)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	unsigned long from, to;
	char line[512];
	unsigned total = 0, rss;
	bool ours = false;

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			ours = strstr(line, f->dir) != NULL;
		else if (ours && sscanf(line, "Rss: %u", &rss) == 1)
			total += rss;
	}
	fclose(maps);
	return total;
}

/* However much is written; and calls that began long before end where they began. */
static void test_what_is_written_leaves_the_memory(void **state)
{
	struct fixture *f = *state;
	const struct oplog_record slow = {.op = OP_FSYNC, .file = 1};
	struct oplog_claim claims[2] = {{.record = NULL}};
	unsigned i, most = 0, now;

	assert_int_equal(open_writer(f, UINT64_C(1) << 30), 0);
	for (i = 0; i < 2 * OPLOG_CAPACITY; i++) {
		put_write(f, i, 1);
		if (i % OPLOG_PIECE == 0) {
			struct oplog_claim *c = &claims[i / OPLOG_PIECE % 2];

			oplog_end(*c, 0);
			*c = oplog_begin(f->w, &slow, NULL, 0);
		}
		if (i % 1000 == 0 && (now = resident(f)) > most)
			most = now;
	}
	assert_in_range(most, 4, 1024);
	assert_int_equal(count_records(f, OP_PWRITE), 2 * OPLOG_CAPACITY);
	assert_int_equal(count_records(f, OP_FSYNC), 2 * OPLOG_CAPACITY / OPLOG_PIECE);
}

/* Its segment's place has gone to another one by then; nothing there may be touched. */
static void test_call_that_outlives_its_segment(void **state)
{
	struct fixture *f = *state;
	struct oplog_record r = {.op = OP_LOCK, .file = 1, .tid = 3, .offset = 0};
	struct oplog_reader *reader;
	struct oplog_claim claim;
	struct oplog_entry e;
	unsigned in_flight = 0, n = OPLOG_CAPACITY * (OPLOG_PLACES + 1);
	uint64_t damaged = 0, written = 0;
	size_t i;

	assert_int_equal(open_writer(f, UINT64_C(1) << 30), 0);
	claim = oplog_begin(f->w, &r, NULL, 0);
	for (i = 0; i < n; i++)
		put_write(f, 0, 1);
	oplog_end(claim, 0);
	reader = open_reader(f);
	while (oplog_reader_next(reader, &e) > 0) {
		in_flight += e.op == OP_LOCK && e.in_flight;
		written += e.op == OP_PWRITE && !e.in_flight;
	}
	for (i = 0; i < oplog_reader_segments(reader); i++)
		damaged += oplog_reader_segment(reader, i)->damaged;
	oplog_reader_close(reader);
	assert_int_equal(in_flight, 1);
	assert_int_equal(written, n);
	assert_int_equal(damaged, 0);
}

static void test_fork(void **state)
{
	struct fixture *f = *state;
	struct oplog_reader *reader;
	struct oplog_entry e;
	unsigned parent = 0, children = 0;
	int status;
	pid_t child;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_write(f, 1, 1);
	child = fork();
	if (child == 0) {
		oplog_writer_fork(f->w);
		put_write(f, 2, 2);
		put_write(f, 3, 2);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	put_write(f, 4, 1);
	reader = open_reader(f);
	while (oplog_reader_next(reader, &e) > 0) {
		assert_int_equal(e.header->pid, e.tid == 2 ? child : getpid());
		children += e.tid == 2;
		parent += e.tid == 1;
	}
	assert_int_equal(parent, 2);
	assert_int_equal(children, 2);
	assert_int_equal(oplog_reader_segment(reader, 0)->life, OPLOG_LIVE);
	assert_int_equal(oplog_reader_segment(reader, 1)->life, OPLOG_DEAD);
	oplog_reader_close(reader);
}

static void test_lost_are_counted(void **state)
{
	struct fixture *f = *state;
	struct oplog_header *header;
	uint64_t lost;
	int i;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	for (i = 0; i < 30000; i++)
		put_write(f, i, 1);
	lost = atomic_load(&f->w->lost);
	header = atomic_load(&f->w->current)->header;
	assert_true(lost > 0);
	assert_int_equal(header->lost, lost); /* where a reader that maps it would look */
	assert_true(header->claimed >= header->capacity);
}

/* ---- who lives, and the bound ---- */

static uint64_t given_life;

static uint64_t life(void *context)
{
	(void)context;
	return given_life;
}

static enum oplog_life life_of_only(struct fixture *f)
{
	struct oplog_reader *reader = open_reader(f);
	enum oplog_life found;

	assert_int_equal(oplog_reader_segments(reader), 1);
	assert_int_equal(oplog_reader_segment(reader, 0)->error, 0);
	found = oplog_reader_segment(reader, 0)->life;
	oplog_reader_close(reader);
	return found;
}

/* This process is there all the time; its lock tells. */
static void test_life(void **state)
{
	struct fixture *f = *state;
	struct oplog_packed packed;
	struct oplog_header h;
	char name[256];
	int fd = alive_open(f->storefd), segment;

	assert_int_equal(alive_begin(fd, &given_life), 0);
	f->w = calloc(1, sizeof(*f->w));
	f->w->life = life;
	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_write(f, 0, 1);
	assert_int_equal(life_of_only(f), OPLOG_LIVE);
	/* As it is seen from another container: nobody has that pid, or another process. */
	only_segment(f, name);
	segment = openat(f->oplogfd, name, O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(segment, &h, sizeof(h), 0), sizeof(h));
	assert_int_equal(h.life, given_life);
	assert_true(oplog_header_is_here(&h));
	h.pid = 1;
	h.start_ticks++;
	h.check = oplog_header_check(&h);
	assert_int_equal(pwrite(segment, &h, sizeof(h), 0), sizeof(h));
	assert_false(oplog_header_is_here(&h));
	assert_int_equal(life_of_only(f), OPLOG_LIVE);
	assert_int_equal(oplog_compress(f->storefd, &packed), 0);
	assert_int_equal(packed.files, 0);
	close(fd);
	assert_int_equal(life_of_only(f), OPLOG_DEAD);
	assert_int_equal(oplog_compress(f->storefd, &packed), 0);
	assert_int_equal(packed.files, 1);
	close(segment);
}

static void test_version_1(void **state)
{
	struct fixture *f = *state;
	struct oplog_header h;
	char name[256];
	int segment;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_write(f, 0, 1);
	only_segment(f, name);
	segment = openat(f->oplogfd, name, O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(segment, &h, sizeof(h), 0), sizeof(h));
	h.version = 1;
	h.life = h.dropped = 77; /* which it does not have */
	h.check = oplog_header_check(&h);
	assert_int_equal(pwrite(segment, &h, sizeof(h), 0), sizeof(h));
	close(segment);
	assert_int_equal(life_of_only(f), OPLOG_LIVE);
	assert_int_equal(count_records(f, OP_PWRITE), 1);
}

static void sum_log(struct fixture *f, uint64_t *bytes, bool *dropped)
{
	struct oplog_reader *reader = open_reader(f);
	size_t i;

	*bytes = 0;
	*dropped = false;
	for (i = 0; i < oplog_reader_segments(reader); i++) {
		*bytes += oplog_reader_segment(reader, i)->size;
		*dropped |= oplog_reader_segment(reader, i)->header.dropped > 0;
	}
	oplog_reader_close(reader);
}

/* Whatever the bound is, it is kept, and most of it is history. */
static void test_small_limits(void **state)
{
	static const uint64_t limits[] = {1 << 20, 1300000, 2 << 20, 4 << 20, 8 << 20, 16 << 20};
	struct fixture *f = *state;
	uint64_t bytes, i;
	bool dropped;
	unsigned k;

	for (k = 0; k < sizeof(limits) / sizeof(limits[0]); k++) {
		tear_down(state);
		set_up(state);
		f = *state;
		assert_int_equal(open_writer(f, limits[k]), 0);
		for (i = 0; i < limits[k] / OPLOG_SLOT_SIZE * 2; i++)
			put_write(f, (int64_t)i, 1);
		sum_log(f, &bytes, &dropped);
		assert_in_range(bytes, limits[k] / 2, limits[k]);
		assert_true(dropped);
		assert_true(count_records(f, OP_PWRITE) * OPLOG_SLOT_SIZE >= limits[k] / 2);
		assert_int_equal(atomic_load(&f->w->lost), 0);
	}
}

/* Segments of the process that has given_life. */
static unsigned count_living(struct fixture *f)
{
	struct oplog_reader *reader = open_reader(f);
	unsigned n = 0;
	size_t i;

	for (i = 0; i < oplog_reader_segments(reader); i++)
		n += oplog_reader_segment(reader, i)->header.life == given_life;
	oplog_reader_close(reader);
	return n;
}

/* Another one that lives, in whatever container, keeps what it is writing; what it is done with may
 * go, and all of it when it is dead. */
static void test_limit_and_others(void **state)
{
	struct fixture *f = *state;
	struct oplog_writer *other = calloc(1, sizeof(*other)), *own;
	int fd = alive_open(f->storefd), i;

	assert_int_equal(alive_begin(fd, &given_life), 0);
	other->life = life;
	f->w = other;
	assert_int_equal(open_writer(f, 1 << 20), 0);
	for (i = 0; i < 3000; i++)
		put_write(f, i, 1);
	f->w = own = calloc(1, sizeof(*own));
	assert_int_equal(open_writer(f, 1 << 20), 0);
	for (i = 0; i < 40000; i++)
		put_write(f, i, 2);
	assert_in_range(count_living(f), 1, 2); /* what it writes, and what it made ready */
	close(fd);
	for (i = 0; i < 20000; i++)
		put_write(f, i, 2);
	assert_int_equal(count_living(f), 0);
	free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_round_trip),
	    TEST(test_time_is_that_of_the_wall),
	    TEST(test_texts),
	    TEST(test_caller),
	    TEST(test_caller_that_is_none),
	    TEST(test_in_flight),
	    TEST(test_following),
	    TEST(test_rotation_and_limit),
	    TEST(test_threads_lose_nothing_silently),
	    TEST(test_place_in_use_is_not_mapped_over),
	    TEST(test_what_is_written_leaves_the_memory),
	    TEST(test_call_that_outlives_its_segment),
	    TEST(test_fork),
	    TEST(test_lost_are_counted),
	    TEST(test_life),
	    TEST(test_version_1),
	    TEST(test_small_limits),
	    TEST(test_limit_and_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
