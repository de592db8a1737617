/* SPDX-License-Identifier: MIT
 *
 * The room of transactions by itself, SQLite's calls to it, and what must come of them.
 */
#ifndef UNIT_TRANSACTIONS_FIXTURE_H
#define UNIT_TRANSACTIONS_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

/* The room itself, with what it calls replaced below. */
#include "preload/sqlite/transactions.c"
#include "preload/sqlite/transaction_pages.c"
#include "preload/sqlite/transaction_state.c"

#define PAGE 4096
#define PROTECTION 3

/* ---- what the room calls ---- */

static struct oplog_record records[64];
static unsigned records_used, records_read;
static uint32_t this_thread;
_Atomic unsigned protections_used = PROTECTION + 1;

uint32_t thread_id(void)
{
	return this_thread;
}

void record_put(unsigned protection, struct oplog_record *r, const char *text, size_t size)
{
	(void)text;
	assert_int_equal(protection, PROTECTION);
	assert_int_equal(size, 0);
	records[records_used++ % 64] = *r;
}

uint32_t name_intern(unsigned protection, const char *text, size_t length)
{
	(void)protection;
	(void)text;
	(void)length;
	return 99;
}

void sqlite_copy_seen(unsigned protection, uint8_t object)
{
	(void)protection;
	(void)object;
}

void acts_begin(unsigned protection, const struct transaction *t)
{
	(void)protection, (void)t;
}

void acts_page(unsigned protection, uint32_t number, const unsigned char *page, uint32_t size,
	       bool is_old)
{
	(void)protection, (void)number, (void)page, (void)size, (void)is_old;
}

void acts_before(unsigned protection, uint8_t object, bool is_commit)
{
	(void)protection, (void)object, (void)is_commit;
}

void acts_frame(unsigned protection, uint8_t object, uint32_t number, const unsigned char *page,
		uint32_t size)
{
	(void)protection, (void)object, (void)number, (void)page, (void)size;
}

void acts_log_commits(unsigned protection, const struct transaction *t)
{
	(void)protection, (void)t;
}

void acts_end(unsigned protection, const struct transaction *t, bool committed)
{
	(void)protection, (void)t, (void)committed;
}

void acts_fork(void)
{
}

void acts_stop(unsigned protection)
{
	(void)protection;
}

void sqlite_copies_fork(void)
{
}

static inline void nobody_commits(unsigned protection, uint64_t number)
{
	(void)protection, (void)number;
}

static inline void nobody_ends(unsigned protection, bool committed)
{
	(void)protection;
	(void)committed;
}

void sqlite_database_opened(union slot s)
{
	(void)s;
}

/* ---- what SQLite does ---- */

static const union slot db = {
    .name = 1, .protection = PROTECTION, .role = ROLE_DATABASE, .object = 5};
static const union slot journal = {
    .name = 2, .protection = PROTECTION, .role = ROLE_JOURNAL, .object = 5};
static const union slot wal = {.name = 3, .protection = PROTECTION, .role = ROLE_WAL, .object = 5};
static const union slot shm = {.name = 4, .protection = PROTECTION, .role = ROLE_SHM, .object = 5};

static uint64_t journal_at;
static uint64_t wal_at;

static inline void put32(unsigned char *p, uint32_t value)
{
	p[0] = (unsigned char)(value >> 24);
	p[1] = (unsigned char)(value >> 16);
	p[2] = (unsigned char)(value >> 8);
	p[3] = (unsigned char)value;
}

/* A page; page 1 has a change counter and a schema cookie. */
static inline const unsigned char *image(uint32_t page, uint32_t counter, uint32_t cookie)
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

static inline void shared(void)
{
	transaction_locked(db, F_RDLCK, SQLITE_PENDING_BYTE, 1);
	transaction_locked(db, F_RDLCK, SQLITE_SHARED_FIRST, 510);
	transaction_locked(db, F_UNLCK, SQLITE_PENDING_BYTE, 1);
}

static inline void reserve(void)
{
	transaction_locked(db, F_WRLCK, SQLITE_RESERVED_BYTE, 1);
}

static inline void exclusive(void)
{
	transaction_locked(db, F_WRLCK, SQLITE_PENDING_BYTE, 1);
	transaction_locked(db, F_WRLCK, SQLITE_SHARED_FIRST, 510);
}

