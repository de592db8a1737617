/* SPDX-License-Identifier: MIT
 *
 * One thread at a time, for what may take long (a file is made, a persist is undone). Whoever waits
 * sleeps, and waits as long as it takes. A signal handler on top of the thread whose turn it is
 * would wait for itself: it is told so.
 */
#ifndef PRELOAD_TURN_H
#define PRELOAD_TURN_H

#include <linux/futex.h>
#include <time.h>

#include "preload/place/record.h"

#define TURN_SPINS 100
#define TURN_LOOK UINT64_C(500000000) /* ns between two looks at whether its thread lives */

/* 1: it is this thread's now; 0: not within ns; -EDEADLK: it was this thread's already. */
static inline int turn_take_within(_Atomic uint32_t *turn, uint64_t ns)
{
	static const struct timespec a_little = {0, 1000000};
	uint32_t me = thread_id(), owner = 0;
	uint64_t until = 0;
	int spins;

	for (spins = 0; !atomic_compare_exchange_strong(turn, &owner, me); spins++) {
		if (owner == me)
			return -EDEADLK;
		if (spins > TURN_SPINS) {
			if (!until)
				until = oplog_now() + ns;
			else if (oplog_now() > until)
				return 0;
			SYS4(SYS_futex, turn, FUTEX_WAIT_PRIVATE, owner, &a_little);
		}
		owner = 0;
	}
	return 1;
}

/* The thread whose turn it was is gone, cancelled in the midst of it: it is the next one's. */
static inline bool turn_inherit(_Atomic uint32_t *turn)
{
	uint32_t owner = atomic_load(turn);

	return owner && SYS3(SYS_tgkill, sys_getpid(), owner, 0) == -ESRCH &&
	       atomic_compare_exchange_strong(turn, &owner, thread_id());
}

/* False: it is this thread's already. */
static inline bool turn_take(_Atomic uint32_t *turn)
{
	int r;

	do
		r = turn_take_within(turn, TURN_LOOK);
	while (r == 0 && !turn_inherit(turn));
	return r >= 0;
}

static inline void turn_give(_Atomic uint32_t *turn)
{
	atomic_store(turn, 0);
}

/*
 * The same for what a jump out of a signal handler, or a cancelled thread, would leave half done:
 * this thread's signals wait until it is given. Not for what may take as long as people wait.
 */
static inline int turn_try_whole(_Atomic uint32_t *turn)
{
	int r;

	signals_hold();
	r = turn_take_within(turn, 0);
	if (r <= 0)
		signals_let();
	return r;
}

static inline void turn_give_whole(_Atomic uint32_t *turn)
{
	turn_give(turn);
	signals_let();
}

/* False: it is this thread's already. */
static inline bool turn_take_whole(_Atomic uint32_t *turn)
{
	for (;;) {
		int r = turn_try_whole(turn);

		if (r)
			return r > 0;
		signals_hold();
		if (turn_inherit(turn))
			return true;
		signals_let();
	}
}

#endif
