/* SPDX-License-Identifier: MIT
 *
 * SQLite seen from below: transactions recognised by the file protocol, for every SQLite there is.
 *
 * The bodies of the calls tell what SQLite did to its database, journal, WAL and lock bytes, each
 * after the call succeeded; this room turns it into txn.* records. One database (chroma.sqlite3) a
 * protected directory. Nothing here fails a call, allocates, or waits.
 *
 * What is a transaction, and how it ended:
 *	rollback journal  from RESERVED, or from the journal's header where the lock is kept from
 *			  the transaction before (locking_mode=EXCLUSIVE), to the journal's unlink,
 *			  truncation or zeroed header. A commit if pages reached the database and
 *			  page 1 is not again what the journal has saved.
 *	no journal	  (journal_mode MEMORY or OFF) to the unlock. A commit if page 1 got another
 *			  change counter.
 *	nothing written	  RESERVED and unlock with neither a journal nor a page: a commit of 0 pages
 *			  (a statement that found nothing to change; in journal_mode MEMORY also a
 *			  rollback that had not spilled: from below they are the same).
 *	WAL		  from the write lock to its release. A commit if there was a commit frame.
 *			  Checkpoints and WAL recovery take that lock, too: without a frame of their
 *			  own they are none.
 *	hot journal	  EXCLUSIVE without RESERVED and an existing journal: txn.recover.
 *
 * Known limits, all with locking_mode=EXCLUSIVE: with journal_mode=MEMORY or OFF nothing marks the
 * end of a transaction, all up to the unlock are one; so are, in WAL mode, transactions that follow
 * each other and change the same single page; a
 * rollback there shows only when the next transaction begins; and an UPDATE that leaves every byte
 * as it was counts as rolled back if reads are not told.
 */
#ifndef PRELOAD_TRANSACTIONS_H
#define PRELOAD_TRANSACTIONS_H

#include <sys/types.h>

#include "preload/place/files.h"

/* Who is told, in the thread of the transaction. */
struct transaction_listener {
	void (*committed)(unsigned protection,
			  uint64_t number); /* something was changed; before ended */
	void (*ended)(unsigned protection, bool committed);
};

/* Once, before the first directory. */
void transactions_hand_in(struct transaction_listener listener);

/*
 * A record lock of type F_RDLCK, F_WRLCK or F_UNLCK was given on [start, start + length); length 0
 * is up to the end. As SQLite asked, not as a lock may have been reshaped.
 */
void transaction_locked(union slot s, short type, off_t start, off_t length);
/* n bytes at buf were written at offset. */
void transaction_written(union slot s, const void *buf, size_t n, off_t offset);
/* Such a lock is about to be released. */
void transaction_unlocks(union slot s, off_t start, off_t length);
/* n bytes are about to be written. */
void transaction_writes(union slot s, size_t n, off_t offset);
/*
 * n bytes (0: the end) were read into buf from offset. Not needed, but it tells the schema cookie
 * that was there before a WAL transaction, and settles the limit above.
 */
void transaction_read(union slot s, const void *buf, size_t n, off_t offset);
void transaction_truncated(union slot s, off_t size);
/* The file was opened; flags as given to open(). */
void transaction_opened(union slot s, int flags);
void transaction_unlinked(union slot s);
/* In a forked child: its parent's transaction is none of its own. */
void transactions_fork(void);
/* The directory is let go. */
void transactions_stop(unsigned protection);

/* ---- questions ---- */

/* Is a transaction open? From any thread; the answer may be outdated when it comes. */
bool transaction_open(unsigned protection);
/* The thread that began it, 0 if none is open. */
uint32_t transaction_thread(unsigned protection);
/* The library whose SQLite began it; valid in that thread. */
uint8_t transaction_object(unsigned protection);
/* Its number, as in the records; valid in the thread that began it. */
uint64_t transaction_number(unsigned protection);
/* Pages that are in its journal so far. */
uint32_t transaction_journaled(unsigned protection);
/* A journal with content that is not finalised: outsiders must be able to see that it is hot. */
bool transaction_journal_left(unsigned protection);

/*
 * Before a write of n bytes at buf to offset. The first header of a journal: nothing of the
 * transaction is on the disk, and SQLite takes ENOSPC for "database or disk is full".
 */
bool transaction_journal_starts(union slot s, const void *buf, size_t n, off_t offset);
/* The same for WAL mode: a transaction's first frame. */
bool transaction_wal_starts(union slot s, off_t offset);
/* Whether a library has locked a database as SQLite does: it carries one. */
bool transaction_library(uint8_t object);
/* Whether some SQLite of this process has the database open. */
bool transactions_may_come(unsigned protection);
/* The first page to the database: the journal holds all that changed so far. Not in WAL mode. */
bool transaction_database_starts(union slot s, size_t n, off_t offset);
/* A page 1, to the database: how many pages the transaction has freed, as far as can be told. What
 * is freed is not journaled. */
uint32_t transaction_frees(union slot s, const void *buf, size_t n, off_t offset);
/* A page 1, to the database or the WAL, with another schema cookie than before. */
bool transaction_changes_schema(union slot s, const void *buf, size_t n, off_t offset);

#endif
