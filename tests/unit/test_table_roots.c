/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sqlite3.h>

#include "core/chroma/table_roots.h"
#include "scratch.h"

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
#define QUEUE                                                                                \
	"CREATE TABLE embeddings_queue (seq_id INTEGER PRIMARY KEY, created_at, operation, " \
	"topic, id, vector, encoding, metadata);"

struct fixture {
	struct scratch dir;
	sqlite3 *db;
	int fd;
	struct table_roots roots;
	unsigned char room[TABLE_ROOTS_ROOM];
};

static void run(struct fixture *f, const char *sql)
{
	char *error = NULL;

	if (sqlite3_exec(f->db, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char path[128];

	scratch_make(&f->dir);
	snprintf(path, sizeof(path), "%s/db", f->dir.path);
	if (sqlite3_open(path, &f->db) != SQLITE_OK)
		return -1;
	run(f, "PRAGMA page_size = 4096;"
	       "CREATE TABLE acquire_write (id INTEGER PRIMARY KEY, lock_status INTEGER NOT NULL);"
	       "CREATE TABLE max_seq_id (segment_id TEXT PRIMARY KEY, seq_id INTEGER NOT NULL);"
	       "CREATE TABLE embeddings (id INTEGER PRIMARY KEY, segment_id, embedding_id, seq_id,"
	       " UNIQUE (segment_id, embedding_id));"
	       "CREATE VIEW seen AS SELECT * FROM embeddings;"
	       "CREATE TABLE collections (id TEXT PRIMARY KEY, name);"
	       "CREATE VIRTUAL TABLE embedding_fulltext_search USING fts5(string_value);"
	       "CREATE TRIGGER told AFTER INSERT ON collections BEGIN SELECT 1; END;" QUEUE);
	f->fd = openat(f->dir.fd, "db", O_RDWR | O_CLOEXEC);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close(f->fd);
	sqlite3_close(f->db);
	scratch_remove(&f->dir);
	free(f);
	return 0;
}

static bool read_roots(struct fixture *f)
{
	struct file_source source;

	assert_int_equal(file_source_open(&source, f->fd), 0);
	return table_roots_read(&f->roots, &source, f->room);
}

static enum table_kind expected(const char *table)
{
	if (strncmp(table, "embedding", 9) == 0)
		return strcmp(table, "embeddings_queue") == 0 ? TABLE_QUEUE : TABLE_RECORDS;
	if (strcmp(table, "max_seq_id") == 0)
		return TABLE_MARKS;
	if (strcmp(table, "migrations") == 0)
		return TABLE_MIGRATIONS;
	return strcmp(table, "acquire_write") == 0 ? TABLE_ACQUIRE : TABLE_ANY_OTHER;
}

/* Each root that SQLite names, also on the further pages of a long schema, is of its table. */
static void check_all(struct fixture *f)
{
	sqlite3_stmt *row;
	uint32_t n = 0;

	assert_true(read_roots(f));
	assert_int_equal(sqlite3_prepare_v2(f->db,
					    "SELECT rootpage, tbl_name FROM sqlite_master WHERE "
					    "rootpage > 0",
					    -1, &row, NULL),
			 SQLITE_OK);
	for (; sqlite3_step(row) == SQLITE_ROW; n++)
		assert_int_equal(table_root_kind(&f->roots, (uint32_t)sqlite3_column_int(row, 0)),
				 expected((const char *)sqlite3_column_text(row, 1)));
	sqlite3_finalize(row);
	assert_int_equal(f->roots.count, n);
	assert_int_equal(table_root_kind(&f->roots, 1), TABLE_NONE);
	assert_int_equal(table_root_kind(&f->roots, 100000), TABLE_NONE);
}

static void make_tables(struct fixture *f, int from, int to)
{
	char sql[1200];
	int i;

	for (i = from; i < to; i++) {
		snprintf(sql, sizeof(sql), "CREATE TABLE more_%d (a /* %*s */)", i, 1000, "long");
		run(f, sql);
	}
}

static void test_tables_and_their_indexes(void **state)
{
	struct fixture *f = *state;

	check_all(f);
	make_tables(f, 0, 60);
	check_all(f);
	run(f, "DROP TABLE embeddings; DROP TABLE more_7; CREATE TABLE embeddings (id, n UNIQUE)");
	check_all(f);
	make_tables(f, 60, 140);
	assert_false(read_roots(f)); /* more than any Chroma has */
}

static uint32_t first_leaf(struct fixture *f)
{
	struct file_source source;

	assert_true(read_roots(f));
	assert_int_equal(file_source_open(&source, f->fd), 0);
	return table_first_leaf(&f->roots, TABLE_QUEUE, &source, f->room);
}

/* As long as the first rows and the last are on one page, nothing tells who removes and who adds.
 */
static void test_first_rows_of_the_queue(void **state)
{
	struct fixture *f = *state;
	uint32_t leaf;

	assert_int_equal(first_leaf(f), 0);
	run(f, "INSERT INTO embeddings_queue (id) VALUES ('a'), ('b')");
	assert_int_equal(first_leaf(f), 0);
	run(f, "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO "
	       "embeddings_queue (id, vector) SELECT i, zeroblob(1500) FROM n");
	leaf = first_leaf(f);
	assert_true(leaf > 1);
	assert_int_equal(table_root_kind(&f->roots, leaf), TABLE_NONE);
	run(f, "INSERT INTO embeddings_queue (id, vector) VALUES ('last', zeroblob(20000))");
	assert_int_equal(first_leaf(f), leaf);
}

/* Any byte may be wrong: what is read stays within its bounds, and comes to an end. */
static void test_damage(void **state)
{
	struct fixture *f = *state;
	unsigned char byte;
	off_t at;

	make_tables(f, 0, 30);
	assert_true(read_roots(f));
	for (at = 0; at < 2 * 4096; at += 7) {
		assert_int_equal(pread(f->fd, &byte, 1, at), 1);
		byte ^= 0xff;
		assert_int_equal(pwrite(f->fd, &byte, 1, at), 1);
		read_roots(f);
		byte ^= 0xff;
		assert_int_equal(pwrite(f->fd, &byte, 1, at), 1);
	}
	check_all(f);
	assert_int_equal(ftruncate(f->fd, 4096), 0);
	assert_false(read_roots(f));
	assert_int_equal(ftruncate(f->fd, 0), 0);
	assert_false(read_roots(f));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(tables_and_their_indexes),
	    TEST(first_rows_of_the_queue),
	    TEST(damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
