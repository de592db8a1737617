/* SPDX-License-Identifier: MIT
 *
 * The log in numbers: a known log in, known numbers out.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "command/digest/digest.h"

#define MS UINT64_C(1000000)
#define DATABASE "chroma.sqlite3"
#define SEGMENT "2cbbe4b1-8adb-4531-84e9-c2c0db676440"

static struct oplog_header process = {.pid = 7, .start_ticks = 9, .features = OPLOG_HAS_WRITER};

static int set_up(void **state)
{
	*state = digest_new();
	return *state ? 0 : -1;
}

static int tear_down(void **state)
{
	digest_free(*state);
	return 0;
}

static void add(struct digest *d, uint64_t ms, struct oplog_entry e)
{
	e.time = UINT64_C(1000000000000) + ms * MS;
	e.header = e.header ? e.header : &process;
	e.tid = e.tid ? e.tid : 1;
	e.kind = e.name && !e.kind ? OPLOG_NAME_FILE : e.kind;
	e.text = e.text ? e.text : "";
	assert_int_equal(digest_add(d, &e), 0);
}

static void put_write(struct digest *d, uint64_t ms, const char *name, int64_t offset, int64_t size)
{
	add(d, ms,
	    (struct oplog_entry){.op = OP_PWRITE,
				 .name = name,
				 .offset = offset,
				 .length = (uint64_t)size,
				 .result = size,
				 .duration = 1000});
}

/* ---- files ---- */

static void test_files(void **state)
{
	struct digest *d = *state;
	const struct digest_row *row;

	put_write(d, 0, "a", 0, 100);
	put_write(d, 1, "b", 0, 10);
	put_write(d, 2, "a", 50, 100);
	add(d, 3, (struct oplog_entry){.op = OP_FSYNC, .name = "a", .duration = 5 * MS});
	add(d, 4, (struct oplog_entry){.op = OP_PWRITE, .name = "a", .result = -ENOSPC});
	add(d, 5, (struct oplog_entry){.op = OP_PWRITE, .name = "a", .in_flight = true});
	row = digest_find(d, DIGEST_FILES, "a");
	assert_non_null(row);
	assert_int_equal(row->written, 200);
	assert_int_equal(row->writes, 2);
	assert_int_equal(row->syncs, 1);
	assert_int_equal(row->sync_ns, 5 * MS);
	assert_false(row->size_known);
	assert_int_equal(row->grown, 0);
	assert_int_equal(d->written, 210);
	assert_int_equal(d->in_flight, 1);
	assert_int_equal(d->op_failed[OP_PWRITE], 1);
	assert_int_equal(d->ops[OP_PWRITE].count, 4);
	assert_int_equal(d->sync.count, 1);
	assert_int_equal(d->entries, 6);
	assert_null(digest_find(d, DIGEST_FILES, "c"));
}

/* Growth is counted once the size is known, and only beyond it. */
static void test_growth(void **state)
{
	struct digest *d = *state;
	const struct digest_row *row;

	put_write(d, 0, "a", 5000, 100);
	add(d, 1, (struct oplog_entry){.op = OP_FTRUNCATE, .name = "a", .length = 1000});
	put_write(d, 2, "a", 900, 100);
	put_write(d, 3, "a", 900, 200);
	add(d, 4, (struct oplog_entry){.op = OP_OPEN, .name = "b", .arg = O_CREAT | O_TRUNC});
	put_write(d, 5, "b", 0, 70);
	add(d, 6, (struct oplog_entry){.op = OP_RENAME, .name = "b", .name2 = "c"});
	put_write(d, 7, "c", 70, 30);
	row = digest_find(d, DIGEST_FILES, "a");
	assert_int_equal(row->grown, 100);
	assert_int_equal(row->size, 1100);
	assert_int_equal(digest_find(d, DIGEST_FILES, "b")->grown, 0);
	assert_int_equal(digest_find(d, DIGEST_FILES, "b")->size, 0);
	assert_int_equal(digest_find(d, DIGEST_FILES, "c")->grown, 100);
	assert_int_equal(digest_find(d, DIGEST_FILES, "c")->size, 100);
	/* What comes and goes does not grow. */
	add(d, 8, (struct oplog_entry){.op = OP_UNLINK, .name = "c"});
	assert_int_equal(digest_find(d, DIGEST_FILES, "c")->grown, 0);
}

