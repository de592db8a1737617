/* SPDX-License-Identifier: MIT
 *
 * Undo files that are torn, damaged, of a newer version, or no undo files; and what the writer
 * makes.
 */
#include "undo_fixture.h"

/* ---- damage ---- */

/* Cut anywhere: what was recorded whole is put back, what follows was never touched. */
static void test_torn(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	off_t size;

	begin(f);
	save(f, 1, 0, 8192);
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(fstat(f->w.fd, &st), 0);
	close(f->w.fd);
	unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	for (size = 0; size < st.st_size; size += size < 300 ? 1 : 501) {
		begin(f);
		save(f, 1, 0, 8192);
		assert_int_equal(undo_flush(&f->w), 0);
		if (size < st.st_size)
			assert_int_equal(ftruncate(f->w.fd, size), 0);
		roll_back(f);
		assert_int_equal(f->reports, 1);
		assert_true(f->last.result == ROLLBACK_DONE ||
			    (size < (off_t)UNDO_HEADER_SIZE && f->last.result == ROLLBACK_GONE));
		assert_int_equal(f->last.bytes, 0);
		is_as_before(f);
		close(f->w.fd);
		/* begin() takes the next number where one was put aside */
	}
	f->w.fd = -1;
}

/* Any bit flipped: never a crash, never another byte than one of before. */
static void test_flipped(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	off_t at;

	begin(f);
	save(f, 1, 0, 4096);
	save(f, 2, 0, 4000);
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(fstat(f->w.fd, &st), 0);
	close(f->w.fd);
	unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	for (at = 0; at < st.st_size; at += at < 320 ? 1 : 97) {
		unsigned char c;

		begin(f);
		save(f, 1, 0, 4096);
		save(f, 2, 0, 4000);
		assert_int_equal(undo_flush(&f->w), 0);
		assert_int_equal(pread(f->w.fd, &c, 1, at), 1);
		c ^= (unsigned char)(1 << at % 8);
		assert_int_equal(pwrite(f->w.fd, &c, 1, at), 1);
		if (at >= (off_t)offsetof(struct undo_header, ended) &&
		    at < (off_t)UNDO_HEADER_SIZE) {
			close(f->w.fd);
			unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
			continue; /* not covered, or nothing */
		}
		roll_back(f);
		assert_int_equal(f->reports, 1);
		if (at < (off_t)offsetof(struct undo_header, ended))
			assert_true(f->last.result == ROLLBACK_DAMAGED ||
				    f->last.result == ROLLBACK_NEWER);
		else
			assert_int_equal(f->last.result, ROLLBACK_DONE);
		is_as_before(f);
		close(f->w.fd);
		unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	}
	f->w.fd = -1;
}

static void test_skipped(void **state)
{
	struct fixture *f = *state;
	static struct content c;

	begin(f);
	save(f, 1, 0, 4096);
	save(f, 2, 0, 4000);
	assert_int_equal(undo_flush(&f->w), 0);
	scribble(f, 2, 0, 4000);
	assert_int_equal(pwrite(f->w.fd, "!", 1, UNDO_HEADER_SIZE + 1000), 1);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	assert_int_equal(f->last.skipped, 1);
	get(f, 2, &c);
	assert_memory_equal(c.bytes, f->before[2].bytes, 4000);
}

/* ---- power cuts ---- */

/* A durable file of another boot, or not; what was not synced of it reads as zeros. */
static void lose(struct fixture *f, bool durable, bool other_boot, off_t at, size_t n)
{
	static const unsigned char zeros[4096];
	char name[UNDO_NAME_MAX];

	begin(f);
	undo_name(name, &f->header, UNDO_SUFFIX);
	close(f->w.fd);
	unlinkat(f->undofd, name, 0);
	f->header.boot_id[0] ^= other_boot;
	assert_int_equal(undo_create(&f->w, f->undofd, &f->header, durable), 0);
	save(f, 1, 0, 4096);
	save(f, 2, 0, 4000);
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(pwrite(f->w.fd, zeros, n, at), n);
	roll_back(f);
	assert_int_equal(f->reports, 1);
	is_as_before(f);
	close(f->w.fd);
	f->w.fd = -1;
}

