/* SPDX-License-Identifier: MIT
 *
 * Who wrote a database and who can open it, by its migrations.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/chroma/migrations.h"
#include "core/sqlite/database.h"

static void run(sqlite3 *db, const char *sql)
{
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
}

/* The table as the releases of that era leave it. */
static sqlite3 *make(const unsigned counts[MIGRATION_DIRS])
{
	unsigned n, i;
	const struct migration *all = migrations_all(&n);
	char sql[512];
	sqlite3 *db;

	assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
	run(db,
	    "CREATE TABLE migrations (dir TEXT NOT NULL, version INTEGER NOT NULL, filename "
	    "TEXT NOT NULL, sql TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (dir, version))");
	for (i = 0; i < n; i++) {
		if (all[i].version > counts[all[i].dir])
			continue;
		snprintf(
		    sql, sizeof(sql), "INSERT INTO migrations VALUES ('%s', %u, '%s', '', '%s')",
		    migration_dir_names[all[i].dir], all[i].version, all[i].filename, all[i].md5);
		run(db, sql);
	}
	return db;
}

static void test_every_era(void **state)
{
	unsigned n, i;
	const struct migration_era *eras = migrations_eras(&n);
	struct migration_state found;
	sqlite3 *db;

	(void)state;
	for (i = 0; i < n; i++) {
		db = make(eras[i].counts);
		assert_int_equal(migrations_read(db, &found), 0);
		assert_ptr_equal(migrations_find_era(found.counts), &eras[i]);
		assert_int_equal(found.missing + found.unknown + found.altered, 0);
		assert_int_equal(migrations_judge(found.counts, eras[i].first), MIGRATION_OPENS);
		assert_int_equal(migrations_judge(found.counts, eras[i].last), MIGRATION_OPENS);
		sqlite3_close(db);
	}
}

/* Every migration's first release is the first of an era that has it, and the eras are in order. */
static void test_table(void **state)
{
	unsigned n, eras_count, i, j;
	const struct migration *all = migrations_all(&n);
	const struct migration_era *eras = migrations_eras(&eras_count);

	(void)state;
	for (i = 0; i < n; i++) {
		for (j = 0; j < eras_count; j++)
			if (eras[j].counts[all[i].dir] >= all[i].version)
				break;
		assert_true(j < eras_count);
		assert_string_equal(all[i].first, eras[j].first);
	}
	for (i = 1; i < eras_count; i++)
		assert_int_equal(migrations_compare_releases(eras[i - 1].last, eras[i].first), -1);
}

/* Rows that are gone of a database that is whole otherwise; as it is made, none is. */
static void test_holes(void **state)
{
	unsigned count, i;
	const struct migration_era *eras = migrations_eras(&count), *found;
	struct migration_state m;
	sqlite3 *db;

	(void)state;
	for (i = 0; i < count; i++) {
		assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
		assert_int_equal(migrations_make(db, &eras[i]), 0);
		assert_int_equal(migrations_read(db, &m), 0);
		assert_int_equal(migrations_have_holes(db, &m, &found), 0);
		assert_int_equal(sqlite3_exec(db,
					      "DELETE FROM migrations WHERE dir = 'sysdb' AND "
					      "version = 2",
					      NULL, NULL, NULL),
				 SQLITE_OK);
		assert_int_equal(migrations_read(db, &m), 0);
		assert_int_equal(migrations_have_holes(db, &m, &found), 1);
		assert_ptr_equal(found, &eras[i]);
		sqlite3_close(db);
	}
}

static void test_judge(void **state)
{
	static const unsigned newest[] = {2, 6, 10}, v130[] = {2, 5, 10}, v100[] = {2, 5, 9},
			      v063[] = {2, 4, 9};

	(void)state;
	assert_int_equal(migrations_judge(newest, "1.0.5"), MIGRATION_PANICS);
	assert_int_equal(migrations_judge(v130, "1.2.1"), MIGRATION_PANICS);
	assert_int_equal(migrations_judge(v130, "1.2.2"), MIGRATION_RUNS_ON);
	assert_int_equal(migrations_judge(newest, "1.3.4"), MIGRATION_RUNS_ON);
	assert_int_equal(migrations_judge(v100, "0.6.3"), MIGRATION_FAILS);
	assert_int_equal(migrations_judge(v063, "1.5.9"), MIGRATION_MIGRATES);
	assert_int_equal(migrations_judge(v063, "0.4.24"), MIGRATION_FAILS);
	assert_int_equal(migrations_judge(newest, "1.9.0"), MIGRATION_OPENS);
	assert_int_equal(migrations_judge(newest, "0.3.2"), MIGRATION_UNKNOWN);
	assert_int_equal(migrations_judge(newest, "what"), MIGRATION_UNKNOWN);
	assert_int_equal(migrations_compare_releases("1.0.12", "1.0.5"), 1);
	assert_int_equal(migrations_compare_releases("1.0", "1.0.0"), 0);
}

static void test_odd(void **state)
{
	static const unsigned v100[] = {2, 5, 9};
	struct migration_state found;
	sqlite3 *db = make(v100);

	(void)state;
	run(db, "DELETE FROM migrations WHERE dir = 'sysdb' AND version = 4;"
		"UPDATE migrations SET hash = '00000000000000000000000000000000'"
		" WHERE dir = 'metadb' AND version = 2;"
		"INSERT INTO migrations VALUES ('sysdb', 11, '00011-fork.sqlite.sql', '', ''),"
		"('other', 1, 'x', '', ''), ('metadb', -5, 'x', '', '')");
	assert_int_equal(migrations_read(db, &found), 0);
	assert_int_equal(found.unknown, 3);
	assert_int_equal(found.altered, 1);
	assert_int_equal(found.missing, 2); /* 4, and 10 below the unknown 11 */
	assert_int_equal(found.counts[MIGRATION_SYSDB], 11);
	assert_null(migrations_find_era(found.counts));
	assert_string_equal(found.example, "metadb/00002-embedding-metadata.sqlite.sql");
	run(db, "DROP TABLE migrations");
	assert_int_equal(migrations_read(db, &found), 0);
	assert_false(found.has_table);
	sqlite3_close(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_era), cmocka_unit_test(test_table),
	    cmocka_unit_test(test_holes),     cmocka_unit_test(test_judge),
	    cmocka_unit_test(test_odd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
