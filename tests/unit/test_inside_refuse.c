/* SPDX-License-Identifier: MIT
 *
 * What the library refuses, call by call: a second writer, removals of what is in use, the store,
 * damage by a host that has lost its files. And that it leaves everything else alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/prctl.h>

#include "core/sqlite/page.h"
#include "inside.h"

#define LEVEL0 SEGMENT "/data_level0.bin"

static void make(struct inside *f)
{
	int fd;

	inside_make(f);
	fd = tree_make_directory(f->root.fd, SEGMENT);
	scratch_put(fd, "header.bin", "h", 1);
	scratch_put(fd, "data_level0.bin", "vectors", 7);
	scratch_put(fd, "length.bin", "l", 1);
	scratch_put(fd, "link_lists.bin", "i", 1);
	scratch_put(fd, "index_metadata.pickle", "p.", 2);
	close(fd);
}

static bool is_there(struct inside *f, const char *name)
{
	return faccessat(f->root.fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- a second writer ---- */

static int pipes[2];

/* Becomes the writer by its first write, then waits until it is killed. */
static int write_and_wait(struct inside *f)
{
	int fd = inside_open_database(f);

	if (fd < 0 || do_pwrite(fd, "x", 1, 0) != 1 || write(pipes[1], "w", 1) != 1)
		return 1;
	for (;;)
		pause();
}

static int write_one(struct inside *f)
{
	int fd = do_open(CALLER, inside_path(f, LEVEL0), O_RDWR | O_CLOEXEC, 0);

	if (fd < 0)
		return 50;
	return do_pwrite(fd, "other", 5, 0) < 0 ? errno : 0;
}

static int read_one(struct inside *f)
{
	int fd = do_open(CALLER, inside_path(f, LEVEL0), O_RDONLY | O_CLOEXEC, 0);
	char buf[8] = "";

	return fd >= 0 && do_read(fd, buf, 7) == 7 && !strcmp(buf, "vectors") ? 0 : 1;
}

static int open_to_write(struct inside *f)
{
	return inside_open_database(f) < 0 ? errno : 0;
}

static int open_as_sqlite(struct inside *f)
{
	const char *path = inside_path(f, CHROMA_DATABASE);
	int fd = do_open(CALLER, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		fd = do_open(CALLER, path, O_RDONLY | O_CLOEXEC, 0);
	return fd < 0 ? errno : 0;
}

/* Whoever started it keeps its standard error, and does not read it. */
static int open_to_write_unread(struct inside *f)
{
	const char text[4096] = "";
	int ends[2], refused = 0, n;

	alarm(5);
	if (pipe2(ends, O_NONBLOCK) < 0)
		return 60;
	while (write(ends[1], text, sizeof(text)) > 0)
		;
	do_fcntl(ends[1], F_SETFL, 0);
	do_dup2(ends[1], 2);
	for (n = 0; n < 3; n++)
		refused += open_to_write(f) == EBUSY;
	return refused;
}

/* The writer makes the file a moment later, and the other one can read it then. */
static void test_before_it_is_made(struct inside *f)
{
	pid_t maker;

	assert_int_equal(unlinkat(f->root.fd, CHROMA_DATABASE, 0), 0);
	maker = fork();
	if (maker == 0) {
		usleep(200000);
		scratch_put(f->root.fd, CHROMA_DATABASE, "", 0);
		_exit(0);
	}
	assert_int_equal(inside_run(f, NULL, open_as_sqlite), 0);
	assert_true(inside_said(f, "it is opened for reading only"));
	assert_int_equal(waitpid(maker, NULL, 0), maker);
}

static void test_a_second_writer(void **state)
{
	struct inside f;
	pid_t first;
	char c;

	(void)state;
	make(&f);
	assert_int_equal(pipe(pipes), 0);
	first = fork();
	if (first == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
		do_exit(write_and_wait(&f));
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &c, 1), 1);
	assert_int_equal(inside_run(&f, NULL, read_one), 0);
	assert_int_equal(inside_run(&f, NULL, open_to_write), EBUSY);
	assert_true(inside_said(&f, "only one process may write at a time"));
	assert_int_equal(inside_run(&f, NULL, open_to_write_unread), 3);
	assert_int_not_equal(inside_run(&f, NULL, write_one), 0);
	assert_true(inside_said(&f, "refused"));
	test_before_it_is_made(&f);
	/* The kernel gives the right to write back when its process dies. */
	assert_int_equal(kill(first, SIGKILL), 0);
	assert_int_equal(waitpid(first, NULL, 0), first);
	assert_int_equal(inside_run(&f, NULL, open_to_write), 0);
	close(pipes[0]);
	inside_remove(&f);
}

/* ---- what is in use ---- */

/* As SQLite does before it reads the first time. */
static bool read_database(struct inside *f)
{
	struct flock lock = {.l_type = F_RDLCK,
			     .l_whence = SEEK_SET,
			     .l_start = SQLITE_SHARED_FIRST,
			     .l_len = SQLITE_SHARED_SIZE};
	char head[8];
	int fd = inside_open_database(f);

	return fd >= 0 && do_fcntl(fd, F_SETLK, (unsigned long)&lock) == 0 &&
	       do_pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head);
}

