/* SPDX-License-Identifier: MIT
 *
 * Transactions from the file protocol: what SQLite does in each journal mode, call by call.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

/* The room itself, with what it calls replaced below. */
#include "preload/transactions.c"
#include "preload/transaction_pages.c"

#define PAGE 4096
#define AREA 3

/* ---- what the room calls ---- */

static struct oplog_record records[64];
static unsigned records_used, records_read;
static uint32_t this_thread;

uint32_t thread_id(void)
{
	return this_thread;
}

void record_put(unsigned area, struct oplog_record *r, const char *text, size_t size)
{
	(void)text;
	assert_int_equal(area, AREA);
	assert_int_equal(size, 0);
	records[records_used++ % 64] = *r;
}

uint32_t name_intern(unsigned area, const char *text, size_t length)
{
	(void)area;
	(void)text;
	(void)length;
	return 99;
}

void sqlite_copy_seen(unsigned area, uint8_t object)
{
	(void)area;
	(void)object;
}

void sqlite_copies_fork(void)
{
}

void persists_transaction_ended(unsigned area, bool committed)
{
	(void)area;
	(void)committed;
}

void sqlite_database_opened(union slot s)
{
	(void)s;
}

/* ---- what SQLite does ---- */

static const union slot db = {.name = 1, .area = AREA, .role = ROLE_DATABASE, .object = 5};
static const union slot journal = {.name = 2, .area = AREA, .role = ROLE_JOURNAL, .object = 5};
static const union slot wal = {.name = 3, .area = AREA, .role = ROLE_WAL, .object = 5};
static const union slot shm = {.name = 4, .area = AREA, .role = ROLE_SHM, .object = 5};

static uint64_t journal_at;
static uint64_t wal_at;

static void put32(unsigned char *p, uint32_t value)
{
	p[0] = (unsigned char)(value >> 24);
	p[1] = (unsigned char)(value >> 16);
	p[2] = (unsigned char)(value >> 8);
	p[3] = (unsigned char)value;
}

/* A page; page 1 has a change counter and a schema cookie. */
static const unsigned char *image(uint32_t page, uint32_t counter, uint32_t cookie)
{
	static unsigned char buf[PAGE];

	memset(buf, (int)(page + counter), sizeof(buf));
	if (page == 1) {
		memset(buf, 0, 100);
		memcpy(buf, SQLITE_MAGIC, sizeof(SQLITE_MAGIC));
		put32(buf + 24, counter);
		put32(buf + 40, cookie);
	}
	return buf;
}

static void shared(void)
{
	transaction_locked(db, F_RDLCK, PENDING, 1);
	transaction_locked(db, F_RDLCK, SHARED_FIRST, 510);
	transaction_locked(db, F_UNLCK, PENDING, 1);
}

static void reserve(void)
{
	transaction_locked(db, F_WRLCK, RESERVED, 1);
}

static void exclusive(void)
{
	transaction_locked(db, F_WRLCK, PENDING, 1);
	transaction_locked(db, F_WRLCK, SHARED_FIRST, 510);
}

static void unlock(void)
{
	transaction_locked(db, F_RDLCK, SHARED_FIRST, 510);
	transaction_locked(db, F_UNLCK, PENDING, 2);
	transaction_locked(db, F_UNLCK, 0, 0);
}

/* Not synced yet, as SQLite first writes it: without magic. */
static void journal_header_at(uint64_t at, uint32_t pages)
{
	unsigned char buf[512] = {0};

	put32(buf + 12, 0x12345678);
	put32(buf + 16, pages);
	put32(buf + 20, 512);
	put32(buf + 24, PAGE);
	transaction_written(journal, buf, sizeof(buf), (off_t)at);
	journal_at = at + 512;
}

static void journal_begin(uint32_t pages)
{
	transaction_opened(journal, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC);
	journal_header_at(0, pages);
}

static void journal_page(uint32_t page, const unsigned char *data)
{
	unsigned char number[4];

	put32(number, page);
	transaction_written(journal, number, 4, (off_t)journal_at);
	transaction_written(journal, data, PAGE, (off_t)journal_at + 4);
	transaction_written(journal, "sum!", 4, (off_t)journal_at + 4 + PAGE);
	journal_at += PAGE + 8;
}

