/* SPDX-License-Identifier: MIT
 *
 * Taking and restoring snapshots of small directories, and the exchange in place, killed at every
 * step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include "core/base/checksum.h"
#include "core/check/verify.h"
#include "core/snapshot/restore.h"
#include "scratch.h"

#define SEGMENT "0a1b2c3d-0000-4000-8000-00000000000f"
#define OTHER "0a1b2c3d-0000-4000-8000-0000000000aa"
#define BIN_SIZE (3 * SNAPSHOT_CHUNK_SIZE + 77)

struct fixture {
	struct scratch dir; /* with data and store in it */
	char data[96];
	int datafd, storefd;
	struct snapshot_store store;
};

static void run(const char *directory, const char *sql)
{
	char path[128];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/chroma.sqlite3", directory);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int64_t rows(const char *directory)
{
	sqlite3_stmt *s;
	char path[128];
	int64_t count;
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/chroma.sqlite3", directory);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &s, NULL) != SQLITE_OK) {
		sqlite3_close(db);
		return -1;
	}
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	count = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	return count;
}

static void make_segment(int datafd, const char *id, unsigned char fill)
{
	struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
	int fd = tree_make_directory(datafd, id);
	unsigned char *bin = calloc(1, BIN_SIZE);

	memset(bin + 5, fill, SNAPSHOT_CHUNK_SIZE); /* the rest is zeros, whole chunks of them */
	scratch_put(fd, "data_level0.bin", bin, BIN_SIZE);
	scratch_put(fd, "index_metadata.pickle", &fill, 1);
	scratch_put(fd, "empty", "", 0);
	utimensat(fd, "data_level0.bin", old, 0);
	free(bin);
	close(fd);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	scratch_make(&f->dir);
	f->datafd = tree_make_directory(f->dir.fd, "data");
	f->storefd = tree_make_directory(f->dir.fd, "store");
	snprintf(f->data, sizeof(f->data), "%s/data", f->dir.path);
	run(f->data, "CREATE TABLE t(x); INSERT INTO t VALUES(1),(2)");
	make_segment(f->datafd, SEGMENT, 3);
	assert_int_equal(snapshot_store_open(&f->store, f->storefd, SNAPSHOT_CHANGE, 0), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	snapshot_store_close(&f->store);
	close(f->datafd);
	close(f->storefd);
	scratch_remove(&f->dir);
	free(f);
	return 0;
}

static int try_take(struct fixture *f, struct manifest *m, bool accept_broken)
{
	struct snapshot_options options = {.path = f->data,
					   .dirfd = f->datafd,
					   .reason = "manual",
					   .accept_broken = accept_broken};
	struct snapshot_trouble t;

	return snapshot_take(&f->store, &options, m, &t);
}

static void take(struct fixture *f, struct manifest *m)
{
	assert_int_equal(try_take(f, m, false), 0);
	assert_int_equal(m->header.state, SNAPSHOT_COMPLETE);
}

static int build(struct fixture *f, const struct manifest *m, int dirfd)
{
	struct restore_options options = {.owner = NULL};
	struct snapshot_trouble t;

	return restore_build(&f->store, m, dirfd, &options, &t, NULL);
}

/* Restores to <name> below the fixture, and gives its path. */
static void restore_to(struct fixture *f, const struct manifest *m, const char *name, char path[96])
{
	int fd;

	assert_int_equal(tree_remove(f->dir.fd, name), 0);
	fd = tree_make_directory(f->dir.fd, name);
	assert_int_equal(build(f, m, fd), 0);
	close(fd);
	snprintf(path, 96, "%.60s/%s", f->dir.path, name);
}

static void assert_same_file(int a, int b, const char *name)
{
	struct stat st_a, st_b;
	size_t size_a = 0, size_b = 0;
	char *data_a = scratch_get(a, name, &size_a), *data_b = scratch_get(b, name, &size_b);

	assert_non_null(data_a);
	assert_non_null(data_b);
	assert_int_equal(size_a, size_b);
	assert_memory_equal(data_a, data_b, size_a);
	assert_int_equal(fstatat(a, name, &st_a, 0), 0);
	assert_int_equal(fstatat(b, name, &st_b, 0), 0);
	assert_int_equal(st_a.st_mode, st_b.st_mode);
	free(data_a);
	free(data_b);
}

static void test_byte_for_byte(void **state)
{
	static const char *const names[] = {"chroma.sqlite3", SEGMENT "/data_level0.bin",
					    SEGMENT "/index_metadata.pickle", SEGMENT "/empty"};
	struct fixture *f = *state;
	struct stat live, back;
	struct manifest m;
	char path[96];
	unsigned i;
	int fd;

	take(f, &m);
	restore_to(f, &m, "out", path);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	for (i = 0; i < 4; i++)
		assert_same_file(f->datafd, fd, names[i]);
	fstatat(f->datafd, names[1], &live, 0);
	fstatat(fd, names[1], &back, 0);
	assert_int_equal(live.st_mtim.tv_sec, back.st_mtim.tv_sec);
	assert_true(back.st_blocks * 512 < BIN_SIZE); /* zeros are holes */
	close(fd);
	manifest_free(&m);
}

/* The first of a crashed backend, the second of one that uses WAL. */
static void test_journals_are_played_in(void **state)
{
	struct fixture *f = *state;
	char path[160], sql[] = "PRAGMA cache_size = 1; BEGIN;"
				"INSERT INTO t SELECT randomblob(3000) FROM t a, t b, t c, t d;"
				"INSERT INTO t SELECT randomblob(3000) FROM t";
	struct manifest m;
	pid_t child = fork();
	int status;

	snprintf(path, sizeof(path), "%s/chroma.sqlite3", f->data);
	if (child == 0) {
		sqlite3 *db;

		/* Spilt to the database and never committed: a hot journal stays. */
		if (sqlite3_open(path, &db) || sqlite3_exec(db, sql, NULL, NULL, NULL))
			_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(faccessat(f->datafd, "chroma.sqlite3-journal", F_OK, 0), 0);
	take(f, &m);
	assert_int_equal(faccessat(f->datafd, "chroma.sqlite3-journal", F_OK, 0), 0);
	restore_to(f, &m, "out", path);
	assert_int_equal(rows(path), 2);
	manifest_free(&m);
}

static void test_wal(void **state)
{
	struct fixture *f = *state;
	struct manifest m;
	char path[160];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/chroma.sqlite3", f->data);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode = WAL; INSERT INTO t VALUES(3)",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	take(f, &m);
	assert_int_equal(m.file_count, 4);
	sqlite3_exec(db, "INSERT INTO t VALUES(4)", NULL, NULL, NULL);
	sqlite3_close(db);
	restore_to(f, &m, "out", path);
	assert_int_equal(rows(path), 3);
	manifest_free(&m);
}

static void test_what_cannot_be_opened(void **state)
{
	struct fixture *f = *state;
	struct manifest m;

	scratch_put(f->datafd, "chroma.sqlite3", "this is no database, and longer than that", 41);
	assert_int_equal(try_take(f, &m, false), -EBADMSG);
	manifest_free(&m);
	assert_int_equal(try_take(f, &m, true), 0);
	assert_int_equal(m.header.state, SNAPSHOT_BROKEN);
	manifest_free(&m);
	assert_int_equal(unlinkat(f->datafd, "chroma.sqlite3", 0), 0);
	assert_int_equal(try_take(f, &m, false), -ENOENT);
	manifest_free(&m);
	assert_int_equal(try_take(f, &m, true), 0);
	assert_string_equal(m.trouble, "there was no chroma.sqlite3");
	assert_int_equal(m.file_count, 3);
	manifest_free(&m);
}

static void damage_a_chunk(struct fixture *f, const struct manifest *m, bool remove)
{
	const struct chunk_name *name = &manifest_find(m, "chroma.sqlite3")->chunks[0];
	char path[128], *at = path + sprintf(path, "chunks/%02x/", name->bytes[0]), *data;
	size_t size;
	unsigned i;

	for (i = 0; i < SNAPSHOT_NAME_SIZE; i++)
		at += sprintf(at, "%02x", name->bytes[i]);
	data = scratch_get(f->store.dirfd, path, &size);
	data[size / 2] ^= 0x20;
	if (remove)
		unlinkat(f->store.dirfd, path, 0);
	else
		scratch_put(f->store.dirfd, path, data, size);
	free(data);
}

static void test_damaged_store(void **state)
{
	struct fixture *f = *state;
	struct snapshot_trouble t;
	struct manifest m, again;
	int i, fd;

	for (i = 0; i < 2; i++) {
		take(f, &m);
		damage_a_chunk(f, &m, i == 0);
		fd = tree_make_directory(f->dir.fd, "out");
		assert_int_equal(build(f, &m, fd), i == 0 ? -ENOENT : -EBADMSG);
		close(fd);
		assert_int_equal(verify_snapshot(&f->store, &m, NULL, NULL, &t), 0);
		assert_int_equal(m.header.state, SNAPSHOT_BROKEN);
		assert_non_null(strstr(m.trouble, i == 0 ? "is missing" : "is damaged"));
		/* The next snapshot writes the chunk again, which heals this one too. */
		take(f, &again);
		fd = tree_make_directory(f->dir.fd, "out");
		assert_int_equal(build(f, &m, fd), 0);
		close(fd);
		manifest_free(&again);
		manifest_free(&m);
	}
}

/* What a killed one left is gone after the next, and nothing else is. */
static void test_leftovers(void **state)
{
	struct fixture *f = *state;
	struct snapshot_store other;
	struct manifest m;
	int fd;

	take(f, &m);
	snapshot_store_close(&f->store);
	fd = tree_make_directory(f->storefd, SCRATCH_DIR);
	scratch_put(fd, "chroma.sqlite3", "x", 1);
	close(fd);
	assert_int_equal(snapshot_store_open(&other, f->storefd, SNAPSHOT_CHANGE, 0), 0);
	assert_int_equal(faccessat(f->storefd, SCRATCH_DIR, F_OK, 0), -1);
	f->store = other;
	fd = tree_make_directory(f->dir.fd, "out");
	assert_int_equal(build(f, &m, fd), 0);
	close(fd);
	manifest_free(&m);
}

/* ---- the exchange ---- */

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

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(byte_for_byte),
	    TEST(journals_are_played_in),
	    TEST(wal),
	    TEST(what_cannot_be_opened),
	    TEST(damaged_store),
	    TEST(leftovers),
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
