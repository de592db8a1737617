/* SPDX-License-Identifier: MIT
 *
 * A small directory with a store, of which snapshots are taken and restored.
 */
#ifndef UNIT_RESTORE_FIXTURE_H
#define UNIT_RESTORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sqlite3.h>

#include "core/base/tree.h"
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

static inline void run(const char *directory, const char *sql)
{
	char path[192];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/chroma.sqlite3", directory);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static inline int64_t rows(const char *directory)
{
	sqlite3_stmt *s;
	char path[192];
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

static inline void make_segment(int datafd, const char *id, unsigned char fill)
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

static inline int set_up(void **state)
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

static inline int tear_down(void **state)
{
	struct fixture *f = *state;

	snapshot_store_close(&f->store);
	close(f->datafd);
	close(f->storefd);
	scratch_remove(&f->dir);
	free(f);
	return 0;
}

static inline int try_take(struct fixture *f, struct manifest *m, bool accept_broken)
{
	struct snapshot_options options = {.path = f->data,
					   .dirfd = f->datafd,
					   .reason = "manual",
					   .accept_broken = accept_broken};
	struct snapshot_trouble t;

	return snapshot_take(&f->store, &options, m, &t);
}

static inline void take(struct fixture *f, struct manifest *m)
{
	assert_int_equal(try_take(f, m, false), 0);
	assert_int_equal(m->header.state, SNAPSHOT_COMPLETE);
}

static inline int build(struct fixture *f, const struct manifest *m, int dirfd)
{
	struct restore_options options = {.owner = NULL};
	struct snapshot_trouble t;

	return restore_build(&f->store, m, dirfd, &options, &t, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

#endif
