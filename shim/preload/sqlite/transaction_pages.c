/* SPDX-License-Identifier: MIT
 *
 * Reads what SQLite writes to its journal, database and WAL, as it passes by.
 *
 * SQLite writes each part by itself (page number, page, sum), and each in one piece; writes of
 * several parts at once are taken apart, a part torn in two counts as the piece its start is in.
 * For files at rest see core/sqlite/journal.h and core/sqlite/wal.h.
 */
#include "preload/sqlite/transaction_state.h"

#include <string.h>

#include "core/base/checksum.h"
#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"
#include "core/sqlite/wal.h"
#include "preload/sqlite/acts.h"

static const unsigned char journal_magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};

static uint32_t get32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static size_t least(uint64_t a, uint64_t b)
{
	return (size_t)(a < b ? a : b);
}

static bool is_power_of_two(uint64_t n, uint64_t min)
{
	return n >= min && n <= 65536 && (n & (n - 1)) == 0;
}

bool transaction_page_one(struct page_one *out, const unsigned char *p, size_t n)
{
	if (n < SQLITE_HEADER_SIZE || memcmp(p, SQLITE_MAGIC, sizeof(SQLITE_MAGIC)) != 0)
		return false;
	out->known = true;
	out->counter = get32(p + 24);
	out->cookie = get32(p + 40);
	out->free = get32(p + 36);
	out->sum = checksum64(p, SQLITE_HEADER_SIZE, 0) | 1;
	return true;
}

/* ---- rollback journal ---- */

/* Magic and count are zero until the journal is synced, and all is zero when it is finalised. */
bool transaction_is_journal_header(const unsigned char *p, size_t n)
{
	static const unsigned char zeros[sizeof(journal_magic)];

	return n >= SQLITE_JOURNAL_HEADER_SIZE &&
	       (memcmp(p, journal_magic, sizeof(journal_magic)) == 0 ||
		memcmp(p, zeros, sizeof(zeros)) == 0) &&
	       is_power_of_two(get32(p + 20), 32) && is_power_of_two(get32(p + 24), 512);
}

/* Returns how many bytes of it are here. */
static size_t journal_header(struct transaction *t, const unsigned char *p, size_t n,
			     uint64_t offset)
{
	t->sector = get32(p + 20);
	t->page_size = get32(p + 24);
	t->record = offset + t->sector;
	if (offset == 0) {
		t->initial_pages = get32(p + 16);
		if (t->initial_pages == 0) /* a new database: no page 1, no schema */
			t->before = (struct page_one){.known = true};
	}
	return least(n, t->sector);
}

/* The start of a page's old image. */
static void journal_image(struct transaction *t, unsigned protection, const unsigned char *p,
			  size_t n)
{
	struct page_one one;

	if (t->journal_page == 1 && transaction_page_one(&one, p, n))
		t->before = one;
	if (n >= t->page_size)
		acts_page(protection, t->journal_page, p, t->page_size, true);
	if (!t->kept || n < t->page_size) /* otherwise page 1 tells enough */
		return;
	if (!t->witness) {
		t->witness = t->journal_page;
		t->witness_before = checksum64(p, t->page_size, 0) | 1;
		t->witness_after = 0;
	}
}

/* Some part of a record, `at` bytes from its start. Returns how far it goes; 0: no record. */
static size_t journal_part(struct transaction *t, unsigned protection, const unsigned char *p,
			   size_t n, uint64_t at)
{
	uint64_t page_end = 4 + (uint64_t)t->page_size;
	size_t part;

	if (at == 0) {
		if (n < 4)
			return 0;
		t->journal_page = get32(p);
		/* The lock page is never journaled: here it begins the super-journal's name. */
		if (!t->journal_page || t->journal_page == sqlite_lock_page(t->page_size))
			return 0;
		return 4;
	}
	if (at < page_end) {
		part = least(n, page_end - at);
		if (at == 4)
			journal_image(t, protection, p, part);
		return part;
	}
	part = least(n, page_end + 4 - at);
	if (at + part == page_end + 4) {
		t->record += page_end + 4;
		atomic_store_explicit(&t->journaled, t->journaled + 1, memory_order_relaxed);
	}
	return part;
}

void transaction_journal_bytes(union slot s, const unsigned char *p, size_t n, uint64_t offset)
{
	struct transaction *t = &transactions[s.protection];

	while (n) {
		size_t part;

		if (offset < t->record) /* the count of records, filled in by a sync */
			part = least(n, t->record - offset);
		else if (transaction_is_journal_header(p, n))
			part = journal_header(t, p, n, offset);
		else if (t->page_size && offset - t->record < (uint64_t)t->page_size + 8)
			part = journal_part(t, s.protection, p, n, offset - t->record);
		else
			part = 0;
		if (!part)
			return;
		p += part;
		n -= part;
		offset += part;
	}
}

