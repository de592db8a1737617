/* SPDX-License-Identifier: MIT
 *
 * Transactions begin and end: by locks, and by what becomes of the journal.
 *
 * A transaction is known by its directory. SQLite lets one thread at a time hold the lock under
 * which it writes, and that thread owns the state; what others may ask is atomic.
 */
#include "core/base/text.h"
#include "preload/sqlite/transaction_state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/sqlite/page.h"
#include "core/sqlite/wal.h"
#include "preload/place/record.h"
#include "preload/sqlite/acts.h"
#include "preload/sqlite/calls.h"

/* Lock bytes in the -shm file. */
#define WAL_OTHERS 121 /* checkpoint, recovery, read marks 0 to 4 */
#define WAL_END 128

static _Atomic bool libraries[256]; /* by object */

/* With a journal: what is in the database now, against what the journal has saved of it. */
static bool journal_committed(const struct transaction *t)
{
	if (!t->pages || t->played_back)
		return false;
	if (t->before.known && t->before.sum)
		return t->after.known && t->after.sum != t->before.sum;
	if (t->kept && t->witness) /* page 1 was not changed: the lock keeps others out */
		return t->witness_after && t->witness_after != t->witness_before;
	return t->after.known && !t->cut;
}

/* The lock is released, and no journal was finalised. */
static void end_at_unlock(unsigned protection)
{
	struct transaction *t = &transactions[protection];
	bool committed =
	    !t->pages || t->kept ||
	    (t->after.known && (!t->before.known || t->after.counter != t->before.counter));

	if (GET(t->journal_left)) /* an error: the next one to come plays it back */
		committed = false;
	transaction_end(protection, committed ? OP_TXN_COMMIT : OP_TXN_ROLLBACK);
}

static void journal_finalised(unsigned protection)
{
	struct transaction *t = &transactions[protection];
	bool had_header = GET(t->journal_left);

	SET(t->journal_left, false);
	switch (GET(t->kind)) {
	case TRANSACTION_JOURNAL:
		/* Without a header it is a leftover: journal_mode was changed, or the file is new.
		 */
		if (had_header)
			transaction_end(protection,
					journal_committed(t) ? OP_TXN_COMMIT : OP_TXN_ROLLBACK);
		break;
	case TRANSACTION_RECOVERY:
		transaction_end(protection, OP_TXN_RECOVER);
		break;
	}
}

/* ---- locks ---- */

static inline bool covers(off_t start, off_t length, off_t byte)
{
	return start <= byte && (length == 0 || byte < start + length);
}

static void lock_reserved(union slot s, short type)
{
	struct transaction *t = transaction_of(s);

	if (type == F_WRLCK) {
		/* The one before lost its lock without a word: its descriptor was closed. */
		if (GET(t->kind) == TRANSACTION_JOURNAL)
			end_at_unlock(s.protection);
		SET(t->reserved, true);
		SET(t->journal_left, false); /* SQLite has seen to a hot one before */
		transaction_begin(s, TRANSACTION_JOURNAL);
	} else if (type == F_UNLCK && GET(t->reserved) && t->object == s.object) {
		SET(t->reserved, false);
		if (GET(t->kind) == TRANSACTION_JOURNAL)
			end_at_unlock(s.protection);
	}
}

static void lock_database(union slot s, short type, off_t start, off_t length)
{
	struct transaction *t = transaction_of(s);

	if (GET(t->file) != s.name)
		SET(t->file, s.name);
	sqlite_copy_seen(s.protection, s.object);
	if (covers(start, length, SQLITE_RESERVED_BYTE))
		lock_reserved(s, type);
	if (!covers(start, length, SQLITE_SHARED_FIRST))
		return;
	if (GET(t->exclusive) != (type == F_WRLCK))
		SET(t->exclusive, type == F_WRLCK);
	if (type != F_WRLCK && GET(t->kind) == TRANSACTION_RECOVERY) {
		t->failed = true;
		transaction_end(s.protection, OP_TXN_RECOVER);
	}
}

/* Frames told of the transaction already; without any, it rolled back, or was none. */
static void end_wal(unsigned protection)
{
	struct transaction *t = &transactions[protection];

	if (!t->told && t->housekeeping) {
		SET(t->thread, 0);
		SET(t->kind, TRANSACTION_NONE);
		return;
	}
	transaction_tell(protection);
	transaction_end(protection, t->committed ? OP_TXN_COMMIT : OP_TXN_ROLLBACK);
}

