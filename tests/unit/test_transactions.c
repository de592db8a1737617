/* SPDX-License-Identifier: MIT
 *
 * Transactions from the file protocol: what SQLite does with a rollback journal, call by
 * call; the other modes are in test_transactions_modes.c.
 */
#include "transactions_fixture.h"

/* ---- rollback journal ---- */

static void test_commit(void **state)
{
	(void)state;
	change_page_2(10);
	assert_true(transaction_open(PROTECTION));
	assert_int_equal(transaction_thread(PROTECTION), 1000);
	assert_int_equal(transaction_journaled(PROTECTION), 2);
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
	assert_int_equal(transaction_journaled(PROTECTION), 3);
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
	assert_true(transaction_journal_left(PROTECTION));
	unlock();
	assert_true(transaction_journal_left(PROTECTION));
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
	assert_int_equal(transaction_journaled(PROTECTION), 2);
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
		assert_int_equal(transaction_journaled(PROTECTION), 2);
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
	assert_int_equal(transaction_number(PROTECTION), 1);
	transaction_unlinked(journal);
	assert_false(transaction_database_starts(db, PAGE, 0));
	unlock();
	reserve();
	transactions_fork();
	assert_false(transaction_open(PROTECTION));
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
	static const off_t places[] = {
	    0, 4, 28, 32, 56, 512, 516, 4096, 4612, SQLITE_RESERVED_BYTE, 120};
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
	    TEST(test_questions),
	    TEST(test_many_pages),
	    TEST(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
