/* SPDX-License-Identifier: MIT
 *
 * What was saved is put back only over what it was saved from: by content, whatever the inodes and
 * times.
 */
#include "undo_fixture.h"

static void remains(struct fixture *f)
{
	static struct content now_there[UNDO_FILES], c;
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++)
		get(f, i, &now_there[i]);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_FOREIGN);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_true(in_undo(f, UNDO_SUFFIX ".foreign"));
	for (i = 0; i < UNDO_FILES; i++) {
		get(f, i, &c);
		assert_int_equal(c.size, now_there[i].size);
		if (c.size > 0)
			assert_memory_equal(c.bytes, now_there[i].bytes, (size_t)c.size);
	}
	roll_back(f); /* and that is that */
	assert_int_equal(f->reports, 0);
}

static void write_at(struct fixture *f, unsigned file, off_t at, const char *bytes, size_t n)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, n, at), n);
	close(fd);
}

/* Every file gets a new inode and another time, which say nothing. */
static void test_copied(void **state)
{
	struct fixture *f = *state;
	static struct content c;
	struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2000000000}};
	unsigned i;

	persist(f);
	for (i = 0; i < UNDO_FILES; i++) {
		get(f, i, &c);
		unlinkat(f->segmentfd, undo_file_names[i], 0);
		put(f, i, c.bytes, (size_t)c.size);
		utimensat(f->segmentfd, undo_file_names[i], times, 0);
	}
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
}

/* One grain of the many is neither what it was nor what it was to become. */
static void test_one_grain(void **state)
{
	struct fixture *f = *state;

	persist(f);
	write_at(f, 1, 7000, "?", 1);
	remains(f);
}

static void test_grain_at_the_end(void **state)
{
	struct fixture *f = *state;

	persist(f);
	write_at(f, 3, 8999, "?", 1);
	remains(f);
}

/* Some back as they were, others as they were to become: a death in the midst, whatever its order.
 */
static void test_mixture(void **state)
{
	struct fixture *f = *state;

	persist(f);
	write_at(f, 1, 5120, (const char *)f->before[1].bytes + 5120, 640);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
}

/* All that was announced on the way counts, not the last alone. */
static void test_on_the_way(void **state)
{
	struct fixture *f = *state;
	unsigned char later[100];

	persist(f);
	memset(later, 'y', sizeof(later));
	announce(f, 0, 0, later, sizeof(later)); /* and the death came before it was written */
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
}

static void test_lengths(void **state)
{
	struct fixture *f = *state;

	persist(f);
	assert_int_equal(ftruncate(openat(f->segmentfd, undo_file_names[2], O_WRONLY), 3999), 0);
	remains(f);
	put(f, 2, f->before[2].bytes, 4000);
	close(f->w.fd);
}

static void test_longer_than_any_write(void **state)
{
	struct fixture *f = *state;

	persist(f);
	write_at(f, 2, 4400, "?", 1);
	remains(f);
}

static void test_cut(void **state)
{
	struct fixture *f = *state;

	persist(f);
	save(f, 3, 0, 8192);
	assert_int_equal(undo_put(&f->w, UNDO_LENGTH, 3, 10), 0);
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(ftruncate(openat(f->segmentfd, undo_file_names[3], O_WRONLY), 10), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
}

/* Another persist without the shim: whatever else is alike, it has a pickle of its own. */
static void test_pickle_of_others(void **state)
{
	struct fixture *f = *state;

	begin(f);
	save(f, 1, 4096, 8192);
	scribble(f, 1, 5000, 6000);
	put(f, UNDO_PICKLE, "another pickle.", 15);
	remains(f);
}

static void test_pickle_rewritten(void **state)
{
	struct fixture *f = *state;

	persist(f);
	put(f, UNDO_PICKLE, "another pickle.", 15);
	remains(f);
	assert_true(in_undo(f, ".4.moved.foreign"));
}

static void test_pickle_emptied(void **state)
{
	struct fixture *f = *state;

	persist(f);
	put(f, UNDO_PICKLE, "", 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
}

/* A first persist by somebody else: its files must not be removed. */
static void test_created_by_others(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++)
		f->before[i].size = -1;
	begin(f);
	remains(f);
}

/* The kernel brought it, so it cannot be known; the rest still tells. */
static void test_unknown(void **state)
{
	struct fixture *f = *state;
	uint64_t length = 1000;

	begin(f);
	save(f, 1, 0, 8192);
	assert_int_equal(undo_put_data(&f->w, UNDO_UNKNOWN, 1, 64, &length, sizeof(length)), 0);
	assert_int_equal(undo_flush(&f->w), 0);
	write_at(f, 1, 500, "whatever", 8);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
}

/* Where nothing was changed yet, there is nothing to say either. */
static void test_nothing_was_done(void **state)
{
	struct fixture *f = *state;

	begin(f);
	put(f, UNDO_PICKLE, "another pickle.", 15);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_GONE);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_false(in_undo(f, UNDO_SUFFIX ".foreign"));
}

