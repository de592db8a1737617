/* SPDX-License-Identifier: MIT
 *
 * SQLite seen from below: transactions recognised by the file protocol, for every SQLite there is.
 *
 * The bodies of the calls tell what SQLite did to its database, journal, WAL and lock bytes, each
 * after the call succeeded; this room turns it into txn.* records. One database (chroma.sqlite3) a
 * protected directory. Nothing here fails a call, allocates, or waits.
 */
#ifndef PRELOAD_TRANSACTIONS_H
#define PRELOAD_TRANSACTIONS_H

#include <sys/types.h>

#include "preload/files.h"

/* A record lock of type F_RDLCK, F_WRLCK or F_UNLCK was given on [start, start + length). */
void transaction_locked(union slot s, short type, off_t start, off_t length);
/* n bytes at buf were written at offset. */
void transaction_written(union slot s, const void *buf, size_t n, off_t offset);
void transaction_truncated(union slot s, off_t size);
/* The file was opened; created: it did not exist before. */
void transaction_opened(union slot s, int flags);
void transaction_unlinked(union slot s);
/* In a forked child: its parent's transaction is none of its own. */
void transactions_fork(void);

#endif
