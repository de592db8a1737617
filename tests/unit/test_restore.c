/* SPDX-License-Identifier: MIT
 *
 * Taking and restoring snapshots of small directories.
 */
#include "restore_fixture.h"

#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/check/verify.h"

static int syncs, fails_at; /* atomic; 0: none fails */

int fsync(int fd)
{
	if (__atomic_add_fetch(&syncs, 1, __ATOMIC_SEQ_CST) != fails_at)
		return (int)syscall(SYS_fsync, fd);
	errno = EIO;
	return -1;
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

/* Enough for two threads; no two chunks are the same, and some are zeros. */
static void make_long_file(struct fixture *f, unsigned chunks)
{
	size_t size = (size_t)chunks * SNAPSHOT_CHUNK_SIZE + 99, i;
	unsigned char *bin = calloc(1, size);
	int fd = tree_make_directory(f->datafd, OTHER);

	assert_non_null(bin);
	for (i = 0; i < size; i += 512)
		if (i / SNAPSHOT_CHUNK_SIZE % 5)
			memcpy(bin + i, &i, sizeof(i));
	scratch_put(fd, "data_level0.bin", bin, size);
	free(bin);
	close(fd);
}

static void test_a_long_file(void **state)
{
	struct restore_options options = {.owner = NULL};
	struct chunk_name bad, damaged;
	struct fixture *f = *state;
	struct snapshot_trouble t;
	struct manifest m;
	char path[96];
	int fd;

	make_long_file(f, 40);
	take(f, &m);
	restore_to(f, &m, "out", path);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	assert_same_file(f->datafd, fd, OTHER "/data_level0.bin");
	close(fd);
	/* Whoever of the two meets it. */
	damaged = manifest_find(&m, OTHER "/data_level0.bin")->chunks[23];
	assert_int_equal(chunks_set_aside(&f->store.chunks, &damaged), 0);
	assert_int_equal(restore_try(&f->store, &m, &options, &t, &bad), -ENOENT);
	assert_memory_equal(&bad, &damaged, sizeof(bad));
	assert_string_equal(t.file, OTHER "/data_level0.bin");
	assert_int_equal(tree_remove(f->dir.fd, "out"), 0);
	fd = tree_make_directory(f->dir.fd, "out");
	assert_int_equal(restore_build(&f->store, &m, fd, &options, &t, &bad), -ENOENT);
	assert_int_equal(faccessat(fd, OTHER "/data_level0.bin", F_OK, 0), -1);
	assert_int_equal(faccessat(fd, "chroma.sqlite3", F_OK, 0), -1);
	close(fd);
	manifest_free(&m);
}

/* Whichever it is, the database does not get its name, but for the last one, which is of names. */
static void test_each_sync_fails_once(void **state)
{
	struct fixture *f = *state;
	struct manifest m;
	int all, fd;

	take(f, &m);
	fd = tree_make_directory(f->dir.fd, "whole");
	syncs = 0;
	assert_int_equal(build(f, &m, fd), 0);
	close(fd);
	all = syncs;
	assert_true(all > 6);
	for (fails_at = 1; fails_at <= all; fails_at++) {
		assert_int_equal(tree_remove(f->dir.fd, "out"), 0);
		fd = tree_make_directory(f->dir.fd, "out");
		syncs = 0;
		assert_int_equal(build(f, &m, fd), -EIO);
		assert_int_equal(faccessat(fd, "chroma.sqlite3", F_OK, 0) == 0, fails_at == all);
		close(fd);
	}
	fails_at = 0;
	manifest_free(&m);
}

struct onlooker {
	int storefd;
	unsigned calls;
};

static void add_meanwhile(void *context, uint64_t done, uint64_t total)
{
	struct onlooker *o = context;
	struct snapshot_store other;

	(void)done;
	(void)total;
	o->calls++;
	assert_int_equal(snapshot_store_open(&other, o->storefd, SNAPSHOT_ADD, 0), 0);
	snapshot_store_close(&other);
	assert_int_equal(snapshot_store_open(&other, o->storefd, SNAPSHOT_CHANGE, 0), -EBUSY);
}

/* Who only wants to add need not wait until a large one is verified. */
static void test_others_add_while_one_is_verified(void **state)
{
	struct fixture *f = *state;
	struct onlooker o = {.storefd = f->storefd};
	struct snapshot_store second;
	struct snapshot_trouble t;
	struct manifest m;

	take(f, &m);
	snapshot_store_close(&f->store);
	assert_int_equal(snapshot_store_open(&f->store, f->storefd, SNAPSHOT_ADD, 0), 0);
	assert_int_equal(verify_snapshot(&f->store, &m, add_meanwhile, &o, &t), 0);
	assert_true(o.calls > 0 && m.header.verified > 0);
	assert_int_equal(snapshot_store_open(&second, f->storefd, SNAPSHOT_ADD, 0), -EBUSY);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(byte_for_byte),	  TEST(a_long_file), TEST(others_add_while_one_is_verified),
	    TEST(journals_are_played_in), TEST(wal),	     TEST(what_cannot_be_opened),
	    TEST(damaged_store),	  TEST(leftovers),   TEST(each_sync_fails_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