/* After another boot what was written to the emptied pickle may be lost, or torn. */
static void test_power_cut(void **state)
{
	struct fixture *f = *state;
	char name[UNDO_NAME_MAX];

	persist(f);
	close(f->w.fd);
	undo_name(name, &f->header, UNDO_SUFFIX);
	unlinkat(f->undofd, name, 0);
	f->header.boot_id[0] ^= 1;
	assert_int_equal(undo_create(&f->w, f->undofd, &f->header, true), 0);
	assert_int_equal(undo_put(&f->w, UNDO_MOVED, UNDO_PICKLE, 0), 0);
	assert_int_equal(undo_flush(&f->w), 0);
	put(f, UNDO_PICKLE, "half\0\0\0\0", 8);
	for (unsigned i = 0; i < UNDO_PICKLE; i++)
		put(f, i, f->before[i].bytes, (size_t)f->before[i].size);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
}

/* A persist whose pickle has two pieces, of which n bytes at `at` are others when its process is
 * dead; looked at in the image of its disk, or where it was. */
static void lose_of_pickle(struct fixture *f, bool image, size_t at, size_t n, char with)
{
	char pickle[6000];

	memset(pickle, 'p', sizeof(pickle));
	persist(f);
	assert_int_equal(undo_put(&f->w, UNDO_LENGTH, UNDO_PICKLE, 0), 0);
	announce_piece(f, pickle, 0, 4096);
	announce_piece(f, pickle + 4096, 4096, sizeof(pickle) - 4096);
	set_reach(f, UNDO_PICKLE, sizeof(pickle));
	memset(pickle + at, with, n);
	put(f, UNDO_PICKLE, pickle, sizeof(pickle));
	if (image)
		copy_undo(f, UNDO_SUFFIX);
	close(f->w.fd);
	f->w.fd = -1;
}

static void cut_pickle(struct fixture *f, off_t size)
{
	int fd = openat(f->segmentfd, undo_file_names[UNDO_PICKLE], O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

/* The snapshot of a volume, in use again on the machine that goes on: the same boot, and the pages
 * that had not reached the disk read as zeros. */
static void test_image_of_a_disk(void **state)
{
	static const size_t lost[][2] = {{0, 4096}, {4096, 1904}, {0, 6000}, {512, 512}};
	struct fixture *f = *state;
	unsigned i;

	for (i = 0; i < 4; i++) {
		lose_of_pickle(f, true, lost[i][0], lost[i][1], '\0');
		roll_back(f);
		assert_int_equal(f->last.result, ROLLBACK_DONE);
		is_as_before(f);
	}
	lose_of_pickle(f, true, 0, 511, '\0'); /* no disk does that */
	remains(f);
}

/* Its length is that of the blocks that were on their way to the disk, not of a piece. */
static void test_image_that_ends_in_a_piece(void **state)
{
	struct fixture *f = *state;

	lose_of_pickle(f, true, 0, 4096, '\0');
	cut_pickle(f, 5120);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
	lose_of_pickle(f, true, 0, 4096, '\0');
	cut_pickle(f, 5000);
	remains(f);
}

static void test_copy_with_a_page_of_others(void **state)
{
	struct fixture *f = *state;

	lose_of_pickle(f, true, 0, 4096, '?');
	remains(f);
}

static void test_death_loses_no_page(void **state)
{
	struct fixture *f = *state;

	lose_of_pickle(f, false, 0, 0, '\0');
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
	lose_of_pickle(f, false, 0, 4096, '\0');
	remains(f);
}

/* ---- an undo file of version 2 has no announcements ---- */

struct header_2 {
	unsigned char same[240];
	uint64_t check, touched;
};

static void put_version_2(struct fixture *f, uint64_t touched)
{
	struct header_2 h;
	struct undo_header *common = (struct undo_header *)(void *)h.same;
	struct undo_record r = {
	    .kind = UNDO_BLOCK_IMAGE, .file = 1, .offset = 4096, .length = 4096};
	char name[UNDO_NAME_MAX];
	uint64_t seed;
	int fd;

	begin(f);
	undo_name(name, &f->header, UNDO_SUFFIX);
	unlinkat(f->undofd, name, 0);
	memcpy(h.same, &f->header, sizeof(h.same));
	memcpy(&common->version, &(uint32_t){2}, 4);
	memcpy(&common->header_size, &(uint32_t){UNDO_HEADER_SIZE_2}, 4);
	h.check = checksum64(h.same, sizeof(h.same), 0);
	h.touched = touched;
	seed = h.check + UNDO_HEADER_SIZE_2;
	r.data_check = checksum32_nonzero(f->before[1].bytes + 4096, 4096, seed);
	r.check = checksum32_nonzero(&r.kind, sizeof(r) - sizeof(r.check), seed);
	fd = openat(f->undofd, name, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, &h, sizeof(h)), sizeof(h));
	assert_int_equal(write(fd, &r, sizeof(r)), sizeof(r));
	assert_int_equal(write(fd, f->before[1].bytes + 4096, 4096), 4096);
	close(fd);
	close(f->w.fd);
	f->w.fd = -1;
	scribble(f, 1, 5000, 3000);
}

static void test_version_2(void **state)
{
	struct fixture *f = *state;

	put_version_2(f, now());
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
	put_version_2(f, now() - UINT64_C(90000000000));
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_FOREIGN);
	put_version_2(f, 0); /* over */
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_COMMITTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_copied, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_one_grain, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_grain_at_the_end, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_mixture, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_on_the_way, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_lengths, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_longer_than_any_write, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_pickle_of_others, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_pickle_rewritten, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_pickle_emptied, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_created_by_others, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_unknown, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_nothing_was_done, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_power_cut, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_image_of_a_disk, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_image_that_ends_in_a_piece, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_copy_with_a_page_of_others, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_death_loses_no_page, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_version_2, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