/* However long the log is, every byte is in some bucket, and none is lost as they get wider. */
static void test_buckets(void **state)
{
	struct digest *d = *state;
	const struct digest_row *row;
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < 100000; i++)
		put_write(d, (uint64_t)i * i / 1000, "a", 0, 3);
	row = digest_find(d, DIGEST_FILES, "a");
	assert_int_equal(row->written, 300000);
	assert_in_range(digest_buckets(d), DIGEST_BUCKETS / 2, DIGEST_BUCKETS);
	for (i = 0; i < digest_buckets(d); i++)
		sum += row->by_time.at[i];
	assert_int_equal(sum, 300000);
	assert_true(row->by_time.at[0] > 10 * row->by_time.at[digest_buckets(d) - 2]);
	assert_true(d->start + digest_buckets(d) * d->width > d->last);
}

/* Beyond the bound rows are counted together, and no number is lost. */
static void test_rows_are_bounded(void **state)
{
	struct digest *d = *state;
	uint64_t sum = 0;
	char name[32];
	size_t i;

	for (i = 0; i < 3 * DIGEST_ROWS; i++) {
		snprintf(name, sizeof(name), "file-%zu", i);
		put_write(d, i, name, 0, 2);
	}
	assert_int_equal(d->tables[DIGEST_FILES].count, DIGEST_ROWS + 1);
	for (i = 0; i < d->tables[DIGEST_FILES].count; i++)
		sum += d->tables[DIGEST_FILES].list[i]->written;
	assert_int_equal(sum, 6 * DIGEST_ROWS);
	assert_int_equal(digest_find(d, DIGEST_FILES, DIGEST_OTHERS)->written, 4 * DIGEST_ROWS);
}

static uint64_t by_written(const struct digest_row *row)
{
	return row->written;
}

static void test_best(void **state)
{
	struct digest *d = *state;
	const struct digest_row *best[3];

	put_write(d, 0, "small", 0, 1);
	put_write(d, 1, "large", 0, 100);
	put_write(d, 2, "none", 0, 0);
	put_write(d, 3, "middle", 0, 10);
	put_write(d, 4, "more", 0, 11);
	assert_int_equal(digest_best(d, DIGEST_FILES, by_written, best, 3), 3);
	assert_string_equal(best[0]->name, "large");
	assert_string_equal(best[1]->name, "more");
	assert_string_equal(best[2]->name, "middle");
	assert_int_equal(digest_best(d, DIGEST_STATEMENTS, by_written, best, 3), 0);
}

/* ---- transactions and persists ---- */

static void put_transaction(struct digest *d, uint64_t ms, uint64_t number, uint64_t took,
			    uint64_t pages)
{
	add(d, ms, (struct oplog_entry){.op = OP_TXN_BEGIN, .name = DATABASE, .arg = number});
	put_write(d, ms, DATABASE, 4096, 4096);
	add(d, ms,
	    (struct oplog_entry){.op = OP_FSYNC, .name = DATABASE "-journal", .duration = MS});
	add(d, ms + took,
	    (struct oplog_entry){.op = OP_TXN_COMMIT,
				 .name = DATABASE,
				 .arg = number,
				 .duration = took * MS,
				 .offset = (int64_t)pages,
				 .length = pages * 4096});
}

static const char *table_of(void *context, const char *database, uint64_t offset)
{
	assert_ptr_equal(context, &process);
	assert_string_equal(database, DATABASE);
	return offset == 4096 ? "embeddings_queue" : NULL;
}

