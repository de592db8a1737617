/* SPDX-License-Identifier: MIT
 *
 * The exchange in place, killed at every step.
 */
#include "restore_fixture.h"

#include <inttypes.h>
#include <sys/wait.h>

#include "core/base/checksum.h"

static int steps_left;

static void die_at_step(void *context)
{
	(void)context;
	if (steps_left-- == 0)
		_exit(42);
}

static void prepare_swap(struct fixture *f, const struct manifest *m)
{
	int fd = restore_prepare(f->storefd);

	assert_true(fd >= 0);
	assert_int_equal(build(f, m, fd), 0);
	close(fd);
}

/* 42 if it died. */
static int swap_and_die(struct fixture *f, int at, bool resume)
{
	struct restore_swap swap = {
	    .datafd = f->datafd, .storefd = f->storefd, .quarantine = "then", .step = die_at_step};
	pid_t child = fork();
	int status, r;

	if (child == 0) {
		steps_left = at;
		r = resume ? restore_resume(&swap) : restore_swap(&swap);
		_exit(r < 0 ? 1 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* Rows of what is there: 2 restored, 5 as before, 0 for what no backend can open. */
static int look(struct fixture *f)
{
	int64_t found = rows(f->data);
	bool has_other = faccessat(f->datafd, OTHER, F_OK, 0) == 0;

	if (found == 2 && restore_is_pending(f->storefd))
		found = 2; /* all is there but the journal's end */
	else if (found == 2)
		assert_false(has_other);
	if (found == 5)
		assert_true(has_other);
	return found < 0 ? 0 : (int)found;
}

static bool is_kept(struct fixture *f)
{
	return faccessat(f->storefd, QUARANTINE_DIR "/then/chroma.sqlite3", F_OK, 0) == 0;
}

static void assert_kept(struct fixture *f)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/store/" QUARANTINE_DIR "/then", f->dir.path);
	assert_int_equal(rows(path), 5);
	strcat(path, "/" OTHER "/data_level0.bin");
	assert_int_equal(access(path, F_OK), 0);
}

static void change(struct fixture *f)
{
	run(f->data, "INSERT INTO t VALUES(3),(4),(5)");
	make_segment(f->datafd, OTHER, 9);
	make_segment(f->datafd, SEGMENT, 4);
}

/* As before a swap of that snapshot, which then dies at a step: whether it did. */
static bool die_in_swap(struct fixture *f, struct manifest *m, int at)
{
	tree_remove(f->storefd, QUARANTINE_DIR);
	tree_remove(f->storefd, RESTORE_DIR);
	tree_remove(f->dir.fd, "data");
	f->datafd = (close(f->datafd), tree_make_directory(f->dir.fd, "data"));
	assert_int_equal(build(f, m, f->datafd), 0);
	change(f);
	prepare_swap(f, m);
	return swap_and_die(f, at, false) == 42;
}

static void test_swap_killed_at_every_step(void **state)
{
	struct fixture *f = *state;
	struct manifest m;
	int at, again, resumed, ended = 0, before, untouched = 0;

	take(f, &m);
	for (at = 0; !ended; at++) {
		for (again = -1; again < 6; again++) {
			ended = !die_in_swap(f, &m, at);
			before = look(f);
			/* Dies again while it is ended, then is ended. */
			if (again >= 0)
				swap_and_die(f, again, true);
			look(f);
			resumed = swap_and_die(f, 1000, true);
			assert_int_equal(resumed, 0);
			assert_false(restore_is_pending(f->storefd));
			/* Who changed nothing yet leaves no trace: a backend may have been there.
			 */
			if (before == 5) {
				assert_int_equal(look(f), 5);
				assert_false(is_kept(f));
				untouched++;
				continue;
			}
			assert_int_equal(look(f), 2);
			assert_kept(f);
		}
	}
	assert_in_range(at, 8, 30);
	assert_in_range(untouched, 7, 50);
	manifest_free(&m);
}

/* One that has started since then keeps what it needs: its place, and what undoes its persists. */
static void test_a_resumed_swap_leaves_a_backend_alone(void **state)
{
	struct fixture *f = *state;
	struct restore_swap swap = {.datafd = -1, .storefd = f->storefd};
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	int undofd = tree_make_directory(f->storefd, "undo"), fd, at, last = 0;
	struct manifest m;

	take(f, &m);
	for (at = 1; die_in_swap(f, &m, at); at++) {
		last = at;
		swap.datafd = f->datafd;
		fd = openat(f->storefd, "writer.lock", O_RDWR | O_CREAT, 0600);
		assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
		assert_int_equal(restore_resume(&swap), -EBUSY);
		close(fd);
		assert_true(restore_is_pending(f->storefd));
	}
	assert_true(die_in_swap(f, &m, last)); /* all of it but the journal's end */
	swap.datafd = f->datafd;
	assert_int_equal(look(f), 2);
	scratch_put(undofd, SEGMENT "-1-1.undo", "x", 1);
	assert_int_equal(restore_resume(&swap), RESTORE_ENDED);
	assert_int_equal(faccessat(undofd, SEGMENT "-1-1.undo", F_OK, 0), 0);
	close(undofd);
	manifest_free(&m);
}

static void test_swap_by_bytes(void **state)
{
	struct fixture *f = *state;
	int undofd = tree_make_directory(f->storefd, "undo");
	struct manifest m;
	char *bin;
	size_t size;

	take(f, &m);
	change(f);
	/* What belongs to the old segments must not be played back into the new ones. */
	scratch_put(undofd, SEGMENT "-1-1.undo", "x", 1);
	scratch_put(undofd, "rollback.lock", "", 0);
	prepare_swap(f, &m);
	assert_int_equal(swap_and_die(f, 1000, false), 0);
	bin = scratch_get(f->datafd, SEGMENT "/data_level0.bin", &size);
	assert_int_equal(bin[5], 3);
	assert_int_equal(faccessat(undofd, SEGMENT "-1-1.undo", F_OK, 0), -1);
	assert_int_equal(faccessat(undofd, "rollback.lock", F_OK, 0), 0);
	close(undofd);
	free(bin);
	assert_int_equal(faccessat(f->storefd, RESTORE_DIR, F_OK, 0), -1);
	/* Nothing pending: nothing to do. */
	assert_int_equal(swap_and_die(f, 0, true), 0);
	manifest_free(&m);
}

static void test_swap_without_a_database(void **state)
{
	struct fixture *f = *state;
	int fd = restore_prepare(f->storefd);
	struct restore_swap swap = {
	    .datafd = f->datafd, .storefd = f->storefd, .quarantine = "then"};

	close(fd);
	assert_int_equal(restore_swap(&swap), -ENOENT);
	assert_int_equal(rows(f->data), 2);
}

static int refuse(void *context)
{
	++*(int *)context;
	return -ESTALE;
}

/* What is asked while the locks are held is heard, and who has one of them keeps all as it is. */
static void test_swap_is_not_begun(void **state)
{
	struct fixture *f = *state;
	struct manifest m;
	int asked = 0, fd, i;
	struct restore_swap swap = {.datafd = f->datafd,
				    .storefd = f->storefd,
				    .quarantine = "then",
				    .check = refuse,
				    .check_context = &asked};
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};

	take(f, &m);
	prepare_swap(f, &m);
	assert_int_equal(restore_swap(&swap), -ESTALE);
	assert_int_equal(asked, 1);
	for (i = 0; i < 2; i++) {
		fd = i ? openat(f->storefd, "writer.lock", O_RDWR | O_CREAT, 0600)
		       : openat(f->datafd, "chroma.sqlite3", O_RDWR);
		lock.l_start = i ? 0 : 0x40000002;
		lock.l_len = 1;
		assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
		assert_int_equal(restore_swap(&swap), -EBUSY);
		close(fd);
	}
	assert_int_equal(asked, 1);
	assert_false(restore_is_pending(f->storefd));
	manifest_free(&m);
}

/* Whole, by its checksum, and yet not to be believed. */
static void put_journal(int fd, const char *lines)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "chromashim restore 1\n%s", lines);

	snprintf(text + n, sizeof(text) - (size_t)n, "%016" PRIx64 "\n",
		 checksum64(text, (size_t)n, 0));
	scratch_put(fd, "journal", text, strlen(text));
}

