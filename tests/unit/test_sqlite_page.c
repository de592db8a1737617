/* SPDX-License-Identifier: MIT
 *
 * Page 1 and the freelist, of databases that SQLite itself made.
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

#include "core/sqlite/page.h"

struct image {
	char *data;
	size_t size;
	struct file_source source;
	struct sqlite_header header;
};

static char path[] = "/tmp/chromashim-page-XXXXXX";

/* The bytes of the database that `sql` makes. */
static void make(struct image *image, const char *sql)
{
	sqlite3 *db;
	int fd;

	unlink(path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(file_read_all(fd, 64 << 20, &image->data, &image->size), 0);
	close(fd);
	file_source_memory(&image->source, image->data, image->size);
	assert_int_equal(sqlite_header_parse(&image->header, image->data, image->size), 0);
}

static void test_header(void **state)
{
	struct image a, b;

	(void)state;
	make(&a, "PRAGMA page_size = 1024; PRAGMA user_version = 77; CREATE TABLE t(x)");
	assert_int_equal(a.header.page_size, 1024);
	assert_int_equal(a.header.user_version, 77);
	assert_int_equal(a.header.page_count, a.size / 1024);
	assert_int_equal(a.header.encoding, 1);
	assert_int_equal(a.header.write_version, 1);
	assert_int_equal(a.header.library_version, sqlite3_libversion_number());
	assert_true(sqlite_header_has_page_count(&a.header));
	make(&b, "PRAGMA page_size = 65536; PRAGMA journal_mode = wal; CREATE TABLE t(x);"
		 "CREATE TABLE u(x)");
	assert_int_equal(b.header.page_size, 65536);
	assert_int_equal(b.header.write_version, 2);
	assert_true(b.header.schema_cookie > a.header.schema_cookie);
	free(a.data);
	free(b.data);
}

static void test_bad_header(void **state)
{
	struct sqlite_header h;
	struct image a;

	(void)state;
	make(&a, "CREATE TABLE t(x)");
	assert_int_equal(sqlite_header_parse(&h, a.data, 99), -ENODATA);
	a.data[16] = 3;
	assert_int_equal(sqlite_header_parse(&h, a.data, a.size), -EBADMSG);
	a.data[16] = 0x10;
	a.data[21] = 63;
	assert_int_equal(sqlite_header_parse(&h, a.data, a.size), -EBADMSG);
	a.data[21] = 64;
	a.data[0] = 's';
	assert_int_equal(sqlite_header_parse(&h, a.data, a.size), -EBADMSG);
	free(a.data);
}

static int count_page(void *context, uint32_t page, bool is_trunk)
{
	unsigned *counts = context;

	assert_true(page >= 2);
	counts[is_trunk]++;
	return 0;
}

static void test_freelist(void **state)
{
	unsigned counts[2] = {0};
	struct image a;
	unsigned char *trunk;

	(void)state;
	make(&a, "PRAGMA page_size = 512; CREATE TABLE t(x);"
		 "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)"
		 "INSERT INTO t SELECT zeroblob(400) FROM n; DELETE FROM t");
	assert_true(a.header.freelist_count > 500);
	assert_int_equal(sqlite_freelist_walk(&a.header, &a.source, count_page, counts), 0);
	assert_int_equal(counts[0] + counts[1], a.header.freelist_count);
	assert_true(counts[1] > 3);

	/* a trunk that leads to itself */
	trunk = (unsigned char *)a.data + (size_t)(a.header.freelist_trunk - 1) * 512;
	trunk[0] = trunk[1] = 0;
	trunk[2] = (unsigned char)(a.header.freelist_trunk >> 8);
	trunk[3] = (unsigned char)a.header.freelist_trunk;
	assert_int_equal(sqlite_freelist_walk(&a.header, &a.source, NULL, NULL), -EBADMSG);
	trunk[0] = 0xff; /* out of the file */
	assert_int_equal(sqlite_freelist_walk(&a.header, &a.source, NULL, NULL), -EBADMSG);
	trunk[4] = 0xff; /* more leaves than fit */
	assert_int_equal(sqlite_freelist_walk(&a.header, &a.source, NULL, NULL), -EBADMSG);
	free(a.data);
}

static int remove_files(void **state)
{
	char name[sizeof(path) + 8];

	(void)state;
	unlink(path);
	snprintf(name, sizeof(name), "%s-wal", path);
	unlink(name);
	snprintf(name, sizeof(name), "%s-shm", path);
	unlink(name);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_header),
	    cmocka_unit_test(test_bad_header),
	    cmocka_unit_test(test_freelist),
	};
	int fd = mkstemp(path);

	if (fd < 0)
		return 1;
	close(fd);
	return cmocka_run_group_tests(tests, NULL, remove_files);
}