static void lock_wal(union slot s, short type, off_t start, off_t length)
{
	struct transaction *t = transaction_of(s);

	if (covers(start, length, SQLITE_WAL_WRITE_BYTE)) {
		if (type == F_WRLCK) {
			if (GET(t->kind) == TRANSACTION_WAL)
				end_wal(s.protection);
			SET(t->wal_lock, true);
			transaction_begin(s, TRANSACTION_WAL);
		} else if (type == F_UNLCK && GET(t->wal_lock) && t->object == s.object) {
			SET(t->wal_lock, false);
			if (GET(t->kind) == TRANSACTION_WAL)
				end_wal(s.protection);
		}
	} else if (type == F_WRLCK && start >= WAL_OTHERS && start < WAL_END &&
		   GET(t->kind) == TRANSACTION_WAL && GET(t->thread) == thread_id()) {
		t->housekeeping = true;
	}
}

void transaction_unlocks(union slot s, off_t start, off_t length)
{
	const struct transaction *t = transaction_of(s);

	if (s.role == ROLE_SHM && covers(start, length, SQLITE_WAL_WRITE_BYTE) && t->committed &&
	    GET(t->wal_lock) && GET(t->kind) == TRANSACTION_WAL && t->object == s.object)
		acts_log_commits(s.protection, t);
}

void transaction_locked(union slot s, short type, off_t start, off_t length)
{
	int saved = errno;

	if (s.role == ROLE_DATABASE) {
		SET(libraries[s.object], true);
		lock_database(s, type, start, length);
	} else if (s.role == ROLE_SHM) {
		lock_wal(s, type, start, length);
	}
	errno = saved;
}

/* ---- files ---- */

static void journal_written(union slot s, const unsigned char *p, size_t n, off_t offset)
{
	struct transaction *t = transaction_of(s);

	/* journal_mode=PERSIST: the header is zeroed, which no journal's first write is. */
	if (offset == 0 && n >= 20 && bytes_are_zero(p, n)) {
		journal_finalised(s.protection);
		return;
	}
	if (offset == 0 && transaction_is_journal_header(p, n)) {
		if (GET(t->kind) != TRANSACTION_JOURNAL) {
			transaction_begin(s, TRANSACTION_JOURNAL);
			t->kept = true;
		}
		t->record = 0;
		SET(t->journal_left, true);
	}
	if (GET(t->kind) == TRANSACTION_JOURNAL)
		transaction_journal_bytes(s, p, n, (uint64_t)offset);
}

static void database_written(union slot s, const unsigned char *p, size_t n, off_t offset)
{
	struct transaction *t = transaction_of(s);

	if (GET(t->kind) == TRANSACTION_NONE && GET(t->reserved)) {
		transaction_begin(s, TRANSACTION_JOURNAL);
		t->kept = true;
	}
	if (GET(t->kind) == TRANSACTION_JOURNAL || GET(t->kind) == TRANSACTION_RECOVERY)
		transaction_database_bytes(s, p, n, (uint64_t)offset);
}

void transaction_writes(union slot s, size_t n, off_t offset)
{
	if (transaction_database_starts(s, n, offset))
		acts_before(s.protection, s.object, offset == 0);
}

void transaction_written(union slot s, const void *buf, size_t n, off_t offset)
{
	int saved = errno;

	if (offset < 0)
		return;
	switch (s.role) {
	case ROLE_DATABASE:
		database_written(s, buf, n, offset);
		break;
	case ROLE_JOURNAL:
		journal_written(s, buf, n, offset);
		break;
	case ROLE_WAL:
		transaction_wal_bytes(s, buf, n, (uint64_t)offset);
		break;
	}
	errno = saved;
}

/* A page 1 that is newer than what was known, since another process has written. */
static void adopt(struct transaction *t, const void *buf, size_t n)
{
	struct page_one one = {0};
	uint32_t last = (uint32_t)(GET(t->last) >> 32);

	if (GET(t->kind) != TRANSACTION_NONE && GET(t->thread) == thread_id())
		return; /* may be its own and not committed */
	if (n && !transaction_page_one(&one, buf, n))
		return;
	if (!GET(t->last_known) || (int32_t)(one.counter - last) > 0)
		transaction_remember(t, &one);
}

void transaction_read(union slot s, const void *buf, size_t n, off_t offset)
{
	struct transaction *t = transaction_of(s);

	if ((s.role == ROLE_WAL && n) || (s.role == ROLE_DATABASE && offset == 0))
		adopt(t, buf, n);
	/* A hot journal is looked for with one byte; savepoints are undone from behind the header.
	 */
	else if (s.role == ROLE_JOURNAL && offset == 0 && n >= 8 &&
		 GET(t->kind) == TRANSACTION_JOURNAL && GET(t->thread) == thread_id())
		t->played_back = true;
}

