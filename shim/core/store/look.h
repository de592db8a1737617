/* SPDX-License-Identifier: MIT
 *
 * What a backend that is about to open a database, and the command that looks at its directory
 * before, tell each other: one word of a memory file that both have mapped. The backend waits only
 * for so long, and nothing may be exchanged under it once it has gone on.
 */
#ifndef CORE_LOOK_H
#define CORE_LOOK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum look_state {
	LOOK_READS,   /* nothing is changed */
	LOOK_HEALS,   /* on a copy */
	LOOK_CHANGES, /* the directory itself: wait for the end */
	LOOK_IS_OVER, /* all is done, or the backend has not waited: change nothing */
};

struct look {
	_Atomic uint32_t state;
};

/* False: the backend has gone on. */
static inline bool look_go_on(struct look *l, enum look_state next)
{
	uint32_t now = atomic_load(&l->state);

	while (now != LOOK_IS_OVER)
		if (atomic_compare_exchange_weak(&l->state, &now, (uint32_t)next))
			return true;
	return false;
}

#endif
