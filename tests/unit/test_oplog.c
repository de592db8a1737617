/* SPDX-License-Identifier: MIT
 *
 * The op log: what the writer records, the reader gives back; and every kind of damage.
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

#include "core/oplog.h"
#include "core/oplog_file.h"
#include "core/oplog_read.h"

#define THREADS 8
#define PER_THREAD 100000

struct fixture {
	char dir[64]; /* the store */
	int storefd, oplogfd;
	struct oplog_writer *w;
};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/test_oplog.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->storefd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(f->storefd, OPLOG_DIR, 0700), 0);
	f->oplogfd = openat(f->storefd, OPLOG_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->oplogfd >= 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	close(f->oplogfd);
	close(f->storefd);
	free(f->w);
	free(f);
	return 0;
}

static int open_writer(struct fixture *f, uint64_t limit)
{
	struct oplog_header identity = {.uid = 7, .protected_since = 11};

	strcpy(identity.program, "/usr/bin/program");
	strcpy(identity.data_dir, "/data");
	if (!f->w)
		f->w = calloc(1, sizeof(*f->w));
	return oplog_writer_open(f->w, f->oplogfd, limit, &identity);
}

static uint32_t put_name(struct fixture *f, uint32_t number, const char *name)
{
	struct oplog_record r = {
	    .op = OP_NAME, .file = number, .arg = OPLOG_NAME_FILE, .offset = -1};

	return oplog_put(f->w, &r, name, strlen(name));
}

static void put_write(struct fixture *f, int64_t offset, uint32_t tid)
{
	struct oplog_record r = {
	    .op = OP_PWRITE, .file = 1, .tid = tid, .offset = offset, .length = 10};

	oplog_end(oplog_begin(f->w, &r), 10);
}

static struct oplog_reader *open_reader(struct fixture *f)
{
	struct oplog_reader *reader = NULL;

	assert_int_equal(oplog_reader_open(f->storefd, &reader), 0);
	return reader;
}

/* The one segment there is. */
static void only_segment(struct fixture *f, char name[256])
{
	struct oplog_reader *reader = open_reader(f);

	assert_int_equal(oplog_reader_segments(reader), 1);
	strcpy(name, oplog_reader_segment(reader, 0)->name);
	oplog_reader_close(reader);
}

static uint64_t count_records(struct fixture *f, unsigned op)
{
	struct oplog_reader *reader = open_reader(f);
	struct oplog_entry e;
	uint64_t n = 0, last = 0;
	int r;

	while ((r = oplog_reader_next(reader, &e)) > 0) {
		assert_true(e.time >= last);
		last = e.time;
		n += e.op == op;
	}
	assert_int_equal(r, 0);
	oplog_reader_close(reader);
	return n;
}

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
	oplog_put(f->w, &rename, NULL, 0);
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

		assert_int_not_equal(oplog_put(f->w, &r, text, sizes[i]), 0);
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

static void test_in_flight(void **state)
{
	struct fixture *f = *state;
	struct oplog_record r = {.op = OP_FSYNC, .file = 1, .tid = 3, .offset = -1};
	struct oplog_reader *reader;
	struct oplog_entry e;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_name(f, 1, "x");
	oplog_begin(f->w, &r);
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
	claim = oplog_begin(f->w, &r);
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

static void test_threads_lose_nothing(void **state)
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
	lost = atomic_load(&f->w->lost);
	assert_int_equal(lost, 0);
	assert_int_equal(count_records(f, OP_PWRITE), THREADS * PER_THREAD);
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
	claim = oplog_begin(f->w, &r);
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
		oplog_writer_fork(f->w, f->oplogfd);
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

/* ---- damage ---- */

static void put_bytes(struct fixture *f, const char *name, off_t offset, const void *data,
		      size_t size)
{
	int fd = openat(f->oplogfd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, size, offset), size);
	close(fd);
}