/* The magic and the number of records, behind what was already written. */
static void journal_sync(uint64_t header)
{
	unsigned char buf[12];

	memcpy(buf, journal_magic, 8);
	put32(buf + 8, 1);
	transaction_written(journal, buf, sizeof(buf), (off_t)header);
}

static void database_page(uint32_t page, const unsigned char *data)
{
	transaction_written(db, data, PAGE, (off_t)(page - 1) * PAGE);
}

static void frame(uint32_t page, uint32_t commit, const unsigned char *data)
{
	unsigned char buf[24] = {0};

	put32(buf, page);
	put32(buf + 4, commit);
	transaction_written(wal, buf, sizeof(buf), (off_t)wal_at);
	transaction_written(wal, data, PAGE, (off_t)wal_at + 24);
	wal_at += 24 + PAGE;
}

static void wal_lock_type(short type)
{
	transaction_locked(shm, type, WAL_WRITE, 1);
}

/* ---- what must come of it ---- */

static struct oplog_record next(enum oplog_op op)
{
	struct oplog_record r;

	assert_true(records_read < records_used);
	r = records[records_read++ % 64];
	assert_int_equal(r.op, op);
	assert_int_equal(r.file, 1);
	return r;
}

static uint64_t began;

static void expect_open(uint64_t number)
{
	struct oplog_record begin = next(OP_TXN_BEGIN);

	assert_int_equal(begin.arg, number);
	assert_true(transaction_open(AREA));
	began = begin.time;
}

static void expect_end_of(enum oplog_op op, uint64_t number, int64_t pages, uint32_t cookie)
{
	struct oplog_record end = next(op);

	assert_int_equal(end.arg, number);
	assert_int_equal(end.offset, pages);
	assert_int_equal(end.result, cookie);
	assert_true(end.time >= began);
	assert_int_equal(end.duration, end.time - began);
}

static void expect_end(enum oplog_op op, uint64_t number, int64_t pages, uint32_t cookie)
{
	struct oplog_record begin = next(OP_TXN_BEGIN);

	assert_int_equal(begin.arg, number);
	began = begin.time;
	expect_end_of(op, number, pages, cookie);
	assert_false(transaction_open(AREA));
	assert_int_equal(transaction_thread(AREA), 0);
	assert_int_equal(transaction_journaled(AREA), 0);
}

static void expect_nothing(void)
{
	assert_int_equal(records_read, records_used);
}

static int fresh(void **state)
{
	(void)state;
	memset(&transactions[AREA], 0, sizeof(transactions[AREA]));
	transaction_opened(db, O_RDWR | O_CREAT);
	records_used = records_read = 0;
	wal_at = 32;
	this_thread = 1000;
	return 0;
}

/* ---- rollback journal ---- */

static void change_page_2(uint32_t counter)
{
	shared();
	reserve();
	journal_begin(2);
	journal_page(2, image(2, 0, 0));
	journal_page(1, image(1, counter, 7));
	journal_sync(0);
	exclusive();
	database_page(1, image(1, counter + 1, 7));
	database_page(2, image(2, 1, 0));
}

static void test_commit(void **state)
{
	(void)state;
	change_page_2(10);
	assert_true(transaction_open(AREA));
	assert_int_equal(transaction_thread(AREA), 1000);
	assert_int_equal(transaction_journaled(AREA), 2);
	transaction_unlinked(journal);
	assert_int_equal(records[1].length, 2 * PAGE);
	expect_end(OP_TXN_COMMIT, 1, 2, 0);
	unlock();
	change_page_2(11); /* TRUNCATE */
	transaction_truncated(journal, 0);
	expect_end(OP_TXN_COMMIT, 2, 2, 0);
	unlock();
	change_page_2(12); /* PERSIST */
	transaction_written(journal, (char[28]){0}, 28, 0);
	expect_end(OP_TXN_COMMIT, 3, 2, 0);
	unlock();
	expect_nothing();
}

