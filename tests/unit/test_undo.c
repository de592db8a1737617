/* SPDX-License-Identifier: MIT
 *
 * Undo logs and roll-backs: a segment is put back byte for byte, whatever is torn, however often
 * the one who does it dies.
 */
#include "undo_fixture.h"

#include "core/base/alive.h"

static void test_whole(void **state)
{
	struct fixture *f = *state;

	persist(f);
	roll_back(f);
	assert_int_equal(f->reports, 1);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	assert_int_equal(f->last.bytes, 100 + 8192 + 2545 + 4000 + 808);
	assert_int_equal(f->last.skipped, 0);
	is_as_before(f);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_false(in_undo(f, ".4.moved"));
	roll_back(f);
	assert_int_equal(f->reports, 0);
}

static void test_dry(void **state)
{
	struct fixture *f = *state;
	struct rollback rb = rollback_of(f);
	static struct content c;

	persist(f);
	rb.dry = true;
	assert_int_equal(rollback_directory(&rb), 0);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	assert_true(in_undo(f, UNDO_SUFFIX));
	get(f, UNDO_PICKLE, &c);
	assert_int_equal(c.size, 11);
}

/* Death at each step of the roll-back; whoever comes next finishes it. */
static void test_second_death(void **state)
{
	struct fixture *f = *state;
	unsigned at;
	int status = 1;

	for (at = 1; status; at++) {
		pid_t child;

		persist(f);
		child = fork();
		if (!child) {
			f->die_at = at;
			roll_back(f);
			_exit(0);
		}
		waitpid(child, &status, 0);
		roll_back(f);
		is_as_before(f);
		assert_false(in_undo(f, UNDO_SUFFIX));
		assert_false(in_undo(f, ".4.moved"));
		close(f->w.fd);
	}
	f->w.fd = -1;
	assert_true(at > 8);
}

static void test_creation(void **state)
{
	struct fixture *f = *state;
	static struct content c;
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++)
		f->before[i].size = -1;
	unlinkat(f->segmentfd, undo_file_names[UNDO_PICKLE], 0);
	begin(f);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_CREATION);
	for (i = 0; i < UNDO_FILES; i++) {
		get(f, i, &c);
		assert_int_equal(c.size, -1);
	}
}

static void test_directory_gone(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	persist(f);
	for (i = 0; i < UNDO_FILES; i++)
		unlinkat(f->segmentfd, undo_file_names[i], 0);
	assert_int_equal(unlinkat(f->rootfd, SEGMENT, AT_REMOVEDIR), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_GONE);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_false(in_undo(f, ".4.moved"));
}

/* Somebody else took it away, and may bring it back: the rest is left as it is. */
static void test_file_gone(void **state)
{
	struct fixture *f = *state;

	persist(f);
	unlinkat(f->segmentfd, undo_file_names[3], 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_FOREIGN);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_true(in_undo(f, UNDO_SUFFIX ".foreign"));
}

/* ---- whose process lives ---- */

static void test_live(void **state)
{
	struct fixture *f = *state;
	uint64_t life;
	int fd = alive_open(f->rootfd); /* undo/ is below it, as in a store */

	assert_int_equal(alive_begin(fd, &life), 0);
	begin(f);
	unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	close(f->w.fd);
	f->header.life = life;
	assert_int_equal(undo_create(&f->w, f->undofd, &f->header, false), 0);
	save(f, 0, 0, 100);
	scribble(f, 0, 0, 100);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_LIVE);
	assert_true(in_undo(f, UNDO_SUFFIX));
	close(fd);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
}

/* Without a lock to ask, the pid, its start and the boot decide. */
static void test_live_by_pid(void **state)
{
	struct fixture *f = *state;
	pid_t child = fork();
	char path[64];

	if (!child) {
		pause();
		_exit(0);
	}
	snprintf(path, sizeof(path), "/proc/%d/stat", child);
	begin(f);
	unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	close(f->w.fd);
	f->header.pid = (uint32_t)child;
	f->header.start_ticks = oplog_start_ticks(path);
	assert_int_equal(undo_create(&f->w, f->undofd, &f->header, false), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_LIVE);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
}

/* ---- tentative ---- */

static void put_database(struct fixture *f, uint32_t counter, bool hot)
{
	unsigned char page[100] = {0};
	static const unsigned char magic[] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
	int fd = openat(f->rootfd, "chroma.sqlite3", O_WRONLY | O_CREAT, 0644);

	page[26] = (unsigned char)(counter >> 8);
	page[27] = (unsigned char)counter;
	assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	close(fd);
	unlinkat(f->rootfd, "chroma.sqlite3-journal", 0);
	if (!hot)
		return;
	fd = openat(f->rootfd, "chroma.sqlite3-journal", O_WRONLY | O_CREAT, 0644);
	assert_int_equal(write(fd, magic, sizeof(magic)), sizeof(magic));
	close(fd);
}

static void tentative(struct fixture *f, uint32_t counter)
{
	const uint64_t yes = 1;

	persist(f);
	assert_int_equal(undo_put(&f->w, UNDO_TENTATIVE, 0, counter), 0);
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(
	    pwrite(f->w.fd, &yes, sizeof(yes), (off_t)offsetof(struct undo_header, complete)),
	    sizeof(yes));
}

static void test_tentative(void **state)
{
	struct fixture *f = *state;
	static struct content c;

	tentative(f, 600);
	put_database(f, 600, false); /* never committed */
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
	close(f->w.fd);

	tentative(f, 600);
	put_database(f, 601, true); /* about to be rolled back by SQLite */
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
	close(f->w.fd);

	tentative(f, 600);
	put_database(f, 601, false);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_COMMITTED);
	get(f, UNDO_PICKLE, &c);
	assert_int_equal(c.size, 11);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_false(in_undo(f, ".4.moved"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_dry, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_second_death, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_creation, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_directory_gone, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_file_gone, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_live, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_live_by_pid, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_tentative, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