static void fresh_segment(struct fixture *f, char name[256])
{
	int i;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	put_name(f, 1, "x");
	for (i = 0; i < 100; i++)
		put_write(f, i, 1);
	only_segment(f, name);
}

/* What the reader says about the one segment, and how many records it still gives. */
static struct oplog_segment_info outcome(struct fixture *f, uint64_t *records)
{
	struct oplog_reader *reader = open_reader(f);
	struct oplog_segment_info info;
	struct oplog_entry e;

	*records = 0;
	while (oplog_reader_next(reader, &e) > 0)
		++*records;
	info = *oplog_reader_segment(reader, 0);
	info.name = NULL;
	oplog_reader_close(reader);
	return info;
}

static void test_damaged_slots(void **state)
{
	struct fixture *f = *state;
	struct oplog_segment_info info;
	uint64_t records;
	char name[256];

	fresh_segment(f, name);
	put_bytes(f, name, OPLOG_HEADER_SIZE + 10 * OPLOG_SLOT_SIZE + 40, "\x55", 1);
	put_bytes(f, name, OPLOG_HEADER_SIZE + 20 * OPLOG_SLOT_SIZE + 8, "\x55", 1);
	info = outcome(f, &records);
	assert_int_equal(info.error, 0);
	assert_int_equal(info.damaged, 2);
	assert_int_equal(records, 98);
}

static void test_damaged_text(void **state)
{
	struct fixture *f = *state;
	struct oplog_reader *reader;
	struct oplog_entry e;
	char name[256];

	fresh_segment(f, name); /* slot 1 is the text of the name in slot 0 */
	put_bytes(f, name, OPLOG_HEADER_SIZE + OPLOG_SLOT_SIZE + 20, "\x55", 1);
	reader = open_reader(f);
	assert_int_equal(oplog_reader_next(reader, &e), 1);
	assert_string_equal(e.name, "");
	oplog_reader_close(reader);
}

static void test_cut_off(void **state)
{
	struct fixture *f = *state;
	struct oplog_segment_info info;
	uint64_t records;
	char name[256];
	int fd;

	fresh_segment(f, name);
	fd = openat(f->oplogfd, name, O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, OPLOG_HEADER_SIZE + 52 * OPLOG_SLOT_SIZE + 30), 0);
	info = outcome(f, &records);
	assert_int_equal(info.error, 0);
	assert_int_equal(info.missing, info.header.capacity - 52);
	assert_int_equal(records, 50);
	assert_int_equal(ftruncate(fd, 100), 0);
	assert_int_equal(outcome(f, &records).error, -EMSGSIZE);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(outcome(f, &records).error, -ENODATA);
	close(fd);
}

static void read_whole(struct fixture *f, const char *name, unsigned char **data, size_t *size)
{
	struct stat st;

	assert_int_equal(oplog_file_read(f->oplogfd, name, false, data, size, &st), 0);
}

static int image_error(unsigned char *data, size_t size)
{
	struct oplog_image image;
	int r = oplog_image_open(&image, data, size);

	oplog_image_close(&image);
	return r;
}