static void test_new_database(void **state)
{
	(void)state;
	shared();
	reserve();
	journal_begin(0);
	journal_sync(0);
	exclusive();
	database_page(1, image(1, 1, 1));
	database_page(2, image(2, 0, 0));
	transaction_unlinked(journal);
	expect_end(OP_TXN_COMMIT, 1, 2, 1);
	unlock();
	/* rolled back after it had spilled: cut to nothing */
	reserve();
	journal_begin(0);
	exclusive();
	database_page(1, image(1, 0, 1));
	transaction_truncated(db, 0);
	transaction_unlinked(journal);
	expect_end(OP_TXN_ROLLBACK, 2, 1, 0);
}

static void test_schema(void **state)
{
	(void)state;
	shared();
	reserve();
	journal_begin(2);
	journal_page(1, image(1, 5, 8));
	exclusive();
	assert_false(transaction_changes_schema(db, image(1, 6, 8), PAGE, 0));
	assert_true(transaction_changes_schema(db, image(1, 6, 9), PAGE, 0));
	assert_false(transaction_changes_schema(db, image(2, 6, 9), PAGE, PAGE));
	database_page(1, image(1, 6, 9));
	transaction_unlinked(journal);
	expect_end(OP_TXN_COMMIT, 1, 1, 9);
}

static void test_rollback(void **state)
{
	(void)state;
	reserve();
	journal_begin(2);
	journal_page(2, image(2, 0, 0));
	transaction_unlinked(journal);
	expect_end(OP_TXN_ROLLBACK, 1, 0, 0);
	unlock();
	expect_nothing();
}

/* Pages went to the database early, in a second part of the journal more; all is put back. */
static void test_rollback_after_spill(void **state)
{
	uint64_t second;

	(void)state;
	reserve();
	journal_begin(9);
	journal_page(2, image(2, 0, 0));
	journal_page(1, image(1, 5, 5));
	journal_sync(0);
	second = (journal_at + 511) / 512 * 512;
	transaction_written(journal, "", 1, (off_t)second); /* no stale header there */
	journal_header_at(second, 9);
	exclusive();
	database_page(1, image(1, 5, 6));
	database_page(2, image(2, 1, 0));
	journal_page(3, image(3, 0, 0));
	assert_int_equal(transaction_journaled(AREA), 3);
	journal_sync(second);
	database_page(3, image(3, 1, 0));
	database_page(2, image(2, 2, 0));
	database_page(2, image(2, 0, 0)); /* played back from here on */
	database_page(1, image(1, 5, 5));
	database_page(3, image(3, 0, 0));
	transaction_unlinked(journal);
	assert_int_equal(records[1].length, 7 * PAGE);
	expect_end(OP_TXN_ROLLBACK, 1, 3, 0);
	unlock();
}

static void test_commit_after_spill(void **state)
{
	(void)state;
	reserve();
	journal_begin(9);
	journal_page(2, image(2, 0, 0));
	journal_sync(0);
	exclusive();
	database_page(2, image(2, 1, 0));
	journal_header_at((journal_at + 511) / 512 * 512, 9);
	journal_page(1, image(1, 5, 5));
	database_page(1, image(1, 6, 5));
	database_page(2, image(2, 2, 0));
	database_page(10, image(10, 0, 0));
	transaction_unlinked(journal);
	expect_end(OP_TXN_COMMIT, 1, 3, 0);
	/* the file is cut to its new size only now */
	transaction_truncated(db, 3 * PAGE);
	unlock();
	expect_nothing();
}

/* The database could not be synced, so the commit is taken back. */
static void test_commit_fails(void **state)
{
	(void)state;
	change_page_2(10);
	database_page(2, image(2, 0, 0));
	database_page(1, image(1, 10, 7));
	transaction_unlinked(journal);
	expect_end(OP_TXN_ROLLBACK, 1, 2, 0);
}