/* 0: all of them were refused. */
static int remove_what_is_open(struct inside *f)
{
	char other[PATH_MAX];

	if (!read_database(f))
		return 90;
	snprintf(other, sizeof(other), "%s", inside_path(f, "elsewhere"));
	if (do_unlink(CALLER, inside_path(f, CHROMA_DATABASE)) == 0)
		return 1;
	if (do_rename(CALLER, inside_path(f, CHROMA_DATABASE), other) == 0)
		return 2;
	if (do_truncate(inside_path(f, CHROMA_DATABASE), 0) == 0)
		return 3;
	if (do_open(CALLER, inside_path(f, CHROMA_DATABASE), O_WRONLY | O_TRUNC, 0) >= 0)
		return 4;
	return 0;
}

static void test_removals(void **state)
{
	struct inside f;
	char advice[PATH_MAX + 64];

	(void)state;
	make(&f);
	scratch_put(f.root.fd, CHROMA_DATABASE, "database", 8);
	assert_int_equal(inside_run(&f, NULL, remove_what_is_open), 0);
	assert_true(is_there(&f, CHROMA_DATABASE));
	assert_false(is_there(&f, "elsewhere"));
	assert_true(inside_said(&f, "refused"));
	assert_true(inside_said(&f, "keep no collection of it"));
	snprintf(advice, sizeof(advice), "chromashim restore --to latest %s\n", f.root.path);
	assert_true(inside_said(&f, advice));
	inside_remove(&f);
}

/* Whoever has nothing open may remove it all. */
static int remove_what_is_not_open(struct inside *f)
{
	return do_unlink(CALLER, inside_path(f, CHROMA_DATABASE)) < 0 ? errno : 0;
}

static void test_removals_when_nothing_is_open(void **state)
{
	struct inside f;

	(void)state;
	make(&f);
	assert_int_equal(inside_run(&f, NULL, open_to_write), 0);
	assert_int_equal(inside_run(&f, NULL, remove_what_is_not_open), 0);
	assert_false(is_there(&f, CHROMA_DATABASE));
	inside_remove(&f);
}

/* ---- the store ---- */

static int touch_the_store(struct inside *f)
{
	DIR *dir;
	struct dirent *entry;
	int shown = 0;

	if (inside_open_database(f) < 0)
		return 90;
	if (do_unlink(CALLER, inside_path(f, ".chromashim/writer.lock")) == 0)
		return 1;
	if (do_rename(CALLER, inside_path(f, ".chromashim"), inside_path(f, "mine")) == 0)
		return 2;
	if (do_rmdir(inside_path(f, ".chromashim/oplog")) == 0)
		return 3;
	if (do_open(CALLER, inside_path(f, ".chromashim/new"), O_WRONLY | O_CREAT, 0600) >= 0)
		return 4;
	dir = opendir(f->root.path);
	while (dir && (entry = do_readdir(dir)))
		shown += !strcmp(entry->d_name, ".chromashim");
	closedir(dir);
	return shown ? 5 : 0;
}

static void test_the_store(void **state)
{
	struct inside f;

	(void)state;
	make(&f);
	assert_int_equal(inside_run(&f, NULL, touch_the_store), 0);
	assert_true(is_there(&f, ".chromashim/oplog"));
	assert_true(inside_said(&f, "it belongs to chromashim"));
	inside_remove(&f);
}

/* ---- what is none of ours ---- */

static int work_elsewhere(struct inside *f)
{
	int fd = do_open(CALLER, inside_path(f, "notes.txt"), O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0 || do_write(fd, "abc", 3) != 3 || do_ftruncate(fd, 1) < 0 || do_fsync(fd) < 0 ||
	    do_close(fd) < 0)
		return 1;
	if (do_rename(CALLER, inside_path(f, "notes.txt"), inside_path(f, "more.txt")) < 0)
		return 2;
	errno = 0;
	if (do_open(CALLER, inside_path(f, "not there"), O_RDONLY, 0) >= 0 || errno != ENOENT)
		return 3;
	return 0;
}

static void test_other_files_are_left_alone(void **state)
{
	struct inside f;

	(void)state;
	inside_make(&f);
	unlinkat(f.root.fd, CHROMA_DATABASE, 0);
	assert_int_equal(inside_run(&f, NULL, work_elsewhere), 0);
	assert_true(is_there(&f, "more.txt"));
	assert_false(is_there(&f, ".chromashim"));
	assert_false(inside_said(&f, "chromashim"));
	inside_remove(&f);
}

/* ---- the store cannot be used ---- */

static int open_closed(struct inside *f)
{
	settings.closed = true;
	return open_to_write(f);
}

static void test_no_store(void **state)
{
	struct inside f;

	(void)state;
	make(&f);
	scratch_put(f.root.fd, ".chromashim", "a file", 6);
	assert_int_equal(inside_run(&f, NULL, open_to_write), 0);
	assert_true(inside_said(&f, "UNPROTECTED"));
	assert_int_not_equal(inside_run(&f, NULL, open_closed), 0);
	assert_true(inside_said(&f, "CHROMASHIM_ON_FAILURE=closed"));
	inside_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_a_second_writer),
	    cmocka_unit_test(test_removals),
	    cmocka_unit_test(test_removals_when_nothing_is_open),
	    cmocka_unit_test(test_the_store),
	    cmocka_unit_test(test_other_files_are_left_alone),
	    cmocka_unit_test(test_no_store),
	};

	inside_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