void transaction_truncated(union slot s, off_t size)
{
	struct transaction *t = transaction_of(s);
	int saved = errno;

	if (s.role == ROLE_JOURNAL && size == 0)
		journal_finalised(s.protection);
	else if (s.role == ROLE_DATABASE && GET(t->kind) == TRANSACTION_JOURNAL &&
		 (uint64_t)size <= (uint64_t)t->initial_pages * t->page_size)
		t->cut = true;
	errno = saved;
}

void transaction_opened(union slot s, int flags)
{
	struct transaction *t = transaction_of(s);

	if (s.role == ROLE_DATABASE) {
		if (GET(t->file) != s.name)
			SET(t->file, s.name);
		sqlite_database_opened(s);
	}
	/* A journal to be played back is opened for writing, but must not come into being. */
	if (s.role == ROLE_JOURNAL && (flags & O_ACCMODE) == O_RDWR && !(flags & O_CREAT) &&
	    GET(t->exclusive) && !GET(t->reserved) && GET(t->kind) == TRANSACTION_NONE) {
		transaction_begin(s, TRANSACTION_RECOVERY);
		t->told = true; /* one record tells it all */
		t->number++;
	}
}

void transaction_unlinked(union slot s)
{
	int saved = errno;

	if (s.role == ROLE_JOURNAL)
		journal_finalised(s.protection);
	errno = saved;
}

void transactions_fork(void)
{
	unsigned protection, used = atomic_load(&protections_used);

	for (protection = 0; protection < used; protection++) {
		struct transaction *t = &transactions[protection];

		SET(t->kind, TRANSACTION_NONE);
		SET(t->thread, 0);
		SET(t->journaled, 0);
		SET(t->reserved, false);
		SET(t->exclusive, false);
		SET(t->wal_lock, false);
		SET(t->journal_left, false);
		t->number = 0;
	}
	acts_fork();
	sqlite_copies_fork();
}

void transactions_stop(unsigned protection)
{
	acts_stop(protection);
	memset(&transactions[protection], 0, sizeof(transactions[protection]));
}

/* ---- questions ---- */

bool transaction_open(unsigned protection)
{
	uint8_t kind = atomic_load_explicit(&transactions[protection].kind, memory_order_acquire);

	return kind == TRANSACTION_JOURNAL || kind == TRANSACTION_WAL;
}

uint32_t transaction_thread(unsigned protection)
{
	return transaction_open(protection) ? GET(transactions[protection].thread) : 0;
}

uint8_t transaction_object(unsigned protection)
{
	return transactions[protection].object;
}

uint64_t transaction_number(unsigned protection)
{
	return transactions[protection].number;
}

uint32_t transaction_journaled(unsigned protection)
{
	return GET(transactions[protection].journaled);
}

bool transaction_journal_left(unsigned protection)
{
	return GET(transactions[protection].journal_left);
}

bool transaction_journal_starts(union slot s, const void *buf, size_t n, off_t offset)
{
	return s.role == ROLE_JOURNAL && offset == 0 && !transaction_journal_left(s.protection) &&
	       transaction_is_journal_header(buf, n);
}

bool transaction_wal_starts(union slot s, off_t offset)
{
	const struct transaction *t = transaction_of(s);

	return s.role == ROLE_WAL && offset > 0 && GET(t->kind) == TRANSACTION_WAL &&
	       t->first_at == NOWHERE;
}

bool transaction_library(uint8_t object)
{
	return object && GET(libraries[object]);
}

bool transactions_may_come(unsigned protection)
{
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.role == ROLE_DATABASE && s.protection == protection &&
		    transaction_library(s.object))
			return true;
	}
	return false;
}

bool transaction_database_starts(union slot s, size_t n, off_t offset)
{
	const struct transaction *t = transaction_of(s);

	return s.role == ROLE_DATABASE && n && offset >= 0 && GET(t->kind) == TRANSACTION_JOURNAL &&
	       !t->pages;
}

bool transaction_changes_schema(union slot s, const void *buf, size_t n, off_t offset)
{
	const struct transaction *t = transaction_of(s);
	struct page_one one;

	if (s.role == ROLE_DATABASE ? GET(t->kind) != TRANSACTION_JOURNAL || offset != 0
				    : s.role != ROLE_WAL || GET(t->kind) != TRANSACTION_WAL)
		return false;
	return t->before.known && transaction_page_one(&one, buf, n) &&
	       one.cookie != t->before.cookie;
}

uint32_t transaction_frees(union slot s, const void *buf, size_t n, off_t offset)
{
	const struct transaction *t = transaction_of(s);
	struct page_one one;

	if (s.role != ROLE_DATABASE || offset != 0 || GET(t->kind) != TRANSACTION_JOURNAL ||
	    !t->before.sum || !transaction_page_one(&one, buf, n))
		return 0;
	return one.free > t->before.free ? one.free - t->before.free : 0;
}
