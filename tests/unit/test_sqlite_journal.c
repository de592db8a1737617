/* SPDX-License-Identifier: MIT
 *
 * Rollback journals: one that SQLite left in the middle of a transaction, and hand-made ones.
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
#include <unistd.h>

#include "bytes.h"
#include "core/sqlite/journal.h"

static char directory[] = "/tmp/chromashim-journal-XXXXXX";
static char database[64], journal[72];

static void load(const char *path, struct bytes *out)
{
	char *data;
	size_t size;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(file_read_all(fd, 64 << 20, &data, &size), 0);
	close(fd);
	out->data = (unsigned char *)data;
	out->size = size;
}

static void run(sqlite3 *db, const char *sql)
{
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
}

/* Applied to the changed database, the journal of a spilled transaction gives the old one. */
static void test_rolls_back(void **state)
{
	struct bytes before, after, log;
	struct sqlite_journal j;
	struct sqlite_journal_record record;
	struct file_source source;
	unsigned records = 0;
	sqlite3 *db;
	int r;

	(void)state;
	assert_int_equal(sqlite3_open(database, &db), SQLITE_OK);
	run(db, "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
		" WHERE i < 3000) INSERT INTO t SELECT randomblob(200) FROM n");
	load(database, &before);
	run(db, "PRAGMA cache_size = 10; BEGIN; UPDATE t SET x = randomblob(200)");
	load(database, &after);
	load(journal, &log);
	assert_memory_not_equal(before.data, after.data, before.size);

	file_source_memory(&source, log.data, log.size);
	assert_true(sqlite_journal_is_hot(&source));
	assert_int_equal(sqlite_journal_open(&j, &source), 0);
	assert_int_equal(j.header.page_size, 4096);
	assert_int_equal(j.header.page_count, before.size / 4096);
	while ((r = sqlite_journal_next(&j, &record)) == 1) {
		records++;
		assert_in_range(record.page, 1, j.header.page_count);
		memcpy(after.data + (size_t)(record.page - 1) * 4096, record.data, 4096);
	}
	assert_int_equal(r, 0);
	assert_false(j.torn);
	assert_true(records > 100);
	assert_memory_equal(before.data, after.data, before.size);
	sqlite_journal_close(&j);
	run(db, "ROLLBACK");
	sqlite3_close(db);
	bytes_free(&before);
	bytes_free(&after);
	bytes_free(&log);
}

static void add_be(struct bytes *b, uint32_t value)
{
	unsigned char c[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
			      (unsigned char)(value >> 8), (unsigned char)value};

	bytes_add(b, c, 4);
}

static void add_header(struct bytes *b, uint32_t records)
{
	bytes_add(b, "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", 8);
	add_be(b, records);
	add_be(b, 7); /* nonce */
	add_be(b, 20);
	add_be(b, 512);
	add_be(b, 512);
	while (b->size % 512)
		bytes_le(b, 0, 1);
}

static void add_record(struct bytes *b, uint32_t page, uint32_t wrong)
{
	unsigned char data[512];

	memset(data, (int)page, sizeof(data));
	add_be(b, page);
	bytes_add(b, data, sizeof(data));
	add_be(b, sqlite_journal_checksum(7, data, 512) + wrong);
}

static unsigned count(const struct bytes *b, bool *torn)
{
	struct sqlite_journal j;
	struct sqlite_journal_record record;
	struct file_source source;
	unsigned n = 0;

	file_source_memory(&source, b->data, b->size);
	assert_int_equal(sqlite_journal_open(&j, &source), 0);
	while (sqlite_journal_next(&j, &record) == 1)
		n++;
	*torn = j.torn;
	sqlite_journal_close(&j);
	return n;
}

static void test_segments(void **state)
{
	struct bytes b = {0};
	size_t two;
	bool torn;

	(void)state;
	add_header(&b, 2);
	add_record(&b, 3, 0);
	add_record(&b, 4, 0);
	while (b.size % 512)
		bytes_le(&b, 0, 1);
	two = b.size;
	add_header(&b, SQLITE_JOURNAL_TO_END);
	add_record(&b, 5, 0);
	assert_int_equal(count(&b, &torn), 3);
	assert_false(torn);
	add_record(&b, 6, 1); /* wrong sum: the end, as for SQLite */
	add_record(&b, 7, 0);
	assert_int_equal(count(&b, &torn), 3);
	assert_true(torn);
	b.size = two;
	add_header(&b, 0); /* not synced yet: counts for nothing */
	add_record(&b, 5, 0);
	assert_int_equal(count(&b, &torn), 2);
	assert_false(torn);
	b.size = 512 + 520 + 100; /* the second counted record is cut */
	assert_int_equal(count(&b, &torn), 1);
	assert_true(torn);
	bytes_free(&b);
}

static void test_super(void **state)
{
	static const char name[] = "/data/a.db-mj12345ABC9";
	struct bytes b = {0};
	struct file_source source;
	char out[64];
	uint64_t start;
	uint32_t sum = 0;
	size_t i, size;
	bool torn;

	(void)state;
	add_header(&b, SQLITE_JOURNAL_TO_END);
	add_record(&b, 3, 0);
	size = b.size;
	add_be(&b, 0x40000000 / 512 + 1);
	for (i = 0; i < sizeof(name) - 1; i++)
		sum += (unsigned char)name[i];
	bytes_add(&b, name, sizeof(name) - 1);
	add_be(&b, sizeof(name) - 1);
	add_be(&b, sum);
	bytes_add(&b, "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", 8);
	file_source_memory(&source, b.data, b.size);
	assert_int_equal(sqlite_journal_super(&source, out, sizeof(out), &start), 1);
	assert_string_equal(out, name);
	assert_int_equal(start, size);
	assert_int_equal(sqlite_journal_super(&source, out, 5, &start), -ENAMETOOLONG);
	assert_int_equal(count(&b, &torn), 1);
	b.data[size + 5] ^= 1;
	assert_int_equal(sqlite_journal_super(&source, out, sizeof(out), &start), 0);
	bytes_free(&b);
}

static void test_no_journal(void **state)
{
	static const unsigned char zeros[4096];
	struct sqlite_journal_header h;
	struct sqlite_journal j;
	struct file_source source;
	struct bytes b = {0};

	(void)state;
	file_source_memory(&source, zeros, sizeof(zeros)); /* journal_mode PERSIST, finished */
	assert_false(sqlite_journal_is_hot(&source));
	assert_int_equal(sqlite_journal_open(&j, &source), -ENODATA);
	source.size = 0; /* TRUNCATE */
	assert_false(sqlite_journal_is_hot(&source));
	assert_int_equal(sqlite_journal_open(&j, &source), -ENODATA);
	add_header(&b, 1);
	b.data[22] = 0xff; /* sector size */
	assert_int_equal(sqlite_journal_header_parse(&h, b.data, b.size), -EBADMSG);
	bytes_free(&b);
}

static int remove_files(void **state)
{
	(void)state;
	unlink(database);
	unlink(journal);
	rmdir(directory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rolls_back),
	    cmocka_unit_test(test_segments),
	    cmocka_unit_test(test_super),
	    cmocka_unit_test(test_no_journal),
	};

	if (!mkdtemp(directory))
		return 1;
	snprintf(database, sizeof(database), "%s/db", directory);
	snprintf(journal, sizeof(journal), "%s/db-journal", directory);
	return cmocka_run_group_tests(tests, NULL, remove_files);
}