/* ---- database ---- */

void transaction_database_bytes(union slot s, const unsigned char *p, size_t n, uint64_t offset)
{
	struct transaction *t = &transactions[s.protection];
	uint32_t size = t->page_size;
	size_t at;

	if (!size)
		size = is_power_of_two(n, 512) ? (uint32_t)n : 4096;
	t->bytes += n;
	for (at = 0; at < n; at += size) {
		uint32_t page = (uint32_t)((offset + at) / size + 1);
		struct page_one one;

		transaction_count_page(t, page);
		if (page == 1 && transaction_page_one(&one, p + at, n - at))
			t->after = one;
		if (n - at >= size && GET(t->kind) == TRANSACTION_JOURNAL)
			acts_page(s.protection, page, p + at, size, false);
		if (page == t->witness)
			t->witness_after = checksum64(p + at, least(n - at, size), 0) | 1;
	}
}

/* ---- WAL ---- */

static void wal_frame(union slot s, const unsigned char *p, uint64_t offset)
{
	struct transaction *t = &transactions[s.protection];
	uint32_t page = get32(p);
	bool commit = get32(p + 4) != 0;
	bool again = commit && page == t->commit_page; /* a commit frame is repeated to fill up */

	/* The lock is kept from the transaction before, and this is the next one. */
	if (t->kind == TRANSACTION_WAL && t->committed && offset > t->commit_at && !again)
		transaction_end(s.protection, OP_TXN_COMMIT);
	else if (t->kind == TRANSACTION_WAL && t->kept && !t->committed && offset == t->first_at)
		transaction_end(s.protection, OP_TXN_ROLLBACK);
	if (t->kind != TRANSACTION_WAL) {
		transaction_begin(s, TRANSACTION_WAL);
		t->kept = true;
	}
	if (t->first_at == NOWHERE)
		t->first_at = offset;
	transaction_tell(s.protection);
	transaction_count_page(t, page);
	t->journal_page = page;
	if (commit) {
		t->committed = true;
		t->commit_at = offset;
		t->commit_page = page;
	}
}

/* The start of a page, or of a part of one. */
static void wal_page(union slot s, const unsigned char *p, size_t n, uint64_t offset)
{
	struct transaction *t = &transactions[s.protection];
	struct page_one one;

	if (transaction_page_one(&one, p, n))
		t->after = one;
	if (t->page_size && n >= t->page_size)
		acts_frame(s.protection, s.object, t->journal_page, p, t->page_size);
	/* Without a lock (locking_mode=EXCLUSIVE from the start) there will be no release. */
	if (t->kind == TRANSACTION_WAL && t->committed && !t->wal_lock &&
	    offset == t->commit_at + SQLITE_WAL_FRAME_SIZE)
		transaction_end(s.protection, OP_TXN_COMMIT);
}

/* Bytes from the start of the frame that offset is in. SQLite never writes 24 bytes of a page. */
static uint64_t wal_position(const struct transaction *t, size_t n, uint64_t offset)
{
	if (t->page_size)
		return (offset - SQLITE_WAL_HEADER_SIZE) % (SQLITE_WAL_FRAME_SIZE + t->page_size);
	if (n == SQLITE_WAL_FRAME_SIZE || is_power_of_two(n - SQLITE_WAL_FRAME_SIZE, 512))
		return 0;
	return SQLITE_WAL_FRAME_SIZE;
}

void transaction_wal_bytes(union slot s, const unsigned char *p, size_t n, uint64_t offset)
{
	struct transaction *t = &transactions[s.protection];
	size_t part;

	if (offset == 0 && n >= SQLITE_WAL_HEADER_SIZE) {
		t->page_size = is_power_of_two(get32(p + 8), 512) ? get32(p + 8) : 0;
		part = SQLITE_WAL_HEADER_SIZE;
		p += part;
		n -= part;
		offset += part;
	}
	if (offset < SQLITE_WAL_HEADER_SIZE)
		return;
	while (n) {
		uint64_t at = wal_position(t, n, offset);

		if (at == 0 && n < SQLITE_WAL_FRAME_SIZE)
			return;
		if (at == 0) {
			wal_frame(s, p, offset);
			part = SQLITE_WAL_FRAME_SIZE;
			t->bytes += part;
		} else {
			if (!t->page_size && is_power_of_two(n, 512))
				t->page_size = (uint32_t)n;
			part = least(n, SQLITE_WAL_FRAME_SIZE + (uint64_t)t->page_size - at);
			if (!part || !t->page_size)
				part = n;
			t->bytes += part;
			if (t->kind == TRANSACTION_WAL && at == SQLITE_WAL_FRAME_SIZE)
				wal_page(s, p, part, offset);
		}
		p += part;
		n -= part;
		offset += part;
	}
}
