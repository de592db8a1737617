/* SPDX-License-Identifier: MIT
 *
 * What a persist left, by its undo file that is kept: as it left it, as before, mixed, or somebody
 * else's.
 */
#include "core/undo/rollback_last.h"
#include "undo_fixture.h"

static struct content after[UNDO_FILES];

/* A pickle of some length, and the database's counter at its end. */
static void finish(struct fixture *f, uint64_t counter, const char *end)
{
	static char text[2000];
	char name[UNDO_NAME_MAX];
	unsigned i;

	memset(text, 'p', sizeof(text) - 1);
	memcpy(text, end, strlen(end));
	assert_int_equal(undo_put(&f->w, UNDO_LENGTH, UNDO_PICKLE, 0), 0);
	announce_piece(f, text, 0, 1024);
	announce_piece(f, text + 1024, 1024, sizeof(text) - 1025);
	put(f, UNDO_PICKLE, text, strlen(text));
	assert_int_equal(
	    pwrite(f->w.fd, &counter, sizeof(counter), offsetof(struct undo_header, counter)),
	    sizeof(counter));
	undo_name(name, &f->header, UNDO_SUFFIX);
	assert_int_equal(renameat(f->undofd, name, f->undofd, SEGMENT UNDO_LAST_SUFFIX), 0);
	for (i = 0; i < UNDO_FILES; i++)
		get(f, i, &after[i]);
}

static void database(struct fixture *f, unsigned char counter)
{
	unsigned char header[100] = {[27] = counter};
	int fd = openat(f->rootfd, "chroma.sqlite3", O_WRONLY | O_CREAT, 0600);

	assert_int_equal(write(fd, header, sizeof(header)), sizeof(header));
	close(fd);
}

static void persisted(struct fixture *f)
{
	persist(f);
	finish(f, 8, "new");
	database(f, 9);
}

static void put_before(struct fixture *f, unsigned file)
{
	put(f, file, f->before[file].bytes, (size_t)f->before[file].size);
}

static void write_at(struct fixture *f, unsigned file, off_t at, const void *bytes, size_t n)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, n, at), n);
	close(fd);
}

static enum last_result result(struct fixture *f)
{
	struct rollback_last last;

	assert_int_equal(rollback_last(f->rootfd, f->undofd, SEGMENT, &last), 0);
	return last.result;
}

static void test_as_left(void **state)
{
	struct fixture *f = *state;

	persisted(f);
	assert_int_equal(result(f), LAST_AS_LEFT);
	write_at(f, 1, 100, "elsewhere", 9); /* what it did not touch, it does not know */
	assert_int_equal(result(f), LAST_AS_LEFT);
	roll_back(f);
	assert_int_equal(f->reports, 0);
}

static void test_none(void **state)
{
	struct fixture *f = *state;
	struct rollback_last last;

	assert_int_equal(rollback_last(f->rootfd, f->undofd, SEGMENT, &last), -ENOENT);
	persist(f); /* under way */
	finish(f, 1, "new");
	begin(f);
	assert_int_equal(rollback_last(f->rootfd, f->undofd, SEGMENT, &last), -EBUSY);
}

static void test_before(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	persisted(f);
	for (i = 0; i < UNDO_FILES; i++)
		put_before(f, i);
	assert_int_equal(result(f), LAST_BEFORE);
	database(f, 7); /* which went back with it */
	assert_int_equal(result(f), LAST_OTHERS);
}

static void test_one_file_of_before(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	persisted(f);
	for (i = 0; i < UNDO_FILES; i++) {
		put_before(f, i);
		assert_int_equal(result(f), LAST_MIXED);
		put(f, i, after[i].bytes, (size_t)after[i].size);
		assert_int_equal(result(f), LAST_AS_LEFT);
	}
}

static void test_one_grain_of_before(void **state)
{
	struct fixture *f = *state;

	persisted(f);
	write_at(f, 1, 6400, f->before[1].bytes + 6400, 64);
	assert_int_equal(result(f), LAST_MIXED);
}

