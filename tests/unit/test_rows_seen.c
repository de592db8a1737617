/* SPDX-License-Identifier: MIT
 *
 * Transactions that SQLite makes on tables like Chroma's, as their pages tell of them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sqlite3.h>

#include "core/base/fileio.h"
#include "core/chroma/rows_seen.h"
#include "scratch.h"

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
#define PAGE 4096u
#define SECTOR 512u
#define A "aaaaaaaa-0000-0000-0000-00000000000a"
#define B "bbbbbbbb-0000-0000-0000-00000000000b"
#define DATABASE_ID "00000000-0000-0000-0000-000000000000"

struct image {
	unsigned char *bytes;
	size_t size;
};

struct fixture {
	struct scratch dir;
	sqlite3 *db;
	struct rows_seen seen;
	struct rows_roots roots;
	struct rows_highest highest;
	struct image before;
	char events[1024]; /* as text, one after the other */
};

static void run(struct fixture *f, const char *sql)
{
	char *error = NULL;

	if (sqlite3_exec(f->db, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
}

static struct image load(struct fixture *f, const char *name)
{
	struct image image = {NULL, 0};
	int fd = openat(f->dir.fd, name, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return image;
	assert_int_equal(fstat(fd, &st), 0);
	image.size = (size_t)st.st_size;
	image.bytes = malloc(image.size + 1);
	assert_int_equal(pread(fd, image.bytes, image.size, 0), image.size);
	close(fd);
	return image;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char path[128];

	scratch_make(&f->dir);
	snprintf(path, sizeof(path), "%s/db", f->dir.path);
	if (sqlite3_open(path, &f->db) != SQLITE_OK)
		return -1;
	run(f, "PRAGMA page_size = 4096; PRAGMA secure_delete = OFF;"
	       "CREATE TABLE embeddings_queue (seq_id INTEGER PRIMARY KEY, created_at TIMESTAMP "
	       "NOT NULL DEFAULT CURRENT_TIMESTAMP, operation INTEGER NOT NULL, topic TEXT NOT "
	       "NULL, id TEXT NOT NULL, vector BLOB, encoding TEXT, metadata TEXT);"
	       "CREATE TABLE collections (id TEXT PRIMARY KEY, name TEXT NOT NULL, dimension "
	       "INTEGER, database_id TEXT NOT NULL, config_json_str TEXT, schema_str TEXT);"
	       "CREATE TABLE segments (id TEXT PRIMARY KEY, type TEXT NOT NULL, scope TEXT NOT "
	       "NULL, collection TEXT NOT NULL);"
	       "CREATE TABLE migrations (dir TEXT NOT NULL, version INTEGER NOT NULL, filename "
	       "TEXT NOT NULL, sql TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (dir, version));"
	       "CREATE TABLE fill (n);");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sqlite3_close(f->db);
	scratch_remove(&f->dir);
	free(f->before.bytes);
	free(f);
	return 0;
}

static void on_event(void *context, const struct rows_event *e)
{
	static const char *const kinds[] = {"created", "renamed", "configured",
					    "deleted", "segment", "migration"};
	struct fixture *f = context;
	size_t n = strlen(f->events);

	snprintf(f->events + n, sizeof(f->events) - n, "%s%s %.*s %.*s", n ? "; " : "",
		 kinds[e->kind], (int)e->name.size, e->name.bytes, (int)e->other.size,
		 e->other.bytes ? e->other.bytes : "");
}

static uint8_t plain_id(void *context, const void *id, size_t size, unsigned char *out)
{
	(void)context;
	if (size > 255)
		return 0;
	memcpy(out, id, size);
	return (uint8_t)size;
}

static uint32_t get32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* As the journal has them; it is not synced yet. */
static void tell_old(struct fixture *f)
{
	struct image journal = load(f, "db-journal");
	size_t at;

	for (at = SECTOR; at + PAGE + 8 <= journal.size; at += PAGE + 8)
		if (get32(journal.bytes + at) != 0)
			rows_page(&f->seen, journal.bytes + at + 4, PAGE, true);
	free(journal.bytes);
}

static void begin(struct fixture *f)
{
	struct file_source source;

	free(f->before.bytes);
	f->before = load(f, "db");
	file_source_memory(&source, f->before.bytes, f->before.size);
	assert_true(rows_read(&f->seen, &source, &f->roots, &f->highest));
	rows_begin(&f->seen, &f->highest);
	f->events[0] = '\0';
	f->seen.event = on_event;
	f->seen.id = plain_id;
	f->seen.context = f;
	run(f, "BEGIN");
}

static void commit(struct fixture *f)
{
	struct file_source source;
	struct image after;
	size_t at;

	tell_old(f);
	file_source_memory(&source, f->before.bytes, f->before.size);
	rows_before(&f->seen, &source, &f->roots, false);
	run(f, "COMMIT");
	after = load(f, "db");
	for (at = PAGE; at + PAGE <= after.size; at += PAGE)
		if (at + PAGE > f->before.size ||
		    memcmp(after.bytes + at, f->before.bytes + at, PAGE) != 0)
			rows_page(&f->seen, after.bytes + at, PAGE, false);
	file_source_memory(&source, after.bytes, after.size);
	rows_committed(&f->seen, &source, &f->roots, false, &f->highest);
	free(after.bytes);
}

static void transaction(struct fixture *f, const char *sql)
{
	begin(f);
	run(f, sql);
	commit(f);
}

/* n rows, each of size bytes. */
static void put(struct fixture *f, const char *collection, unsigned operation, unsigned n,
		unsigned size)
{
	char *sql = sqlite3_mprintf(
	    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u) INSERT "
	    "INTO embeddings_queue (operation, topic, id, vector) SELECT %u, "
	    "'persistent://default/default/%s', 'id-' || i, zeroblob(%u) FROM n",
	    n, operation, collection, size);

	run(f, sql);
	sqlite3_free(sql);
}

static const struct rows_topic *topic(const struct fixture *f, const char *collection)
{
	uint32_t i;

	for (i = 0; i < f->seen.topics_count; i++)
		if (memcmp(f->seen.topics[i].id, collection, 36) == 0)
			return &f->seen.topics[i];
	return NULL;
}

static void expect_rows(const struct fixture *f, const char *collection, unsigned operation,
			uint32_t n, int64_t first)
{
	const struct rows_topic *t = topic(f, collection);
	unsigned i;

	assert_non_null(t);
	assert_int_equal(t->count, n);
	for (i = 0; i < ROWS_OPERATIONS; i++)
		assert_int_equal(t->by_operation[i], i == operation ? n : 0);
	assert_int_equal(t->first, n ? first : 0);
	assert_int_equal(t->last, n ? first + n - 1 : 0);
	assert_false(f->seen.more);
}

static uint32_t purged(const struct fixture *f, const char *collection)
{
	const struct rows_topic *t = topic(f, collection);

	assert_true(f->seen.is_old_known);
	return t ? t->old - t->left + t->gone : 0;
}

/* ---- the queue ---- */

static void test_one_row(void **state)
{
	struct fixture *f = *state;

	begin(f);
	put(f, A, 2, 1, 1536);
	commit(f);
	expect_rows(f, A, 2, 1, 1);
	assert_int_equal(f->highest.row[ROWS_QUEUE], 1);
	assert_int_equal(f->seen.ids_size, 3 + 4);
	assert_memory_equal(f->seen.ids, "\0\2\4id-1", 7);
	assert_int_equal(purged(f, A), 0);
}

/* Rows of every size, with overflow pages and without: each commit has its own, and no other's. */
static void test_row_after_row(void **state)
{
	struct fixture *f = *state;
	static const unsigned sizes[] = {0, 100, 1536, 3900, 4096, 12288};
	int64_t next = 1;
	unsigned i, k;

	for (i = 0; i < 6; i++)
		for (k = 0; k < 40; k++) {
			unsigned n = 1 + k % 5;

			begin(f);
			put(f, k % 3 ? A : B, k % 4, n, sizes[i]);
			commit(f);
			expect_rows(f, k % 3 ? A : B, k % 4, n, next);
			assert_int_equal(purged(f, A), 0);
			assert_int_equal(purged(f, B), 0);
			next += n;
		}
}

static void test_many_rows(void **state)
{
	struct fixture *f = *state;

	begin(f);
	put(f, A, 0, 5000, 1536);
	put(f, B, 3, 700, 0);
	commit(f);
	expect_rows(f, A, 0, 5000, 1);
	expect_rows(f, B, 3, 700, 5001);
	assert_true(topic(f, A)->ids > 1000);
}

/* The pages of rows that are gone are free, and were never saved. */
static void test_purge(void **state)
{
	struct fixture *f = *state;

	begin(f);
	put(f, A, 0, 1000, 1536);
	commit(f);
	begin(f);
	put(f, B, 0, 300, 1536);
	commit(f);
	begin(f);
	put(f, A, 0, 300, 1536);
	commit(f);
	transaction(f, "DELETE FROM embeddings_queue WHERE seq_id < 1500 AND topic LIKE '%" A "'");
	assert_int_equal(purged(f, A), 1000 + 199);
	assert_int_equal(purged(f, B), 0);
	assert_int_equal(topic(f, A)->old_first, 1);
	assert_int_equal(topic(f, A)->left_first, 1500);
	assert_int_equal(topic(f, A)->count, 0);
	transaction(f, "DELETE FROM embeddings_queue WHERE topic LIKE '%" B "'");
	assert_int_equal(purged(f, B), 300);
	assert_int_equal(purged(f, A), 0);
}

/* Numbers begin anew when the last rows are gone. */
static void test_numbers_begin_anew(void **state)
{
	struct fixture *f = *state;

	begin(f);
	put(f, A, 0, 900, 1536);
	commit(f);
	transaction(f, "DELETE FROM embeddings_queue WHERE topic LIKE '%" A "'");
	assert_int_equal(purged(f, A), 900);
	assert_int_equal(f->highest.row[ROWS_QUEUE], 0);
	begin(f);
	put(f, B, 1, 3, 10);
	commit(f);
	expect_rows(f, B, 1, 3, 1);
}

static void test_rows_that_come_and_go(void **state)
{
	struct fixture *f = *state;

	begin(f);
	put(f, A, 2, 50, 1536);
	commit(f);
	begin(f);
	put(f, A, 2, 400, 1536);
	run(f, "DELETE FROM embeddings_queue WHERE seq_id < 440 AND topic LIKE '%" A "'");
	commit(f);
	expect_rows(f, A, 2, 400, 51);
	assert_int_equal(topic(f, A)->gone, 440 - 51);
	assert_int_equal(purged(f, A), 439);
}

static void test_savepoint(void **state)
{
	struct fixture *f = *state;

	run(f, "PRAGMA cache_size = 10");
	begin(f);
	put(f, A, 0, 5, 1536);
	run(f, "SAVEPOINT s");
	put(f, B, 3, 500, 1536);
	run(f, "ROLLBACK TO s");
	put(f, A, 0, 2, 1536);
	commit(f);
	expect_rows(f, A, 0, 7, 1);
	assert_true(!topic(f, B) || !topic(f, B)->count);
}

/* Only a few: the parent page is all that is saved. */
static void test_without_a_saved_page(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	for (i = 0; i < 30; i++) {
		begin(f);
		put(f, A, 0, 1, 3000);
		commit(f);
		expect_rows(f, A, 0, 1, i + 1);
	}
}

static void test_other_tables(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	transaction(f, "INSERT INTO fill VALUES (zeroblob(30000)), ('persistent://a/b/" A "')");
	for (i = 0; i < ROWS_TABLES; i++)
		assert_false(f->seen.is_touched[i]);
}

/* ---- collections ---- */

static void expect_events(struct fixture *f, const char *sql, const char *events)
{
	transaction(f, sql);
	assert_string_equal(f->events, events);
}

static void test_collections(void **state)
{
	struct fixture *f = *state;

	expect_events(f,
		      "INSERT INTO collections VALUES ('" A "', 'first', NULL, '" DATABASE_ID
		      "', '{}', NULL);"
		      "INSERT INTO segments VALUES ('" B "', 'urn:chroma:x', 'VECTOR', '" A "')",
		      "created first ; segment " B " VECTOR");
	expect_events(f, "UPDATE collections SET name = 'another'", "renamed another first");
	expect_events(f, "UPDATE collections SET dimension = 384", "configured another ");
	assert_int_equal(f->seen.olds[0].name_size, 7);
	expect_events(f, "UPDATE collections SET schema_str = '{\"x\": 1}'", "configured another ");
	expect_events(f, "UPDATE collections SET name = name", "");
	expect_events(f, "DELETE FROM collections", "deleted another ");
}

/* Of many, whose rows go from page to page. */
static void test_many_collections(void **state)
{
	struct fixture *f = *state;
	char sql[400], events[64];
	unsigned i;

	for (i = 0; i < 120; i++) {
		snprintf(sql, sizeof(sql),
			 "INSERT INTO collections VALUES ('%08x-0000-0000-0000-000000000000', "
			 "'n%u', NULL, '" DATABASE_ID "', hex(zeroblob(%u)), NULL)",
			 i * 2654435761u, i, i % 7 * 200);
		snprintf(events, sizeof(events), "created n%u ", i);
		expect_events(f, sql, events);
	}
	for (i = 0; i < 120; i += 1 + i % 2) {
		snprintf(sql, sizeof(sql), "DELETE FROM collections WHERE name = 'n%u'", i);
		snprintf(events, sizeof(events), "deleted n%u ", i);
		expect_events(f, sql, events);
	}
}

static void test_migrations(void **state)
{
	struct fixture *f = *state;

	expect_events(f,
		      "INSERT INTO migrations VALUES ('sysdb', 1, '00001-a.sqlite.sql', 'x', 'y'),"
		      "('sysdb', 2, '00002-b.sqlite.sql', hex(zeroblob(9000)), 'y')",
		      "migration sysdb 00001-a.sqlite.sql; migration sysdb 00002-b.sqlite.sql");
	expect_events(f,
		      "INSERT INTO migrations VALUES ('metadb', 1, '00001-c.sqlite.sql', 'x', 'y')",
		      "migration metadb 00001-c.sqlite.sql");
}

/* ---- what is damaged ---- */

/* Each byte of the queue's pages in turn is another one: an end, and nothing beyond the room. */
static void test_damage(void **state)
{
	struct fixture *f = *state;
	struct file_source source;
	struct image image;
	size_t at;

	begin(f);
	put(f, A, 0, 400, 300);
	commit(f);
	image = load(f, "db");
	file_source_memory(&source, image.bytes, image.size);
	for (at = 0; at < image.size; at += 1 + at % 89) {
		unsigned char was = image.bytes[at];

		image.bytes[at] ^= (unsigned char)(1 + at % 255);
		if (rows_read(&f->seen, &source, &f->roots, &f->highest)) {
			rows_begin(&f->seen, &(struct rows_highest){{0}});
			rows_page(&f->seen, image.bytes + at / PAGE * PAGE, PAGE, at % 2);
			rows_before(&f->seen, &source, &f->roots, true);
			f->seen.is_touched[ROWS_QUEUE] = true;
			rows_committed(&f->seen, &source, &f->roots, false, &f->highest);
			assert_true(f->seen.topics_count <= ROWS_TOPICS);
			assert_true(f->seen.ids_size <= ROWS_IDS);
		}
		image.bytes[at] = was;
	}
	free(image.bytes);
}

/* A page that leads to itself. */
static void test_loop(void **state)
{
	struct fixture *f = *state;
	struct file_source source;
	unsigned char *root;

	begin(f);
	put(f, A, 0, 400, 300);
	commit(f);
	begin(f);
	run(f, "COMMIT");
	root = f->before.bytes + (size_t)(f->roots.root[ROWS_QUEUE] - 1) * PAGE;
	assert_int_equal(root[0], 5);
	memcpy(root + 8, (unsigned char[]){0, 0, 0, (unsigned char)f->roots.root[ROWS_QUEUE]}, 4);
	file_source_memory(&source, f->before.bytes, f->before.size);
	assert_true(rows_read(&f->seen, &source, &f->roots, &f->highest));
	assert_int_equal(f->highest.row[ROWS_QUEUE], ROWS_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_row),
	    TEST(row_after_row),
	    TEST(many_rows),
	    TEST(purge),
	    TEST(numbers_begin_anew),
	    TEST(rows_that_come_and_go),
	    TEST(savepoint),
	    TEST(without_a_saved_page),
	    TEST(other_tables),
	    TEST(collections),
	    TEST(many_collections),
	    TEST(migrations),
	    TEST(damage),
	    TEST(loop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
