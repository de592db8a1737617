/* SPDX-License-Identifier: MIT
 *
 * The op log: every kind of damage, files that are no segments, and compressed ones.
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

#include "oplog_fixture.h"

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
	put_bytes(f, name, OPLOG_HEADER_SIZE + 10 * OPLOG_SLOT_SIZE + 40, "\x55\xaa\x55\xaa", 4);
	put_bytes(f, name, OPLOG_HEADER_SIZE + 20 * OPLOG_SLOT_SIZE + 8, "\x55\xaa\x55\xaa", 4);
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
	claim = oplog_begin(f->w, &r, NULL, 0); /* held up while the log goes on */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
