/* SPDX-License-Identifier: MIT
 *
 * Rows of databases that SQLite made, read from their pages.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/sqlite/tree.h"

#define ROWS 300

static char path[] = "/tmp/chromashim-tree-XXXXXX";

struct image {
	unsigned char *data;
	size_t size;
	uint32_t page_size;
	unsigned char seen[ROWS + 1];
	uint64_t overflowed;
};

/* Row n has n in all types, and a text of (n * 37) % 9000 bytes. */
static void make(struct image *image, uint32_t page_size)
{
	char sql[512], *data;
	sqlite3 *db;
	int fd;

	unlink(path);
	snprintf(
	    sql, sizeof(sql),
	    "PRAGMA page_size = %u; CREATE TABLE t(id INTEGER PRIMARY KEY, i, r REAL, s, b, n);"
	    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %d) "
	    "INSERT INTO t SELECT n, CASE n %% 3 WHEN 0 THEN n WHEN 1 THEN -n * 1000000 ELSE n "
	    "<< 40 END, n / 7.0, substr(hex(zeroblob(4500)), 1, (n * 37) %% 9000), "
	    "CAST(n AS BLOB), NULL FROM c",
	    page_size, ROWS);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	*image = (struct image){.page_size = page_size};
	assert_int_equal(file_read_all(fd, 64 << 20, &data, &image->size), 0);
	image->data = (unsigned char *)data;
	close(fd);
}

static void check_row(struct image *image, int64_t n, const struct sqlite_record *r)
{
	int64_t i = n % 3 == 0 ? n : n % 3 == 1 ? -n * 1000000 : n * (INT64_C(1) << 40);
	char text[16];

	assert_in_range(n, 1, ROWS);
	assert_int_equal(r->columns, 6);
	assert_int_equal(r->values[0].type, SQLITE_VALUE_NULL);
	assert_int_equal(r->values[1].integer, i);
	if (r->values[2].type == SQLITE_VALUE_FLOAT)
		assert_true(r->values[2].real == (double)n / 7.0);
	else
		assert_int_equal(r->values[2].integer * 7, n);
	assert_int_equal(r->values[3].type, SQLITE_VALUE_TEXT);
	assert_int_equal(r->values[3].size, (uint64_t)(n * 37) % 9000);
	for (i = 0; i < (int64_t)r->values[3].size; i++)
		assert_int_equal(r->values[3].bytes[i], '0');
	snprintf(text, sizeof(text), "%lld", (long long)n);
	assert_int_equal(r->values[4].size, strlen(text));
	assert_memory_equal(r->values[4].bytes, text, strlen(text));
	assert_int_equal(r->values[5].type, SQLITE_VALUE_NULL);
	image->seen[n]++;
}

/* Every row of a leaf that can be read. Returns how many cannot. */
static unsigned read_all(struct image *image, uint64_t budget)
{
	struct sqlite_record_reader reader;
	struct sqlite_record record;
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	struct file_source source;
	unsigned failed = 0;
	uint32_t number, i, size = image->page_size;

	file_source_memory(&source, image->data, image->size);
	sqlite_record_reader_open(&reader, &source, size, size, budget);
	for (number = 1; number <= image->size / size; number++) {
		const unsigned char *bytes = image->data + (size_t)(number - 1) * size;

		if (sqlite_tree_page_parse(&page, bytes, size, size, number) < 0 ||
		    page.kind != SQLITE_TABLE_LEAF || number == 1)
			continue;
		for (i = 0; i < page.cells; i++) {
			assert_int_equal(sqlite_tree_cell(&page, i, &cell), 0);
			image->overflowed += cell.overflow != 0;
			if (sqlite_record_read(&reader, &cell, &record) < 0)
				failed++;
			else
				check_row(image, cell.rowid, &record);
		}
	}
	sqlite_record_reader_close(&reader);
	return failed;
}

static void test_every_page_size(void **state)
{
	uint32_t size, n;
	struct image image;

	(void)state;
	for (size = 512; size <= 65536; size *= 2) {
		make(&image, size);
		assert_int_equal(read_all(&image, 100000), 0);
		for (n = 1; n <= ROWS; n++)
			assert_int_equal(image.seen[n], 1);
		assert_int_equal(image.overflowed > 0, size <= 8192);
		free(image.data);
	}
}

/* Chains that lead to themselves, out of the file, to zeros, or on beyond their end. */
static void test_broken_chains(void **state)
{
	static const uint32_t to[] = {0, 1, 2, UINT32_MAX};
	struct image image;
	uint32_t i, at;

	(void)state;
	for (i = 0; i < sizeof(to) / sizeof(to[0]) + 1; i++) {
		make(&image, 1024);
		for (at = 1024; at < image.size; at += 1024) {
			unsigned char *p = image.data + at;
			uint32_t next = i < 4 ? to[i] : at / 1024 + 1;

			if (p[0] != 0)
				continue; /* pages of the tree begin with their kind */
			p[0] = (unsigned char)(next >> 24);
			p[1] = (unsigned char)(next >> 16);
			p[2] = (unsigned char)(next >> 8);
			p[3] = (unsigned char)next;
			if (i == 0)
				memset(p, 0, 1024);
		}
		assert_true(read_all(&image, 100000) > ROWS / 2);
		free(image.data);
	}
	make(&image, 1024); /* all that has overflowed costs */
	assert_true(read_all(&image, 100) > ROWS / 2);
	free(image.data);
}

/* A page of which the end is missing: what is there can be read. */
static void test_torn_page(void **state)
{
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	struct image image;
	uint32_t i, good = 0, have = 3000;

	(void)state;
	make(&image, 4096);
	for (i = 4096; i < image.size && image.data[i] != SQLITE_TABLE_LEAF; i += 4096)
		;
	assert_int_equal(sqlite_tree_page_parse(&page, image.data + i, have, 4096, 2), 0);
	for (i = 0; i < page.cells; i++) {
		int r = sqlite_tree_cell(&page, i, &cell);

		assert_true(r == 0 || r == -ENODATA || r == -EBADMSG);
		if (r == 0)
			assert_true(cell.end <= have);
		good += r == 0;
	}
	assert_true(good < page.cells);
	free(image.data);
}

static void test_no_page(void **state)
{
	unsigned char bytes[512] = {13};
	struct sqlite_tree_page page;
	struct sqlite_record record;

	(void)state;
	assert_int_equal(sqlite_tree_page_parse(&page, bytes, 4, 512, 2), -ENODATA);
	bytes[4] = 255; /* more cells than there is room for */
	bytes[5] = 1;
	assert_int_equal(sqlite_tree_page_parse(&page, bytes, 512, 512, 2), -EBADMSG);
	bytes[0] = 7;
	assert_int_equal(sqlite_tree_page_parse(&page, bytes, 512, 512, 2), -EBADMSG);
	/* header of 3 bytes, a text of 4 and a reserved type; then one that does not add up */
	assert_int_equal(sqlite_record_parse(&record, (const unsigned char *)"\3\25\12abcd", 7, 7),
			 -EBADMSG);
	assert_int_equal(sqlite_record_parse(&record, (const unsigned char *)"\2\25abcd", 6, 7),
			 -EBADMSG);
	assert_int_equal(sqlite_record_parse(&record, (const unsigned char *)"\2\25abcd", 6, 6), 0);
}

static int set_up(void **state)
{
	(void)state;
	close(mkstemp(path));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_page_size),
	    cmocka_unit_test(test_broken_chains),
	    cmocka_unit_test(test_torn_page),
	    cmocka_unit_test(test_no_page),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