/* Nor could it be taken back: the journal stays, and is hot. */
static void test_journal_left(void **state)
{
	(void)state;
	change_page_2(10);
	assert_true(transaction_journal_left(AREA));
	unlock();
	assert_true(transaction_journal_left(AREA));
	expect_end(OP_TXN_ROLLBACK, 1, 2, 0);
}

static void test_nothing_to_change(void **state)
{
	(void)state;
	shared();
	reserve();
	unlock();
	expect_end(OP_TXN_COMMIT, 1, 0, 0);
	/* journal_mode is changed from PERSIST to DELETE: an old journal goes */
	reserve();
	transaction_unlinked(journal);
	unlock();
	expect_end(OP_TXN_COMMIT, 2, 0, 0);
	expect_nothing();
}

static void test_super_journal(void **state)
{
	unsigned char trailer[4];

	(void)state;
	change_page_2(1);
	put32(trailer, sqlite_lock_page(PAGE));
	transaction_written(journal, trailer, 4, (off_t)journal_at);
	transaction_written(journal, "/tmp/x-mj01234567", 17, (off_t)journal_at + 4);
	transaction_written(journal, "\0\0\0\21", 4, (off_t)journal_at + 21);
	assert_int_equal(transaction_journaled(AREA), 2);
	transaction_truncated(journal, (off_t)journal_at + 29);
	transaction_unlinked(journal);
	expect_end(OP_TXN_COMMIT, 1, 2, 0);
}

/* The same journal in one write, or in two with the cut anywhere between its parts. */
static void test_coalesced(void **state)
{
	static unsigned char all[512 + 2 * (PAGE + 8)];
	static const size_t cuts[] = {
	    512, 516, 516 + PAGE, 520 + PAGE, 524 + PAGE, 524 + 2 * PAGE, sizeof(all)};
	unsigned i;

	(void)state;
	memcpy(all, journal_magic, 8);
	put32(all + 16, 2);
	put32(all + 20, 512);
	put32(all + 24, PAGE);
	put32(all + 512, 2);
	memcpy(all + 516, image(2, 0, 0), PAGE);
	put32(all + 520 + PAGE, 1);
	memcpy(all + 524 + PAGE, image(1, 10, 3), PAGE);
	for (i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		reserve();
		transaction_written(journal, all, cuts[i], 0);
		if (cuts[i] < sizeof(all))
			transaction_written(journal, all + cuts[i], sizeof(all) - cuts[i],
					    (off_t)cuts[i]);
		assert_int_equal(transaction_journaled(AREA), 2);
		database_page(1, image(1, 11, 4));
		transaction_unlinked(journal);
		expect_end(OP_TXN_COMMIT, i + 1, 1, 4);
		unlock();
	}
	reserve();
	journal_begin(2);
	journal_page(1, image(1, 11, 4));
	memcpy(all, image(1, 12, 4), PAGE);
	memcpy(all + PAGE, image(2, 12, 4), PAGE);
	transaction_written(db, all, (size_t)2 * PAGE, 0);
	transaction_unlinked(journal);
	expect_end(OP_TXN_COMMIT, i + 1, 2, 0);
}

/* ---- no journal, locks that are kept ---- */

static void test_memory(void **state)
{
	(void)state;
	transaction_read(db, image(1, 4, 4), 0, 0); /* an empty file */
	reserve();
	exclusive();
	database_page(1, image(1, 5, 5));
	database_page(2, image(2, 5, 5));
	unlock();
	expect_end(OP_TXN_COMMIT, 1, 2, 5);
	reserve(); /* spilled, and put back from memory */
	exclusive();
	database_page(2, image(2, 6, 5));
	database_page(2, image(2, 5, 5));
	unlock();
	expect_end(OP_TXN_ROLLBACK, 2, 1, 0);
	reserve();
	database_page(1, image(1, 5, 6));
	database_page(1, image(1, 5, 5));
	unlock();
	expect_end(OP_TXN_ROLLBACK, 3, 1, 0);
}