static inline void unlock(void)
{
	transaction_locked(db, F_RDLCK, SQLITE_SHARED_FIRST, 510);
	transaction_locked(db, F_UNLCK, SQLITE_PENDING_BYTE, 2);
	transaction_locked(db, F_UNLCK, 0, 0);
}

/* Not synced yet, as SQLite first writes it: without magic. */
static inline void journal_header_at(uint64_t at, uint32_t pages)
{
	unsigned char buf[512] = {0};

	put32(buf + 12, 0x12345678);
	put32(buf + 16, pages);
	put32(buf + 20, 512);
	put32(buf + 24, PAGE);
	transaction_written(journal, buf, sizeof(buf), (off_t)at);
	journal_at = at + 512;
}

static inline void journal_begin(uint32_t pages)
{
	transaction_opened(journal, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC);
	journal_header_at(0, pages);
}

static inline void journal_page(uint32_t page, const unsigned char *data)
{
	unsigned char number[4];

	put32(number, page);
	transaction_written(journal, number, 4, (off_t)journal_at);
	transaction_written(journal, data, PAGE, (off_t)journal_at + 4);
	transaction_written(journal, "sum!", 4, (off_t)journal_at + 4 + PAGE);
	journal_at += PAGE + 8;
}

/* The magic and the number of records, behind what was already written. */
static inline void journal_sync(uint64_t header)
{
	unsigned char buf[12];

	memcpy(buf, journal_magic, 8);
	put32(buf + 8, 1);
	transaction_written(journal, buf, sizeof(buf), (off_t)header);
}

static inline void database_page(uint32_t page, const unsigned char *data)
{
	transaction_written(db, data, PAGE, (off_t)(page - 1) * PAGE);
}

static inline void frame(uint32_t page, uint32_t commit, const unsigned char *data)
{
	unsigned char buf[24] = {0};

	put32(buf, page);
	put32(buf + 4, commit);
	transaction_written(wal, buf, sizeof(buf), (off_t)wal_at);
	transaction_written(wal, data, PAGE, (off_t)wal_at + 24);
	wal_at += 24 + PAGE;
}

static inline void wal_lock_type(short type)
{
	transaction_locked(shm, type, SQLITE_WAL_WRITE_BYTE, 1);
}

/* ---- what must come of it ---- */

static inline struct oplog_record next(enum oplog_op op)
{
	struct oplog_record r;

	assert_true(records_read < records_used);
	r = records[records_read++ % 64];
	assert_int_equal(r.op, op);
	assert_int_equal(r.file, 1);
	return r;
}

static uint64_t began;

static inline void expect_open(uint64_t number)
{
	struct oplog_record begin = next(OP_TXN_BEGIN);

	assert_int_equal(begin.arg, number);
	assert_true(transaction_open(PROTECTION));
	began = begin.time;
}

static inline void expect_end_of(enum oplog_op op, uint64_t number, int64_t pages, uint32_t cookie)
{
	struct oplog_record end = next(op);

	assert_int_equal(end.arg, number);
	assert_int_equal(end.offset, pages);
	assert_int_equal(end.result, cookie);
	assert_true(end.time >= began);
	assert_int_equal(end.duration, end.time - began);
}

static inline void expect_end(enum oplog_op op, uint64_t number, int64_t pages, uint32_t cookie)
{
	struct oplog_record begin = next(OP_TXN_BEGIN);

	assert_int_equal(begin.arg, number);
	began = begin.time;
	expect_end_of(op, number, pages, cookie);
	assert_false(transaction_open(PROTECTION));
	assert_int_equal(transaction_thread(PROTECTION), 0);
	assert_int_equal(transaction_journaled(PROTECTION), 0);
}

static inline void expect_nothing(void)
{
	assert_int_equal(records_read, records_used);
}

static inline int fresh(void **state)
{
	(void)state;
	transactions_hand_in(
	    (struct transaction_listener){.committed = nobody_commits, .ended = nobody_ends});
	memset(&transactions[PROTECTION], 0, sizeof(transactions[PROTECTION]));
	transaction_opened(db, O_RDWR | O_CREAT);
	records_used = records_read = 0;
	wal_at = 32;
	this_thread = 1000;
	return 0;
}

static inline void change_page_2(uint32_t counter)
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

#define TEST(name) cmocka_unit_test_setup(name, fresh)

#endif