static void test_shorter(void **state)
{
	struct fixture *f = *state;

	persisted(f);
	assert_int_equal(ftruncate(openat(f->segmentfd, undo_file_names[1], O_WRONLY), 160000), 0);
	assert_int_equal(result(f), LAST_MIXED);
}

/* Somebody else's persist: whatever it wrote is right. */
static void test_others(void **state)
{
	struct fixture *f = *state;

	persisted(f);
	write_at(f, 1, 6400, f->before[1].bytes + 6400, 64);
	write_at(f, 2, 128, "others", 6);
	write_at(f, UNDO_PICKLE, 0, "another", 7);
	assert_int_equal(result(f), LAST_OTHERS);
}

static void test_without_pickle(void **state)
{
	struct fixture *f = *state;

	persisted(f);
	write_at(f, 2, 128, "others", 6);
	assert_int_equal(result(f), LAST_WITHOUT_PICKLE);
}

/* Written twice: the second state is the last. And a grain that came out as it was says nothing. */
static void test_states_on_the_way(void **state)
{
	struct fixture *f = *state;

	begin(f);
	save(f, 1, 6400, 128);
	scribble(f, 1, 6400, 10);
	scribble(f, 1, 6420, 10);
	announce(f, 1, 6464, f->before[1].bytes + 6464, 64);
	finish(f, 8, "new");
	assert_int_equal(result(f), LAST_AS_LEFT);
	write_at(f, 1, 6420, f->before[1].bytes + 6420, 10); /* as between the two */
	assert_int_equal(result(f), LAST_WITHOUT_PICKLE);
}

/* It was on the disk before it counted: what lacks a sector is damage, in a copy as well. */
static void test_torn_pickle(void **state)
{
	static const char zeros[512];
	struct fixture *f = *state;

	persisted(f);
	copy_undo(f, UNDO_LAST_SUFFIX);
	assert_int_equal(result(f), LAST_AS_LEFT);
	write_at(f, UNDO_PICKLE, 1024, zeros, sizeof(zeros));
	assert_int_equal(result(f), LAST_OTHERS);
}

static bool is_kept(const struct fixture *f)
{
	return faccessat(f->undofd, SEGMENT UNDO_LAST_SUFFIX, F_OK, 0) == 0;
}

static void test_forgotten(void **state)
{
	struct fixture *f = *state;

	persisted(f);
	rollback_forget_last(f->rootfd, f->undofd);
	assert_true(is_kept(f));
	database(f, 7);
	rollback_forget_last(f->rootfd, f->undofd);
	assert_false(is_kept(f));
}

static void test_segment_is_gone(void **state)
{
	struct fixture *f = *state;

	persisted(f);
	assert_int_equal(renameat(f->rootfd, SEGMENT, f->rootfd, "gone"), 0);
	rollback_forget_last(f->rootfd, f->undofd);
	assert_false(is_kept(f));
}

static void test_cut_off(void **state)
{
	struct fixture *f = *state;
	struct rollback_last last;
	int fd;

	persisted(f);
	fd = openat(f->undofd, SEGMENT UNDO_LAST_SUFFIX, O_WRONLY);
	assert_int_equal(ftruncate(fd, 600), 0);
	assert_int_equal(rollback_last(f->rootfd, f->undofd, SEGMENT, &last), 0);
	assert_int_equal(last.result, LAST_OTHERS);
	assert_int_equal(ftruncate(fd, 100), 0);
	assert_true(rollback_last(f->rootfd, f->undofd, SEGMENT, &last) < 0);
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_as_left),
	    TEST(test_none),
	    TEST(test_before),
	    TEST(test_one_file_of_before),
	    TEST(test_one_grain_of_before),
	    TEST(test_shorter),
	    TEST(test_others),
	    TEST(test_without_pickle),
	    TEST(test_states_on_the_way),
	    TEST(test_forgotten),
	    TEST(test_segment_is_gone),
	    TEST(test_cut_off),
	    TEST(test_torn_pickle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