/* locking_mode=EXCLUSIVE: no locks, and page 1 changes no more. */
static void test_lock_is_kept(void **state)
{
	(void)state;
	change_page_2(1);
	transaction_written(journal, (char[28]){0}, 28, 0);
	expect_end(OP_TXN_COMMIT, 1, 2, 0);
	journal_header_at(0, 2);
	journal_page(2, image(2, 1, 0));
	database_page(2, image(2, 2, 0));
	transaction_written(journal, (char[28]){0}, 28, 0);
	expect_end(OP_TXN_COMMIT, 2, 1, 0);
	journal_header_at(0, 2);
	journal_page(2, image(2, 2, 0));
	transaction_written(journal, (char[28]){0}, 28, 0);
	expect_end(OP_TXN_ROLLBACK, 3, 0, 0);
	journal_header_at(0, 2); /* spilled, played back */
	journal_page(2, image(2, 2, 0));
	database_page(2, image(2, 3, 0));
	database_page(2, image(2, 2, 0));
	transaction_written(journal, (char[28]){0}, 28, 0);
	expect_end(OP_TXN_ROLLBACK, 4, 1, 0);
	journal_header_at(0, 2); /* changed to what it was; played back, if reads are told */
	journal_page(2, image(2, 2, 0));
	database_page(2, image(2, 3, 0));
	transaction_read(journal, journal_magic, 8, 0);
	transaction_truncated(journal, 0);
	expect_end(OP_TXN_ROLLBACK, 5, 1, 0);
	unlock();
	expect_nothing();
}

/* A second SQLite in the process unlocks what it holds itself: no business of the first one's. */
static void test_other_copy(void **state)
{
	union slot other = db;

	(void)state;
	other.object = 6;
	change_page_2(1);
	transaction_locked(other, F_UNLCK, 0, 0);
	assert_true(transaction_open(AREA));
	transaction_unlinked(journal);
	expect_end(OP_TXN_COMMIT, 1, 2, 0);
	unlock();
	reserve(); /* lost with its descriptor; the next one begins anew */
	reserve();
	unlock();
	expect_end(OP_TXN_COMMIT, 2, 0, 0);
	expect_end(OP_TXN_COMMIT, 3, 0, 0);
}

static void test_hot_journal(void **state)
{
	struct oplog_record r;

	(void)state;
	shared();
	transaction_opened(journal, O_RDONLY);
	exclusive();
	transaction_opened(journal, O_RDWR | O_NOFOLLOW);
	assert_false(transaction_open(AREA));
	database_page(2, image(2, 0, 0));
	database_page(1, image(1, 9, 9));
	transaction_truncated(db, 2 * PAGE);
	transaction_unlinked(journal);
	r = next(OP_TXN_RECOVER);
	assert_int_equal(r.offset, 2);
	assert_int_equal(r.length, 2 * PAGE);
	assert_int_equal(r.result, 0);
	unlock();
	expect_nothing();
	shared(); /* it cannot be played back */
	exclusive();
	transaction_opened(journal, O_RDWR);
	unlock();
	assert_int_equal(next(OP_TXN_RECOVER).result, -EIO);
	expect_nothing();
}

/* ---- WAL ---- */

static void test_wal(void **state)
{
	(void)state;
	transaction_read(db, image(1, 3, 3), PAGE, 0);
	wal_lock_type(F_WRLCK);
	expect_nothing();
	frame(1, 0, image(1, 4, 4));
	assert_true(transaction_changes_schema(wal, image(1, 4, 4), PAGE, (off_t)wal_at));
	frame(2, 2, image(2, 0, 0));
	assert_true(transaction_open(AREA));
	wal_lock_type(F_UNLCK);
	assert_int_equal(records[1].length, 2 * (24 + PAGE));
	expect_end(OP_TXN_COMMIT, 1, 2, 4);
	wal_lock_type(F_WRLCK); /* the last frame again, up to a sector's end */
	frame(2, 2, image(2, 1, 0));
	frame(2, 2, image(2, 1, 0));
	wal_lock_type(F_UNLCK);
	expect_end(OP_TXN_COMMIT, 2, 1, 0);
	wal_lock_type(F_WRLCK); /* spilled */
	frame(1, 0, image(1, 5, 5));
	wal_lock_type(F_UNLCK);
	expect_end(OP_TXN_ROLLBACK, 3, 1, 0);
	wal_lock_type(F_WRLCK);
	wal_lock_type(F_UNLCK);
	expect_end(OP_TXN_ROLLBACK, 4, 0, 0);
	wal_lock_type(F_WRLCK); /* what was rolled back is not the schema to compare with */
	frame(1, 2, image(1, 5, 4));
	wal_lock_type(F_UNLCK);
	expect_end(OP_TXN_COMMIT, 5, 1, 0);
	expect_nothing();
}

