/* SPDX-License-Identifier: MIT
 *
 * What is made of schemas that are not trusted, and rows of one database in another.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/sqlite/database.h"
#include "core/sqlite/fulltext.h"

static int setup(void **state)
{
	return sqlite3_open(":memory:", (sqlite3 **)state);
}

static int teardown(void **state)
{
	return sqlite3_close(*state);
}

static void run(sqlite3 *db, const char *sql)
{
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
}

static int64_t ask(sqlite3 *db, const char *sql)
{
	int64_t number;

	assert_int_equal(database_number(db, sql, NULL, &number), 0);
	return number;
}

static void test_schema_texts(void **state)
{
	static const char *const texts[] = {
	    "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT DEFAULT CURRENT_TIMESTAMP UNIQUE)",
	    "CREATE UNIQUE INDEX i ON t(lower(b)) WHERE b IS NOT NULL",
	    "CREATE VIRTUAL TABLE " FULLTEXT_TABLE " USING fts5(string_value, tokenize='trigram')"};
	sqlite3 *db = *state;
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(database_create(db, texts[i]), 0);
	run(db, "INSERT INTO t(b) VALUES ('one'); INSERT INTO " FULLTEXT_TABLE " VALUES ('text')");
	assert_int_equal(
	    ask(db, "SELECT count(*) FROM sqlite_master WHERE name IN ('t', 'i', '" FULLTEXT_TABLE
		    "')"),
	    3);
}

static void test_other_texts(void **state)
{
	static const char *const texts[] = {
	    "ATTACH '/nonexistent/x' AS x",
	    "DELETE FROM t",
	    "INSERT INTO t VALUES (2)",
	    "PRAGMA user_version = 7",
	    "VACUUM INTO '/nonexistent/x'",
	    "CREATE TABLE u AS SELECT * FROM t",
	    "CREATE TABLE u AS WITH RECURSIVE r AS (VALUES (1) UNION SELECT * FROM r) SELECT 1",
	    "CREATE TEMP TABLE u(a)",
	    "CREATE VIEW u AS SELECT * FROM t",
	    "CREATE TRIGGER u AFTER INSERT ON t BEGIN DELETE FROM t; END",
	    "CREATE VIRTUAL TABLE u USING rtree(a, b, c)",
	};
	sqlite3 *db = *state;
	int64_t before;
	size_t i;

	run(db, "CREATE TABLE t(a); INSERT INTO t VALUES (1)");
	before = ask(db, "SELECT count(*) FROM sqlite_master");
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(database_create(db, texts[i]), -EACCES);
	/* What follows the end of the first counts for nothing. */
	assert_int_equal(database_create(db, "CREATE TABLE v(a); DELETE FROM t"), 0);
	assert_int_equal(ask(db, "SELECT count(*) FROM sqlite_master"), before + 1);
	assert_int_equal(ask(db, "SELECT count(*) FROM t"), 1);
	run(db, "DROP TABLE v; PRAGMA user_version = 7"); /* nothing is forbidden afterwards */
}

static void test_copied_rows(void **state)
{
	sqlite3 *to = *state, *from;

	assert_int_equal(sqlite3_open(":memory:", &from), SQLITE_OK);
	run(from, "CREATE TABLE c(old, id TEXT, name TEXT); INSERT INTO c VALUES (1, 'a', 'one'), "
		  "(2, 'b', 'two'), (3, 'a', 'three')");
	run(to, "CREATE TABLE c(name TEXT, \"q\"\"x\", id TEXT, UNIQUE(name))");
	assert_int_equal(database_copy_rows(from, to, "c", "id", "a", NULL, false), 0);
	assert_int_equal(ask(to, "SELECT count(*) FROM c WHERE id = 'a' AND name IN ('one', "
				 "'three')"),
			 2);
	assert_int_equal(database_copy_rows(from, to, "c", "id", "b", "called", false), 0);
	assert_int_equal(ask(to, "SELECT count(*) FROM c WHERE name = 'called'"), 1);
	assert_int_equal(database_copy_rows(from, to, "c", "id", "a", NULL, true), 0);
	assert_int_equal(ask(to, "SELECT count(*) FROM c"), 3);
	assert_int_equal(database_copy_rows(from, to, "c", "id", "a", NULL, false), -EIO);
	assert_int_equal(database_copy_rows(from, to, "none", "id", "a", NULL, true), 0);
	sqlite3_close(from);
}

/* Pins rest on the change time of the log; only root's SQLite gives files away. */
static void test_log_is_not_given_away(void **state)
{
	char dir[] = "/tmp/chromashim-database-XXXXXX", path[64], log[80];
	struct stat before, after;
	sqlite3 *writer, *reader;

	(void)state;
	database_spare_owners();
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE, dir);
	snprintf(log, sizeof(log), "%s-wal", path);
	assert_int_equal(sqlite3_open(path, &writer), SQLITE_OK);
	run(writer, "PRAGMA journal_mode = WAL; CREATE TABLE t(a)");
	assert_int_equal(stat(log, &before), 0);
	usleep(10000); /* a tick of the kernel's clock */
	assert_int_equal(database_open(dir, &reader), 0);
	assert_int_equal(ask(reader, "SELECT count(*) FROM t"), 0);
	sqlite3_close(reader);
	assert_int_equal(stat(log, &after), 0);
	assert_memory_equal(&before.st_ctim, &after.st_ctim, sizeof(before.st_ctim));
	if (geteuid() == 0) { /* but what is somebody else's still is */
		assert_int_equal(chown(log, 4242, 4242), 0);
		assert_int_equal(database_open(dir, &reader), 0);
		assert_int_equal(ask(reader, "SELECT count(*) FROM t"), 0);
		sqlite3_close(reader);
		assert_int_equal(stat(log, &after), 0);
		assert_int_equal(after.st_uid, before.st_uid);
	}
	sqlite3_close(writer);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_schema_texts, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_other_texts, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_copied_rows, setup, teardown),
	    cmocka_unit_test(test_log_is_not_given_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
