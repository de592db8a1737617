/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sqlite3.h>

#include "core/chroma/acquire_row.h"
#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"
#include "scratch.h"

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
#define PAGE 4096

/* The journal and the pages of one transaction, taken from SQLite before it commits. */
struct fixture {
	struct scratch dir;
	sqlite3 *db;
	unsigned char journal[ACQUIRE_ROW_PAGES * (PAGE + 8) * 4], room[SQLITE_PAGE_MAX];
	struct acquire_row t;
	int fd;
};

static bool read_database(const struct acquire_row *t, void *out, size_t n, uint64_t at)
{
	return pread(t->fd, out, n, (off_t)at) == (ssize_t)n;
}

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
	       "CREATE TABLE content (id INTEGER PRIMARY KEY, c0);"
	       "CREATE TABLE queue (seq_id INTEGER PRIMARY KEY, created_at, operation INTEGER, id);"
	       "INSERT INTO acquire_write (lock_status) VALUES (TRUE);"
	       "INSERT INTO content VALUES (1, NULL);");
	f->fd = openat(f->dir.fd, "db", O_RDONLY | O_CLOEXEC);
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

/* What it has saved when it is about to commit. False: it is none of those that go nowhere. */
static bool saved(struct fixture *f, const char *sql)
{
	bool is_it;
	int fd;

	run(f, "BEGIN IMMEDIATE");
	run(f, sql);
	fd = openat(f->dir.fd, "db-journal", O_RDONLY | O_CLOEXEC);
	f->t = (struct acquire_row){
	    .journal = f->journal, .room = f->room, .read = read_database, .fd = f->fd};
	if (fd >= 0) {
		f->t.size = (size_t)read(fd, f->journal, sizeof(f->journal));
		close(fd);
	}
	is_it = fd >= 0 && acquire_row_open(&f->t) && acquire_row_saved(&f->t);
	run(f, "COMMIT");
	return is_it;
}

static bool writes(struct fixture *f, uint32_t page)
{
	unsigned char bytes[PAGE];

	assert_int_equal(pread(f->fd, bytes, PAGE, (off_t)(page - 1) * PAGE), PAGE);
	return acquire_row_writes(&f->t, page, bytes);
}

static void test_one_row(void **state)
{
	struct fixture *f = *state;

	assert_true(saved(f, "INSERT INTO acquire_write (lock_status) VALUES (TRUE)"));
	assert_int_equal(f->t.page_size, PAGE);
	assert_true(writes(f, 2));
	assert_true(saved(f, "INSERT INTO acquire_write (lock_status) VALUES (FALSE)"));
}

/* The leaf splits, and the tree gets a level. */
static void test_many_openings(void **state)
{
	struct fixture *f = *state;
	uint32_t i, refused = 0;

	for (i = 0; i < 3000; i++)
		refused += !saved(f, "INSERT INTO acquire_write (lock_status) VALUES (TRUE)");
	assert_int_equal(refused, 0);
}

static void test_anything_else(void **state)
{
	static const char *const others[] = {
	    "INSERT INTO queue VALUES (NULL, 1, 0, 'x')",
	    "INSERT INTO content VALUES (2, NULL)",
	    "INSERT INTO content VALUES (3, 'text')",
	    "INSERT INTO max_seq_id VALUES ('a', 1)",
	    "UPDATE content SET c0 = 'changed'",
	    "DELETE FROM content",
	    "CREATE TABLE more (a)",
	    "DROP TABLE content",
	    "PRAGMA user_version = 7",
	    "DELETE FROM acquire_write",
	};
	struct fixture *f = *state;
	char both[256];
	size_t i;

	for (i = 0; i + 1 < sizeof(others) / sizeof(*others); i++) {
		snprintf(both, sizeof(both),
			 "INSERT INTO acquire_write (lock_status) VALUES (1);%s", others[i]);
		if (saved(f, both) && strstr(others[i], "CREATE") == NULL &&
		    strstr(others[i], "PRAGMA") == NULL)
			fail_msg("taken for one: %s", others[i]);
	}
	run(f, "DELETE FROM acquire_write");
	assert_false(saved(f, "INSERT INTO acquire_write (lock_status) VALUES (TRUE)"));
}

/* A schema that changes shows in page 1 alone, while it fits there. */
static void test_first_page(void **state)
{
	static const char *const others[] = {"CREATE TABLE more (a)", "PRAGMA user_version = 7"};
	struct fixture *f = *state;
	unsigned char one[PAGE];
	char both[256];
	size_t i;

	for (i = 0; i < 2; i++) {
		snprintf(both, sizeof(both),
			 "INSERT INTO acquire_write (lock_status) VALUES (1);%s", others[i]);
		saved(f, both);
		if (f->t.records < 2)
			continue;
		assert_false(writes(f, 1));
	}
	/* The counters may change. */
	saved(f, "INSERT INTO acquire_write (lock_status) VALUES (1); PRAGMA user_version = 7");
	assert_int_equal(pread(f->fd, one, PAGE, 0), PAGE);
	one[27]++;
	one[40]++;
	assert_false(acquire_row_writes(&f->t, 1, one));
}

static void test_what_is_no_journal(void **state)
{
	struct fixture *f = *state;
	size_t cut, whole;

	assert_true(saved(f, "INSERT INTO acquire_write (lock_status) VALUES (TRUE)"));
	whole = f->t.size;
	for (cut = 0; cut < whole; cut++) {
		f->t.size = cut;
		if (acquire_row_open(&f->t))
			assert_true(acquire_row_saved(&f->t) || f->t.records == 1);
	}
	memset(f->journal, 0xff, sizeof(f->journal));
	f->t.size = whole;
	assert_false(acquire_row_open(&f->t));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_row),    TEST(many_openings),	TEST(anything_else),
	    TEST(first_page), TEST(what_is_no_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
