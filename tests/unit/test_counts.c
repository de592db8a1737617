/* SPDX-License-Identifier: MIT
 *
 * Records counted by the rows that came and went: as SQLite counts them, whatever was done.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/snapshot/content.h"
#include "scratch.h"

#define ROWS 20000
#define FILL                                                                            \
	"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %d) " \
	"INSERT INTO embeddings (segment_id, embedding_id, seq_id) "                    \
	"SELECT printf('%%08d-0000-0000-0000-000000000000', n %% 3), "                  \
	"'%s' || n, n FROM c"

struct moment {
	char *data;
	size_t size;
	struct file_source source;
};

struct fixture {
	struct scratch dir;
	sqlite3 *db;
	struct moment before, after;
	struct manifest earlier, now;
	uint64_t asked; /* bytes that were read of `after` */
	bool is_blind;	/* nothing is said to have changed */
	int verdict;
};

static struct fixture f;

static void run(const char *sql)
{
	assert_int_equal(sqlite3_exec(f.db, sql, NULL, NULL, NULL), SQLITE_OK);
}

static ssize_t read_counted(const struct file_source *source, void *out, size_t n, uint64_t offset)
{
	const struct moment *m = source->data;

	f.asked += n;
	memcpy(out, m->data + offset, n);
	return (ssize_t)n;
}

static void look(struct moment *m)
{
	int fd = openat(f.dir.fd, "db", O_RDONLY | O_CLOEXEC);

	free(m->data);
	assert_int_equal(file_read_all(fd, 64 << 20, &m->data, &m->size), 0);
	close(fd);
	m->source =
	    (struct file_source){.read = read_counted, .size = m->size, .data = m, .fd = -1};
}

static bool is_same(void *context, uint64_t offset, uint64_t length)
{
	(void)context;
	assert_true(offset + length <= f.before.size && offset + length <= f.after.size);
	return f.is_blind || !memcmp(f.before.data + offset, f.after.data + offset, (size_t)length);
}

static int judge(void *context)
{
	(void)context;
	return f.verdict;
}

static void note(struct manifest *m, const struct moment *moment, const struct counts_since *since)
{
	sqlite3 *db;

	manifest_free(m);
	content_note_header(m, &moment->source);
	assert_int_equal(database_open_source(&moment->source, &db), 0);
	f.asked = 0;
	assert_int_equal(content_note_database(m, db, since), 0);
	sqlite3_close(db);
}

/* Counts what is there now by what has changed, and as SQLite does. The bytes that it read. */
static uint64_t compare(void)
{
	struct counts_since since = {.earlier = &f.earlier,
				     .before = &f.before.source,
				     .now = &f.after.source,
				     .is_same = is_same,
				     .judge = judge};
	struct manifest all = {0};
	uint64_t asked;
	uint32_t i;

	look(&f.after);
	note(&f.now, &f.after, &since);
	asked = f.asked;
	note(&all, &f.after, NULL);
	assert_int_equal(all.collection_count, f.now.collection_count);
	for (i = 0; i < all.collection_count; i++) {
		assert_string_equal(all.collections[i].id, f.now.collections[i].id);
		assert_string_equal(all.collections[i].name, f.now.collections[i].name);
		assert_int_equal(all.collections[i].records, f.now.collections[i].records);
	}
	manifest_free(&all);
	return asked;
}

/* What is there now is the earlier one. */
static void begin(void)
{
	look(&f.before);
	note(&f.earlier, &f.before, NULL);
}