static void test_wal_housekeeping(void **state)
{
	(void)state;
	wal_lock_type(F_WRLCK); /* recovery */
	transaction_locked(shm, F_WRLCK, 121, 2);
	transaction_locked(shm, F_UNLCK, 121, 2);
	wal_lock_type(F_UNLCK);
	transaction_locked(shm, F_WRLCK, 121, 1); /* a checkpoint that resets the log */
	wal_lock_type(F_WRLCK);
	transaction_locked(shm, F_WRLCK, 123, 1);
	database_page(1, image(1, 1, 1));
	wal_lock_type(F_UNLCK);
	expect_nothing();
	wal_lock_type(F_WRLCK); /* a writer, and another thread's checkpoint */
	this_thread = 2000;
	transaction_locked(shm, F_WRLCK, 121, 1);
	database_page(1, image(1, 1, 1));
	this_thread = 1000;
	frame(1, 2, image(1, 2, 2));
	wal_lock_type(F_UNLCK);
	expect_end(OP_TXN_COMMIT, 1, 1, 0);
}

static void test_wal_lock_is_kept(void **state)
{
	(void)state;
	frame(1, 0, image(1, 1, 1)); /* never locked: locking_mode=EXCLUSIVE from the start */
	frame(2, 2, image(2, 1, 1));
	expect_end(OP_TXN_COMMIT, 1, 2, 0);
	frame(1, 0, image(1, 3, 1)); /* spilled and rolled back, as the next one's place tells */
	wal_at -= 24 + PAGE;
	frame(1, 2, image(1, 2, 1));
	expect_end(OP_TXN_ROLLBACK, 2, 1, 0);
	expect_end(OP_TXN_COMMIT, 3, 1, 0);
	wal_lock_type(F_WRLCK); /* locked once: the next transaction's frame ends this one */
	frame(2, 2, image(2, 1, 1));
	expect_open(4);
	frame(1, 0, image(1, 2, 1));
	frame(2, 2, image(2, 1, 1));
	wal_lock_type(F_UNLCK);
	expect_end_of(OP_TXN_COMMIT, 4, 1, 0);
	expect_end(OP_TXN_COMMIT, 5, 2, 0);
	expect_nothing();
}

static void test_wal_coalesced(void **state)
{
	static unsigned char all[32 + 2 * (24 + PAGE)];

	(void)state;
	transaction_read(db, image(1, 3, 3), 100, 0);
	put32(all + 8, PAGE);
	put32(all + 32, 1);
	memcpy(all + 56, image(1, 4, 4), PAGE);
	put32(all + 56 + PAGE, 3);
	put32(all + 60 + PAGE, 3);
	wal_lock_type(F_WRLCK);
	transaction_written(wal, all, sizeof(all), 0);
	wal_lock_type(F_UNLCK);
	assert_int_equal(records[1].length, 2 * (24 + PAGE));
	expect_end(OP_TXN_COMMIT, 1, 2, 4);
}

/* ---- the rest ---- */

