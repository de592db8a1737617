/* SPDX-License-Identifier: MIT
 *
 * A transaction that is refused at its commit, or in WAL mode at its lock for writing.
 *
 * ENOSPC makes SQLite roll back all of a transaction by itself in the midst of it. sqlx, through
 * which Chroma 1 uses its static SQLite, goes on counting it as open: a later transaction that is
 * taken back leaves its lock for good, and every write waits 1000 s (decisions.md). EAGAIN at the
 * lock for the commit leaves the transaction open: who began it takes it back. SQLite asks for that
 * lock until its time is over, and sleeps between; those sleeps are cut short.
 *
 * In WAL mode a commit takes no lock, and of the errors that it can have none leaves the
 * transaction open. The lock for writing, before anything is changed, is the last one that may
 * fail.
 */
#ifndef PRELOAD_REFUSE_COMMITS_H
#define PRELOAD_REFUSE_COMMITS_H

#include "preload/place/change.h"

/* Whether SQLite's rolling back by itself is to be avoided, for the transaction that is open. */
bool commits_refuse(unsigned protection);
/* The open transaction of the directory, by the thread that has it. */
void commits_put_off(unsigned protection);
/* c takes the lock that a commit begins with, and its transaction was put off. */
bool commits_come(const struct change *c);
/* It is refused now. False: this SQLite has been asking for so long that it had better go on. */
bool commits_refuse_now(const struct change *c, bool *first_out);

/* c begins a transaction in WAL mode, by a SQLite whose rolling back by itself is to be avoided. */
bool commits_wal_begins(const struct change *c);
/* It is refused now; as above. *first_out: the thread has not just asked. */
bool commits_refuse_wal(bool *first_out);

/* SQLite's pause after such a refusal, in the thread that was refused. */
bool commits_cut_sleep_slow(void);
extern __thread bool commits_refused __attribute__((tls_model("initial-exec")));
static inline bool commits_cut_sleep(void)
{
	return __builtin_expect(commits_refused, 0) && commits_cut_sleep_slow();
}

#endif
