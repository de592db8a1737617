/* SPDX-License-Identifier: MIT
 *
 * One transaction as far as it is known: shared by transactions.c, which sees by the locks and the
 * journal's end when it begins and ends, and transaction_pages.c, which reads what SQLite writes.
 */
#ifndef PRELOAD_TRANSACTION_STATE_H
#define PRELOAD_TRANSACTION_STATE_H

#include "preload/place/protection.h"
#include "preload/sqlite/transactions.h"

#define SEEN_PAGES 65536u
#define NOWHERE UINT64_MAX /* an offset that no write has */

enum transaction_kind {
	TRANSACTION_NONE,
	TRANSACTION_JOURNAL, /* with a rollback journal, or without any */
	TRANSACTION_WAL,
	TRANSACTION_RECOVERY, /* a hot journal is being played back */
};

/* What matters of an image of page 1. */
struct page_one {
	bool known;
	uint32_t counter, cookie, free; /* free: pages on the freelist */
	uint64_t sum;			/* of the database header */
};

struct transaction {
	/* Asked from any thread. */
	_Atomic uint8_t kind;
	_Atomic uint32_t thread;
	_Atomic uint32_t journaled; /* pages */
	_Atomic bool journal_left;
	/* Locks, by whoever in this process holds them. */
	_Atomic bool reserved, exclusive, wal_lock;
	_Atomic uint32_t file; /* name of the database */
	_Atomic uint64_t last; /* counter << 32 | cookie of the newest page 1 met, 0: none */
	_Atomic bool last_known;
	/* Below: belongs to the thread that holds the lock under which SQLite writes. */
	uint8_t object;	   /* the library whose lock it is */
	bool told;	   /* txn.begin is written */
	bool kept;	   /* the lock was kept from the transaction before */
	bool played_back;  /* the journal was read from its start */
	bool cut;	   /* the database was cut to its size before */
	bool housekeeping; /* in the WAL: a checkpoint or a recovery */
	bool committed;	   /* in the WAL: a commit frame */
	bool failed;	   /* a hot journal could not be played back */
	uint64_t number, since, pages, bytes;
	struct page_one before, after;
	/* The journal; `record` is where the next page record begins. */
	uint32_t page_size, sector, initial_pages, journal_page;
	uint64_t record;
	uint32_t witness; /* the first page journaled */
	uint64_t witness_before, witness_after;
	/* The WAL: its first frame, and the newest commit frame. */
	uint64_t first_at, commit_at;
	uint32_t commit_page;
	/* Pages written, to count each once: exact up to SEEN_PAGES, a little low above. */
	uint32_t highest;
	uint64_t seen[SEEN_PAGES / 64];
};

extern struct transaction transactions[PROTECTIONS];

static inline struct transaction *transaction_of(union slot s)
{
	return &transactions[s.protection];
}

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)

void transaction_begin(union slot s, enum transaction_kind kind);
/* Writes txn.begin if that was put off. */
void transaction_tell(unsigned protection);
void transaction_end(unsigned protection, enum oplog_op op);
/* The newest page 1 that was met. */
void transaction_remember(struct transaction *t, const struct page_one *one);
void transaction_count_page(struct transaction *t, uint32_t page);

/* transaction_pages.c: n bytes at p are at offset now */
void transaction_journal_bytes(union slot s, const unsigned char *p, size_t n, uint64_t offset);
void transaction_database_bytes(union slot s, const unsigned char *p, size_t n, uint64_t offset);
void transaction_wal_bytes(union slot s, const unsigned char *p, size_t n, uint64_t offset);
bool transaction_is_journal_header(const unsigned char *p, size_t n);
/* What there is of page 1 at p; false if it is too little, or no page 1. */
bool transaction_page_one(struct page_one *out, const unsigned char *p, size_t n);

#endif
