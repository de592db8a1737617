/* SPDX-License-Identifier: MIT
 *
 * A transaction that is refused at its commit.
 *
 * ENOSPC makes SQLite roll back all of a transaction by itself in the midst of it. sqlx, through
 * which Chroma 1 uses its static SQLite, goes on counting it as open: a later transaction that is
 * taken back leaves its lock for good, and every write waits 1000 s (decisions.md). EAGAIN at the
 * lock for the commit leaves the transaction open: who began it takes it back. SQLite asks for that
 * lock until its time is over, and sleeps between; those sleeps are cut short.
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

/* SQLite's pause after such a refusal, in the thread that was refused. */
bool commits_cut_sleep_slow(void);
extern __thread bool commits_refused __attribute__((tls_model("initial-exec")));
static inline bool commits_cut_sleep(void)
{
	return __builtin_expect(commits_refused, 0) && commits_cut_sleep_slow();
}

#endif