static int set_up(void **state)
{
	char path[96], sql[512];

	(void)state;
	f = (struct fixture){.is_blind = false};
	scratch_make_fast(&f.dir);
	snprintf(path, sizeof(path), "%s/db", f.dir.path);
	assert_int_equal(sqlite3_open(path, &f.db), SQLITE_OK);
	run("PRAGMA synchronous = OFF;"
	    "CREATE TABLE collections (id TEXT PRIMARY KEY, name TEXT);"
	    "CREATE TABLE segments (id TEXT PRIMARY KEY, collection TEXT);"
	    "CREATE TABLE embeddings (id INTEGER PRIMARY KEY, segment_id TEXT NOT NULL, "
	    "embedding_id TEXT NOT NULL, seq_id BLOB, UNIQUE (segment_id, embedding_id));"
	    "INSERT INTO collections VALUES ('a', 'first'), ('b', 'second');"
	    "INSERT INTO segments VALUES ('00000000-0000-0000-0000-000000000000', 'a'), "
	    "('00000001-0000-0000-0000-000000000000', 'b')");
	snprintf(sql, sizeof(sql), FILL, ROWS, "id");
	run(sql);
	begin();
	assert_int_equal(f.earlier.collections[0].records, ROWS / 3);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sqlite3_close(f.db);
	manifest_free(&f.earlier);
	manifest_free(&f.now);
	free(f.before.data);
	free(f.after.data);
	scratch_remove(&f.dir);
	return 0;
}

static void test_only_what_has_changed_is_read(void **state)
{
	char sql[512];

	(void)state;
	snprintf(sql, sizeof(sql), FILL, 300, "new");
	run(sql);
	run("DELETE FROM embeddings WHERE id BETWEEN 5000 AND 5009");
	assert_true(compare() < f.after.size / 8);
}

static void test_as_sqlite_counts(void **state)
{
	static const char *const steps[] = {
	    "DELETE FROM embeddings WHERE id %% 7 = %d",
	    "UPDATE embeddings SET seq_id = zeroblob(40) WHERE id %% 1000 = %d",
	    "UPDATE embeddings SET segment_id = '00000001-0000-0000-0000-000000000000' "
	    "WHERE id %% 900 = %d AND segment_id LIKE '00000000%%'",
	    "INSERT INTO embeddings (segment_id, embedding_id) SELECT segment_id, embedding_id || "
	    "'again' || abs(random()) FROM embeddings WHERE id %% 50 = %d",
	    "INSERT INTO embeddings (segment_id, embedding_id) VALUES "
	    "('00000000-0000-0000-0000-000000000000', hex(zeroblob(9000)) || %d)",
	    "DELETE FROM embeddings WHERE id > (SELECT max(id) - 400 + %d FROM embeddings)",
	};
	char sql[512];
	unsigned i;

	(void)state;
	for (i = 0; i < 24; i++) {
		snprintf(sql, sizeof(sql), steps[i % 6], (int)i);
		run(sql);
		compare();
	}
	run("DELETE FROM embeddings");
	compare();
	run("VACUUM");
	compare();
	snprintf(sql, sizeof(sql), FILL, 5, "id");
	run(sql);
	compare();
}

static void test_collections_that_change(void **state)
{
	static const char *const steps[] = {
	    "UPDATE collections SET name = 'another' WHERE id = 'b'",
	    "INSERT INTO collections VALUES ('c', 'third')",
	    "UPDATE segments SET collection = 'c' WHERE collection = 'a'",
	    "INSERT INTO segments VALUES ('00000002-0000-0000-0000-000000000000', 'b')",
	    "DELETE FROM segments WHERE collection = 'c'",
	    "DELETE FROM collections WHERE id = 'a'",
	    "ALTER TABLE embeddings ADD COLUMN more TEXT",
	};
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		begin();
		run(steps[i]);
		compare();
	}
}

/* What was read of the earlier one turns out to be of another moment. */
static void test_earlier_one_is_doubted(void **state)
{
	(void)state;
	run("DELETE FROM embeddings WHERE id % 2 = 0");
	f.is_blind = true;
	f.verdict = -ESTALE;
	assert_true(compare() > f.after.size / 8);
	f.is_blind = false;
	f.verdict = 0;
	compare();
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(only_what_has_changed_is_read),
					   TEST(as_sqlite_counts), TEST(collections_that_change),
					   TEST(earlier_one_is_doubted)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