static void test_forged_journal(void **state)
{
	static const char *const forged[] = {
	    "../x\nold chroma.sqlite3\n",    "then\nold ../chroma.sqlite3\n",
	    "then\naside ../lost.sqlite3\n", "then\naside \n",
	    "then\naside .hidden\n",	     "then\nnew passwd\n"};
	struct fixture *f = *state;
	struct restore_swap swap = {.datafd = f->datafd, .storefd = f->storefd};
	int fd = restore_prepare(f->storefd);
	unsigned i;

	close(fd);
	fd = tree_make_directory(f->storefd, RESTORE_DIR);
	for (i = 0; i < sizeof(forged) / sizeof(*forged); i++) {
		put_journal(fd, forged[i]);
		assert_int_equal(restore_resume(&swap), -EBADMSG);
	}
	put_journal(fd, "then\naside lost.sqlite3\n");
	assert_int_equal(restore_resume(&swap), 1);
	close(fd);
	assert_int_equal(rows(f->data), 2);
}

static void test_damaged_journal(void **state)
{
	struct fixture *f = *state;
	struct restore_swap swap = {.datafd = f->datafd, .storefd = f->storefd};
	int fd = restore_prepare(f->storefd);

	close(fd);
	fd = tree_make_directory(f->storefd, RESTORE_DIR);
	scratch_put(fd, "journal", "chromashim restore 1\n../..\nold chroma.sqlite3\n", 45);
	assert_int_equal(restore_resume(&swap), -EBADMSG);
	scratch_put(fd, "journal", "chromashim restore 2\nthen\nold chroma.sqlite3\n", 44);
	assert_int_equal(restore_resume(&swap), -EPROTONOSUPPORT);
	assert_int_equal(restore_prepare(f->storefd), -EINPROGRESS);
	close(fd);
	assert_int_equal(rows(f->data), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(swap_killed_at_every_step),
	    TEST(a_resumed_swap_leaves_a_backend_alone),
	    TEST(swap_by_bytes),
	    TEST(swap_without_a_database),
	    TEST(swap_is_not_begun),
	    TEST(damaged_journal),
	    TEST(forged_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