static void test_headers(void **state)
{
	struct fixture *f = *state;
	struct oplog_header h, good;
	unsigned char *data;
	char name[256];
	size_t size;

	fresh_segment(f, name);
	read_whole(f, name, &data, &size);
	assert_int_equal(image_error(data, size), 0);
	memcpy(&good, data, sizeof(good));

#define EXPECT(error, change)                                     \
	do {                                                      \
		h = good;                                         \
		change;                                           \
		memcpy(data, &h, sizeof(h));                      \
		assert_int_equal(image_error(data, size), error); \
	} while (0)
#define SEALED(change) (change, h.check = oplog_header_check(&h))

	EXPECT(-EILSEQ, h.magic++);
	EXPECT(-ENOTSUP, h.magic = __builtin_bswap64(h.magic));
	EXPECT(-EPROTONOSUPPORT, SEALED(h.version = OPLOG_VERSION + 1));
	EXPECT(-EPROTONOSUPPORT, h.version = OPLOG_VERSION + 1); /* its check may differ */
	EXPECT(-EBADMSG, h.capacity++);
	EXPECT(-EBADMSG, h.data_dir[1000] = 'x');
	EXPECT(-ENOTSUP, SEALED(h.endian = __builtin_bswap32(OPLOG_ENDIAN)));
	EXPECT(-EINVAL, SEALED(h.capacity = 0));
	EXPECT(-EINVAL, SEALED(h.capacity = OPLOG_CAPACITY_MAX + 1));
	EXPECT(-EINVAL, SEALED(h.header_size = 64));
	EXPECT(-EINVAL, SEALED(h.slot_size = 1));
	EXPECT(-EINVAL, SEALED(h.version = 0));
	EXPECT(0, memset(h.program, 'x', sizeof(h.program)); SEALED((void)0));
	EXPECT(0, h.claimed = UINT64_MAX);
	free(data);
}

static void test_other_files(void **state)
{
	struct fixture *f = *state;
	struct oplog_reader *reader;
	struct oplog_entry e;
	char name[256], garbage[5000];
	unsigned i, errors = 0, loops = 0, directories = 0;

	fresh_segment(f, name);
	memset(garbage, 'g', sizeof(garbage));
	put_bytes(f, "notes.txt", 0, "x", 1); /* not ours, not looked at */
	put_bytes(f, ".x.oplog.1.tmp", 0, "x", 1);
	put_bytes(f, "0.oplog", 0, garbage, sizeof(garbage));
	put_bytes(f, "1.oplog.zst", 0, garbage, sizeof(garbage));
	assert_int_equal(symlinkat(name, f->oplogfd, "2.oplog"), 0);
	assert_int_equal(mkdirat(f->oplogfd, "3.oplog", 0700), 0);
	assert_int_equal(mkfifoat(f->oplogfd, "4.oplog", 0600), 0);
	reader = open_reader(f);
	assert_int_equal(oplog_reader_segments(reader), 6);
	for (i = 0; oplog_reader_next(reader, &e) > 0; i++)
		;
	assert_int_equal(i, 100);
	for (i = 0; i < 6; i++) {
		int error = oplog_reader_segment(reader, i)->error;

		errors += error != 0;
		loops += error == -ELOOP;
		directories += error == -EISDIR;
		assert_non_null(oplog_error_text(error));
	}
	assert_int_equal(errors, 5);
	assert_int_equal(loops, 1);
	assert_int_equal(directories, 1);
	oplog_reader_close(reader);
}

static void test_symlinked_directory(void **state)
{
	struct fixture *f = *state;
	struct oplog_reader *reader;

	assert_int_equal(renameat(f->storefd, OPLOG_DIR, f->storefd, "elsewhere"), 0);
	assert_int_equal(oplog_reader_open(f->storefd, &reader), -ENOENT);
	assert_int_equal(symlinkat("elsewhere", f->storefd, OPLOG_DIR), 0);
	assert_true(oplog_reader_open(f->storefd, &reader) < 0);
	assert_null(reader);
}

