/* SPDX-License-Identifier: MIT
 *
 * Opening is not writing. Every client of Chroma from 1.0 on commits a row of acquire_write when it
 * opens a database: a notebook, a process that starts the server and watches its files (Flask,
 * uvicorn --reload), one that forks those who serve. Who has done nothing else gives the right
 * back, so that whoever writes first has it. The fence, which it had, is the guardian's then
 * (command/guard/fence.c); without a guardian it stays the writer. Who loads an index takes the
 * right again: it may persist it, and what another process wrote meanwhile would not be in its
 * memory.
 */
#ifndef PRELOAD_OPENING_H
#define PRELOAD_OPENING_H

#include "preload/place/change.h"

/* What a process has done since it became the writer. */
enum opening {
	OPENING_NOT,	/* it writes */
	OPENING,	/* nothing yet but RESERVED */
	OPENING_WRITES, /* a journal is begun; of what, is told when it is removed */
	OPENING_ROW	/* that row */
};

/* Whether it may become the writer by this change for that row alone. */
bool opening_begins(const struct protection *a, const struct change *c);
/* Of the writer, before a change: it is more than that. */
bool opening_ends_slow(const struct change *c);
/* So far it is nothing else. */
bool opening_is_all(const struct protection *a);
/* That was all, and it has given back the right. */
static inline bool opening_was_all(const struct protection *a)
{
	return atomic_load(&a->opening) && !writer_is_ours(a);
}

static inline bool opening_ends(const struct change *c)
{
	const struct protection *a = protection_of(c->slot);

	return __builtin_expect(atomic_load_explicit(&a->opening, memory_order_relaxed), 0) &&
	       writer_is_ours(a) && opening_ends_slow(c);
}

#endif