static void test_questions(void **state)
{
	unsigned char header[512] = {0};

	(void)state;
	put32(header + 20, 512);
	put32(header + 24, PAGE);
	reserve();
	assert_true(transaction_journal_starts(journal, header, sizeof(header), 0));
	assert_false(transaction_journal_starts(journal, header, sizeof(header), 512));
	assert_false(transaction_journal_starts(journal, header, 12, 0));
	assert_false(transaction_journal_starts(db, header, sizeof(header), 0));
	assert_false(transaction_journal_starts(journal, (char[28]){0}, 28, 0));
	journal_begin(2);
	assert_false(transaction_journal_starts(journal, header, sizeof(header), 0));
	journal_page(1, image(1, 1, 1));
	assert_true(transaction_database_starts(db, PAGE, 0));
	assert_false(transaction_database_starts(journal, PAGE, 0));
	database_page(1, image(1, 2, 1));
	assert_false(transaction_database_starts(db, PAGE, PAGE));
	assert_int_equal(transaction_number(AREA), 1);
	transaction_unlinked(journal);
	assert_false(transaction_database_starts(db, PAGE, 0));
	unlock();
	reserve();
	transactions_fork();
	assert_false(transaction_open(AREA));
	unlock();
	assert_int_equal(records_used, 3);
	records_read = 3;
	reserve();
	unlock();
	expect_end(OP_TXN_COMMIT, 1, 0, 0);
}

static void test_many_pages(void **state)
{
	uint32_t page;

	(void)state;
	reserve();
	journal_begin(0);
	for (page = 1; page <= 3 * SEEN_PAGES; page++)
		database_page(page, image(page, 1, 1));
	database_page(1, image(1, 2, 1));
	database_page(SEEN_PAGES, image(2, 2, 1));
	transaction_unlinked(journal);
	expect_end(OP_TXN_COMMIT, 1, 3 * SEEN_PAGES, 1);
	unlock();
	change_page_2(2); /* and none of them is remembered */
	transaction_unlinked(journal);
	expect_end(OP_TXN_COMMIT, 2, 2, 0);
}

/* Whatever is written where: no crash, no endless loop, and the next transaction is right. */
static void test_nonsense(void **state)
{
	static const union slot *const slots_to_hit[] = {&db, &journal, &wal, &shm};
	static const off_t places[] = {0, 4, 28, 32, 56, 512, 516, 4096, 4612, RESERVED, 120};
	static unsigned char buf[9000];
	unsigned i, k;

	(void)state;
	srandom(1);
	for (i = 0; i < 20000; i++) {
		union slot s = *slots_to_hit[random() % 4];
		off_t at = places[random() % (long)(sizeof(places) / sizeof(places[0]))];

		for (k = 0; k < 64; k++)
			buf[k] = (unsigned char)(random() % 3 ? 0 : random());
		put32(buf + 20, (uint32_t)1 << random() % 20);
		put32(buf + 24, (uint32_t)1 << random() % 20);
		switch (random() % 5) {
		case 0:
			transaction_locked(s, (short)(random() % 3), at, random() % 3);
			break;
		case 1:
			transaction_truncated(s, at);
			break;
		case 2:
			transaction_opened(s, random() % 2 ? O_RDWR : O_RDONLY);
			break;
		default:
			transaction_written(s, buf, (size_t)(random() % (long)sizeof(buf)) + 1, at);
		}
	}
	transaction_unlinked(journal);
	unlock();
	wal_lock_type(F_UNLCK);
	records_read = records_used;
	change_page_2(1);
	transaction_unlinked(journal);
	next(OP_TXN_BEGIN);
	assert_int_equal(next(OP_TXN_COMMIT).offset, 2);
}

#define TEST(name) cmocka_unit_test_setup(name, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_commit),
	    TEST(test_new_database),
	    TEST(test_schema),
	    TEST(test_rollback),
	    TEST(test_rollback_after_spill),
	    TEST(test_commit_after_spill),
	    TEST(test_commit_fails),
	    TEST(test_journal_left),
	    TEST(test_nothing_to_change),
	    TEST(test_super_journal),
	    TEST(test_coalesced),
	    TEST(test_memory),
	    TEST(test_lock_is_kept),
	    TEST(test_other_copy),
	    TEST(test_hot_journal),
	    TEST(test_wal),
	    TEST(test_wal_housekeeping),
	    TEST(test_wal_lock_is_kept),
	    TEST(test_wal_coalesced),
	    TEST(test_questions),
	    TEST(test_many_pages),
	    TEST(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