/* No single flipped bit makes the reader give a record that was not written. */
static void test_every_flipped_bit(void **state)
{
	struct fixture *f = *state;
	unsigned char *data;
	char name[256];
	size_t size, bit, slots = 12;

	fresh_segment(f, name);
	read_whole(f, name, &data, &size);
	size = OPLOG_HEADER_SIZE + slots * OPLOG_SLOT_SIZE;
	for (bit = OPLOG_HEADER_SIZE * 8; bit < size * 8; bit++) {
		struct oplog_image image;
		struct oplog_entry e;
		uint32_t i;

		data[bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_int_equal(oplog_image_open(&image, data, size), 0);
		for (i = 0; i < image.order_size; i++) {
			assert_int_equal(oplog_image_get(&image, i, &e), 0);
			assert_true(e.in_flight || (e.op == OP_PWRITE && e.result == 10));
		}
		assert_true(image.order_size >= 9);
		oplog_image_close(&image);
		data[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	free(data);
}

/* ---- compressing ---- */

static void write_as_child(struct fixture *f, int records)
{
	int status, i;
	pid_t child = fork();

	if (child == 0) {
		i = open_writer(f, 1 << 30);
		put_name(f, 1, "x");
		while (records--)
			put_write(f, records, 1);
		_exit(i ? 1 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void test_compress(void **state)
{
	struct fixture *f = *state;
	struct oplog_packed packed;
	struct oplog_reader *reader;
	size_t i;

	write_as_child(f, 50000);
	assert_int_equal(oplog_compress(f->storefd, &packed), 0);
	assert_true(packed.files >= 3);
	assert_true(packed.bytes_after < packed.bytes_before / 2);
	reader = open_reader(f);
	for (i = 0; i < oplog_reader_segments(reader); i++)
		assert_true(oplog_reader_segment(reader, i)->packed);
	oplog_reader_close(reader);
	assert_int_equal(count_records(f, OP_PWRITE), 50000);
	assert_int_equal(oplog_compress(f->storefd, &packed), 0);
	assert_int_equal(packed.files, 0);
}

static void test_compress_leaves_what_is_in_use(void **state)
{
	struct fixture *f = *state;
	struct oplog_record r = {.op = OP_FSYNC, .file = 1, .tid = 3, .offset = -1};
	struct oplog_packed packed;
	struct oplog_claim claim;
	int i;

	assert_int_equal(open_writer(f, 1 << 30), 0);
	claim = oplog_begin(f->w, &r); /* held up while the log goes on */
	for (i = 0; i < 20000; i++)
		put_write(f, i, 1);
	assert_int_equal(oplog_compress(f->storefd, &packed), 0);
	assert_int_equal(packed.files, 1); /* the second; the first waits, the third is written */
	oplog_end(claim, 0);
	assert_int_equal(oplog_compress(f->storefd, &packed), 0);
	assert_int_equal(packed.files, 1);
	assert_int_equal(count_records(f, OP_PWRITE), 20000);
	assert_int_equal(count_records(f, OP_FSYNC), 1);
}

static void test_damaged_compressed(void **state)
{
	struct fixture *f = *state;
	struct oplog_segment_info info;
	struct oplog_packed packed;
	uint64_t records;
	char name[256];
	struct stat st;
	int fd;

	write_as_child(f, 800); /* one segment */
	assert_int_equal(oplog_compress(f->storefd, &packed), 0);
	only_segment(f, name);
	fd = openat(f->oplogfd, name, O_RDWR | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size - 1), 0); /* into zstd's checksum */
	info = outcome(f, &records);
	assert_int_equal(info.error, -EUCLEAN);
	assert_int_equal(records, 800);
	assert_int_equal(ftruncate(fd, 10), 0);
	assert_true(outcome(f, &records).error < 0);
	assert_int_equal(records, 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(outcome(f, &records).error, -ENODATA);
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_round_trip),
	    TEST(test_time_is_that_of_the_wall),
	    TEST(test_texts),
	    TEST(test_in_flight),
	    TEST(test_following),
	    TEST(test_rotation_and_limit),
	    TEST(test_threads_lose_nothing),
	    TEST(test_call_that_outlives_its_segment),
	    TEST(test_fork),
	    TEST(test_lost_are_counted),
	    TEST(test_damaged_slots),
	    TEST(test_damaged_text),
	    TEST(test_cut_off),
	    TEST(test_headers),
	    TEST(test_other_files),
	    TEST(test_symlinked_directory),
	    TEST(test_every_flipped_bit),
	    TEST(test_compress),
	    TEST(test_compress_leaves_what_is_in_use),
	    TEST(test_damaged_compressed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
