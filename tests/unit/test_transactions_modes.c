/* SPDX-License-Identifier: MIT
 *
 * Transactions from the file protocol: without a journal, with locks that are kept, and in WAL
 * mode.
 */
#include "transactions_fixture.h"

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
	assert_true(transaction_open(PROTECTION));
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
	assert_false(transaction_open(PROTECTION));
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
	assert_true(transaction_open(PROTECTION));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_memory),		 TEST(test_lock_is_kept),  TEST(test_other_copy),
	    TEST(test_hot_journal),	 TEST(test_wal),	   TEST(test_wal_housekeeping),
	    TEST(test_wal_lock_is_kept), TEST(test_wal_coalesced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
