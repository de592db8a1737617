/* SPDX-License-Identifier: MIT
 *
 * The write-ahead log, of a database that SQLite has open.
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

#include "core/sqlite/wal.h"

static char directory[] = "/tmp/chromashim-wal-XXXXXX";
static char database[64], wal[72];

static void run(sqlite3 *db, const char *sql)
{
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
}

static void load(char **data, struct file_source *source)
{
	size_t size;
	int fd = open(wal, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(file_read_all(fd, 64 << 20, data, &size), 0);
	close(fd);
	file_source_memory(source, *data, size);
}

static void walk(const struct file_source *source, struct sqlite_wal *out)
{
	struct sqlite_wal_frame frame;
	int r;

	assert_int_equal(sqlite_wal_open(out, source), 0);
	while ((r = sqlite_wal_next(out, &frame)) == 1)
		assert_true(frame.page > 0);
	assert_int_equal(r, 0);
	sqlite_wal_close(out);
}

static void test_frames(void **state)
{
	struct file_source source;
	struct sqlite_wal w, cut;
	char *data;
	sqlite3 *db;

	(void)state;
	assert_int_equal(sqlite3_open(database, &db), SQLITE_OK);
	run(db, "PRAGMA journal_mode = wal; CREATE TABLE t(x)");
	run(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
		"INSERT INTO t SELECT randomblob(100) FROM n");
	load(&data, &source);
	walk(&source, &w);
	assert_int_equal(w.header.page_size, 4096);
	assert_int_equal((source.size - 32) / (24 + 4096), w.frames);
	assert_int_equal(w.committed, w.frames);
	assert_true(w.page_count > 5);

	/* a flipped bit ends it there */
	data[32 + 3 * (24 + 4096) + 2000] ^= 1;
	walk(&source, &cut);
	assert_int_equal(cut.frames, 3);
	assert_true(cut.committed <= 3);
	source.size = 32 + 24 + 4096 - 1;
	walk(&source, &cut);
	assert_int_equal(cut.frames, 0);
	free(data);

	/* frames of a transaction that spilled but was not committed do not count */
	run(db, "PRAGMA cache_size = 5; BEGIN; UPDATE t SET x = randomblob(3000)");
	load(&data, &source);
	walk(&source, &cut);
	assert_int_equal(cut.committed, w.committed);
	assert_true(cut.frames >= w.frames); /* sums of spilled frames come late */
	free(data);
	run(db, "ROLLBACK");
	sqlite3_close(db);
}

static int goes_on(const struct file_source *source)
{
	struct sqlite_wal_pages p;
	bool found;

	assert_int_equal(sqlite_wal_pages(&p, source), 0);
	found = p.goes_on;
	free(p.pages);
	return found;
}

/* What was committed behind wrong sums is told from what was not committed, and from older logs. */
static void test_goes_on(void **state)
{
	struct file_source source;
	struct sqlite_wal w;
	char *data;
	sqlite3 *db;
	size_t frame;

	(void)state;
	assert_int_equal(sqlite3_open(database, &db), SQLITE_OK);
	run(db, "PRAGMA journal_mode = wal; CREATE TABLE s(x)");
	run(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
		"INSERT INTO s SELECT randomblob(1000) FROM n; UPDATE s SET x = 1 WHERE rowid = 9");
	load(&data, &source);
	walk(&source, &w);
	assert_false(goes_on(&source));
	for (frame = 0; frame < w.frames; frame += 5) {
		char *sum = data + 32 + frame * (24 + 4096) + 16;

		*sum ^= 1;
		assert_true(goes_on(&source));
		*sum ^= 1;
	}
	memset(data + 32 + (w.frames - 3) * (24 + 4096) + 8, 0, 16); /* never given a sum */
	assert_true(goes_on(&source));
	data[32 + (w.frames - 2) * (24 + 4096) + 8] ^= 1; /* the salt: of another log */
	assert_false(goes_on(&source));
	free(data);

	run(db, "PRAGMA cache_size = 5; BEGIN; UPDATE s SET x = randomblob(900); ROLLBACK");
	load(&data, &source);
	assert_true(source.size / (24 + 4096) > w.frames);
	assert_false(goes_on(&source));
	free(data);

	run(db, "PRAGMA wal_checkpoint(RESTART); INSERT INTO s VALUES (1)");
	load(&data, &source);
	walk(&source, &w);
	assert_true(source.size / (24 + 4096) > w.frames);
	assert_false(goes_on(&source));
	free(data);
	sqlite3_close(db);
}

static void test_bad_header(void **state)
{
	struct sqlite_wal_header h;
	unsigned char raw[32] = {0x37, 0x7f, 0x06, 0x82, 0, 0x2d, 0xe2, 0x18, 0, 0, 16, 0};
	uint32_t sum[2] = {0, 0};
	int i;

	(void)state;
	sqlite_wal_checksum(sum, false, raw, 24);
	for (i = 0; i < 4; i++) {
		raw[24 + i] = (unsigned char)(sum[0] >> (24 - 8 * i));
		raw[28 + i] = (unsigned char)(sum[1] >> (24 - 8 * i));
	}
	assert_int_equal(sqlite_wal_header_parse(&h, raw, 32), 0);
	assert_int_equal(h.page_size, 4096);
	assert_int_equal(sqlite_wal_header_parse(&h, raw, 31), -ENODATA);
	raw[12] ^= 1;
	assert_int_equal(sqlite_wal_header_parse(&h, raw, 32), -EBADMSG);
	raw[7] = 0;
	assert_int_equal(sqlite_wal_header_parse(&h, raw, 32), -EPROTONOSUPPORT);
	raw[0] = 0;
	assert_int_equal(sqlite_wal_header_parse(&h, raw, 32), -EBADMSG);
}

static int remove_files(void **state)
{
	char shm[80];

	(void)state;
	snprintf(shm, sizeof(shm), "%s-shm", database);
	unlink(database);
	unlink(wal);
	unlink(shm);
	rmdir(directory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_frames),
	    cmocka_unit_test(test_goes_on),
	    cmocka_unit_test(test_bad_header),
	};

	if (!mkdtemp(directory))
		return 1;
	snprintf(database, sizeof(database), "%s/db", directory);
	snprintf(wal, sizeof(wal), "%s/db-wal", directory);
	return cmocka_run_group_tests(tests, NULL, remove_files);
}