static void test_transactions(void **state)
{
	struct digest *d = *state;
	unsigned i;

	d->table_of = table_of;
	d->table_context = &process;
	for (i = 1; i <= 40; i++)
		put_transaction(d, i * 100, i, i == 17 ? 80 : i, i == 23 ? 500 : i);
	add(d, 5000, (struct oplog_entry){.op = OP_TXN_BEGIN, .name = DATABASE, .arg = 41});
	add(d, 5001, (struct oplog_entry){.op = OP_TXN_ROLLBACK, .name = DATABASE, .arg = 41});
	assert_int_equal(d->commits, 40);
	assert_int_equal(d->rolled_back, 1);
	assert_int_equal(d->transaction.count, 41);
	assert_int_equal(d->slow_count, DIGEST_TOP);
	assert_int_equal(d->slow[0].number, 17);
	assert_int_equal(d->slow[1].number, 40);
	assert_int_equal(d->slow[0].duration, 80 * MS);
	assert_int_equal(d->slow[0].sync_ns, MS);
	assert_int_equal(d->slow[0].table_count, 1);
	assert_string_equal(d->slow[0].tables[0], "embeddings_queue");
	assert_int_equal(d->large[0].number, 23);
	assert_int_equal(d->large[0].bytes, 500 * 4096);
	assert_int_equal(digest_find(d, DIGEST_PAGES, "embeddings_queue")->written, 40 * 4096);
	assert_int_equal(d->processes[0]->commits, 40);
	assert_int_equal(d->processes[0]->open_count, 0);
	assert_true(d->processes[0]->told_is_guess);
}

static void test_statements(void **state)
{
	struct digest *d = *state;
	const struct digest_row *row;

	/* One that commits by itself begins before its transaction. */
	add(d, 0,
	    (struct oplog_entry){.op = OP_SQL_STEP,
				 .name = "INSERT  INTO\n fruit VALUES(?)",
				 .kind = OPLOG_NAME_SQL,
				 .duration = 10 * MS,
				 .offset = 3});
	put_transaction(d, 1, 1, 5, 1);
	add(d, 20,
	    (struct oplog_entry){.op = OP_SQL_STEP, .name = "SELECT 1", .kind = OPLOG_NAME_SQL});
	put_transaction(d, 30, 2, 7, 1);
	row = digest_find(d, DIGEST_STATEMENTS, "INSERT INTO fruit VALUES(?)");
	assert_non_null(row);
	assert_int_equal(row->calls, 1);
	assert_int_equal(row->rows, 3);
	assert_int_equal(d->tables[DIGEST_STATEMENTS].count, 1);
	assert_string_equal(d->slow[1].statement, "INSERT INTO fruit VALUES(?)");
	assert_string_equal(d->slow[0].statement, "");
}

static void test_persists(void **state)
{
	struct digest *d = *state;
	const struct digest_row *row;

	add(d, 0, (struct oplog_entry){.op = OP_PERSIST_BEGIN, .name = SEGMENT, .arg = 3});
	put_write(d, 1, SEGMENT "/data_level0.bin", 0, 1000);
	put_write(d, 2, DATABASE, 0, 4096);
	add(d, 3,
	    (struct oplog_entry){
		.op = OP_FSYNC, .name = SEGMENT "/data_level0.bin", .duration = 4 * MS});
	add(d, 9,
	    (struct oplog_entry){
		.op = OP_PERSIST_COMMIT, .name = SEGMENT, .arg = 3, .duration = 9 * MS});
	add(d, 10, (struct oplog_entry){.op = OP_PERSIST_BEGIN, .name = SEGMENT, .arg = 4});
	row = digest_find(d, DIGEST_SEGMENTS, SEGMENT);
	assert_int_equal(row->calls, 1);
	assert_int_equal(row->written, 1000);
	assert_int_equal(row->syncs, 1);
	assert_int_equal(row->sync_ns, 4 * MS);
	assert_int_equal(row->call_ns, 9 * MS);
	assert_int_equal(d->processes[0]->open_count, 1);
	assert_int_equal(d->processes[0]->open[0].t.number, 4);
}

/* ---- records ---- */

static void put_records(struct digest *d, uint64_t ms, const char *collection,
			struct oplog_records n, uint64_t last)
{
	add(d, ms,
	    (struct oplog_entry){.op = OP_RECORDS,
				 .name = collection,
				 .kind = OPLOG_NAME_COLLECTION,
				 .result = n.added + n.updated + n.upserted + n.deleted,
				 .length = last,
				 .text = (const char *)&n,
				 .text_size = sizeof(n)});
}

