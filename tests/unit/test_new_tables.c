/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/chroma/migrations.h"
#include "core/chroma/new_tables.h"
#include "scratch.h"

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

struct fixture {
	struct scratch dir;
	sqlite3 *db;
	int fd;
	struct new_tables_room room;
};

static void run(struct fixture *f, const char *sql)
{
	assert_int_equal(sqlite3_exec(f->db, sql, NULL, NULL, NULL), SQLITE_OK);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char path[128];

	scratch_make(&f->dir);
	snprintf(path, sizeof(path), "%s/db", f->dir.path);
	f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (f->fd < 0 || sqlite3_open(path, &f->db) != SQLITE_OK)
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sqlite3_close(f->db);
	close(f->fd);
	scratch_remove(&f->dir);
	free(f);
	return 0;
}

static enum new_tables look(struct fixture *f)
{
	struct file_source source;

	assert_int_equal(file_source_open(&source, f->fd), 0);
	return new_tables_read(&source, &f->room);
}

static void test_before_and_after(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(look(f), NEW_TABLES_NONE); /* an empty file */
	run(f, "PRAGMA user_version = 1");
	assert_int_equal(look(f), NEW_TABLES_NONE);
	run(f, "CREATE TABLE somebody_elses (x)");
	assert_int_equal(look(f), NEW_TABLES_DONE);
	assert_int_equal(pwrite(f->fd, "no database", 11, 0), 11);
	assert_int_equal(look(f), NEW_TABLES_DONE);
}

/* What every release makes, one migration after the other, as Python's do it. */
static void test_each_migration(void **state)
{
	static const enum migration_dir order[] = {MIGRATION_QUEUE, MIGRATION_SYSDB,
						   MIGRATION_METADB};
	struct fixture *f = *state;
	unsigned count, version, d;
	const struct migration_era *eras = migrations_eras(&count);
	const unsigned *last = eras[count - 1].counts;

	run(f, "CREATE TABLE migrations (dir TEXT NOT NULL, version INTEGER NOT NULL, filename "
	       "TEXT NOT NULL, sql TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (dir, version))");
	assert_int_equal(look(f), NEW_TABLES_SOME);
	for (d = 0; d < MIGRATION_DIRS; d++)
		for (version = 1; version <= last[order[d]]; version++) {
			bool is_done = d == 2 && version + 1 >= last[MIGRATION_METADB];
			char sql[200];

			snprintf(sql, sizeof(sql),
				 "INSERT INTO migrations VALUES ('%s', %u, 'file', "
				 "hex(zeroblob(3000)), '')",
				 migration_dir_names[order[d]], version);
			run(f, sql);
			assert_int_equal(look(f), is_done ? NEW_TABLES_DONE : NEW_TABLES_SOME);
		}
	run(f, "INSERT INTO migrations VALUES ('metadb', 40, 'of a later release', '', '')");
	assert_int_equal(look(f), NEW_TABLES_DONE);
}

static void test_each_era(void **state)
{
	struct fixture *f = *state;
	unsigned count, i;
	const struct migration_era *eras = migrations_eras(&count);

	for (i = 0; i < count; i++) {
		if (migrations_make(f->db, &eras[i]) != 0)
			continue; /* a release of which no text is known */
		assert_int_equal(look(f), NEW_TABLES_DONE);
		break;
	}
	assert_int_not_equal(i, count);
}

/* Any byte may be wrong, as in a database that is written meanwhile. */
static void test_damage(void **state)
{
	struct fixture *f = *state;
	unsigned count, round;
	const struct migration_era *eras = migrations_eras(&count);
	off_t size;

	assert_int_equal(migrations_make(f->db, &eras[count - 1]), 0);
	size = lseek(f->fd, 0, SEEK_END);
	srand(7);
	for (round = 0; round < 400; round++) {
		unsigned char was, other = (unsigned char)rand();
		off_t at = (off_t)rand() % (round % 2 ? size : 4096);

		assert_int_equal(pread(f->fd, &was, 1, at), 1);
		assert_int_equal(pwrite(f->fd, &other, 1, at), 1);
		assert_in_range(look(f), NEW_TABLES_NONE, NEW_TABLES_DONE);
		assert_int_equal(pwrite(f->fd, &was, 1, at), 1);
	}
	assert_int_equal(look(f), NEW_TABLES_DONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(before_and_after), TEST(each_migration),
					   TEST(each_era), TEST(damage)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