/* With power durability it was never synced, so nothing was overwritten: no damage. */
static void test_header_lost(void **state)
{
	struct fixture *f = *state;

	lose(f, true, true, 0, 4096);
	assert_int_equal(f->last.result, ROLLBACK_GONE);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_false(in_undo(f, UNDO_SUFFIX ".damaged"));
	lose(f, false, true, 0, 4096); /* who knows */
	assert_int_equal(f->last.result, ROLLBACK_DAMAGED);
	lose(f, true, true, 0, 100); /* no power cut does that */
	assert_int_equal(f->last.result, ROLLBACK_DAMAGED);
}

static void test_sectors_lost(void **state)
{
	struct fixture *f = *state;

	lose(f, true, true, 1024, 512);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	assert_int_equal(f->last.skipped, 0);
	assert_int_equal(f->last.bytes, 4000); /* the other record */
	lose(f, false, true, 1024, 512);
	assert_int_equal(f->last.skipped, 1);
	lose(f, true, false, 1024, 512); /* a death of the process does not do that */
	assert_int_equal(f->last.skipped, 1);
	lose(f, true, true, 1024, 511);
	assert_int_equal(f->last.skipped, 1);
}

static void test_newer(void **state)
{
	struct fixture *f = *state;
	uint32_t version = UNDO_VERSION + 1;

	begin(f);
	assert_int_equal(
	    pwrite(f->w.fd, &version, sizeof(version), offsetof(struct undo_header, version)),
	    sizeof(version));
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_NEWER);
	assert_int_equal(f->last.error, -EPROTONOSUPPORT);
	assert_true(in_undo(f, UNDO_SUFFIX));
}

/* A file under another's name, a directory, a name that leads elsewhere. */
static void test_impostors(void **state)
{
	struct fixture *f = *state;

	begin(f);
	assert_int_equal(renameat(f->undofd, SEGMENT "-999999-1.undo", f->undofd, "a.undo"), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DAMAGED);
	assert_int_equal(mkdirat(f->undofd, "b.undo", 0700), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_FAILED);
	assert_int_equal(f->last.error, -EISDIR);
	unlinkat(f->undofd, "b.undo", AT_REMOVEDIR);
	close(f->w.fd);
	memset(&f->header, 0, sizeof(f->header));
	strcpy(f->header.segment, "../elsewhere");
	undo_create(&f->w, f->undofd, &f->header, false);
	roll_back(f);
	assert_true(f->reports == 0 || f->last.result == ROLLBACK_DAMAGED);
	is_as_before(f);
}

/* ---- the writer ---- */

static void test_many_records(void **state)
{
	struct fixture *f = *state;
	struct undo_record record;
	struct undo_reader r;
	static unsigned char data[UNDO_LENGTH_MAX];
	uint64_t offset = 0;
	unsigned n = 0;

	begin(f);
	for (offset = 0; offset < 150001; offset += 512)
		save(f, 1, offset, 512); /* the last is cut by the end of the file */
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(f->w.bytes, 150001);
	assert_int_equal(undo_open(&r, f->w.fd), 0);
	while (undo_next(&r, &record, data) == 0) {
		assert_int_equal(record.offset, n * 512);
		assert_memory_equal(data, f->before[1].bytes + record.offset, record.length);
		n++;
	}
	assert_int_equal(n, (150001 + 511) / 512);
	save(f, 1, 150001, 512); /* behind the end: nothing */
	assert_int_equal(f->w.used, 0);
}

static void test_names(void **state)
{
	struct fixture *f = *state;
	struct undo_header second;
	struct undo_writer w = {.buffer = f->buffer};

	begin(f);
	second = f->header;
	assert_int_equal(undo_create(&w, f->undofd, &second, false), 0);
	assert_int_equal(second.number, 2);
	close(w.fd);
	roll_back(f);
	assert_int_equal(f->reports, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_torn, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_flipped, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_skipped, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_header_lost, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_sectors_lost, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_newer, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_impostors, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_many_records, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_names, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