static void test_records(void **state)
{
	struct digest *d = *state;
	const struct digest_row *row;

	d->moments = calloc(2, sizeof(*d->moments));
	d->moment_count = 2;
	d->moments[0].time = UINT64_C(1000000000000) + 1 * MS;
	d->moments[1].time = UINT64_C(1000000000000) + 4 * MS;
	put_records(d, 0, "one", (struct oplog_records){.added = 5}, 5);
	put_records(d, 2, "two", (struct oplog_records){.added = 1, .updated = 2, .deleted = 1}, 9);
	put_records(d, 5, "one", (struct oplog_records){.upserted = 7, .more = 1}, 16);
	row = digest_find(d, DIGEST_COLLECTIONS, "one");
	assert_int_equal(row->added, 5);
	assert_int_equal(row->upserted, 7);
	assert_int_equal(row->commits, 2);
	assert_true(row->at_least);
	assert_int_equal(digest_changes(digest_find(d, DIGEST_COLLECTIONS, "two")), 4);
	assert_int_equal(digest_find(d, DIGEST_COLLECTIONS, "two")->deleted_most, 1);
	assert_int_equal(digest_find(d, DIGEST_COLLECTIONS, "two")->deleted_by, 7);
	assert_int_equal(row->deleted_most, 0);
	assert_int_equal(d->records, 16);
	assert_int_equal(digest_records_since(d, d->moments[0].time), 11);
	assert_int_equal(digest_records_since(d, d->moments[1].time), 7);
	assert_int_equal(d->processes[0]->told_seq, 16);
	assert_string_equal(d->processes[0]->told_in, "one");
	assert_false(d->processes[0]->told_is_guess);
	/* One that was never committed is not acknowledged. */
	add(d, 6, (struct oplog_entry){.op = OP_TXN_BEGIN, .name = DATABASE, .arg = 0});
	put_records(d, 7, "two", (struct oplog_records){.added = 1}, 17);
	assert_int_equal(d->processes[0]->told_at, UINT64_C(1000000000000) + 5 * MS);
}

/* ---- processes and events ---- */

static void test_processes(void **state)
{
	struct digest *d = *state;
	struct oplog_header other = {.pid = 8, .start_ticks = 9};

	add(d, 0, (struct oplog_entry){.op = OP_START, .text = "chroma\0run", .text_size = 10});
	add(d, 1, (struct oplog_entry){.op = OP_REFUSE_WRITER, .header = &other});
	add(d, 2, (struct oplog_entry){.op = OP_EXIT, .arg = 15});
	add(d, 2, (struct oplog_entry){.op = OP_THREAD}); /* by the other log: it stays an end */
	assert_int_equal(d->process_count, 2);
	assert_string_equal(d->processes[0]->command, "chroma run");
	assert_true(d->processes[0]->exited);
	assert_int_equal(d->processes[0]->stopped_by, 15);
	assert_true(d->processes[0]->wrote);
	assert_false(d->processes[1]->wrote);
	assert_int_equal(d->processes[1]->refused, 1);
	assert_int_equal(d->events[DIGEST_REFUSAL].count, 1);
	assert_int_equal(d->events[DIGEST_REFUSAL].last[0].pid, 8);
}

static void test_span(void **state)
{
	struct digest *d = *state;

	d->since = UINT64_C(1000000000000) + 1 * MS;
	d->until = UINT64_C(1000000000000) + 3 * MS;
	put_write(d, 0, "a", 0, 1);
	put_write(d, 1, "a", 0, 2);
	put_write(d, 2, "a", 0, 4);
	put_write(d, 3, "a", 0, 8);
	assert_int_equal(d->written, 6);
	assert_int_equal(d->entries, 2);
}

static void test_text(void **state)
{
	char out[DIGEST_TEXT], long_text[1000];
	size_t i;

	(void)state;
	digest_text(out, sizeof(out), " a \n\t b  ", 9);
	assert_string_equal(out, "a b");
	for (i = 0; i + 1 < sizeof(long_text); i += 2)
		memcpy(long_text + i, "\xc3\xa9", 2);
	digest_text(out, sizeof(out), long_text, sizeof(long_text) - 1);
	assert_true(strlen(out) < DIGEST_TEXT);
	for (i = 0; i + 3 < strlen(out); i += 2)
		assert_memory_equal(out + i, "\xc3\xa9", 2);
	assert_string_equal(out + i, "\xe2\x80\xa6");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_files),	   TEST(test_growth),
	    TEST(test_buckets),	   TEST(test_rows_are_bounded),
	    TEST(test_best),	   TEST(test_transactions),
	    TEST(test_statements), TEST(test_persists),
	    TEST(test_records),	   TEST(test_processes),
	    TEST(test_span),	   TEST(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
