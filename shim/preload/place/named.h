/* SPDX-License-Identifier: MIT
 *
 * The directories that CHROMASHIM_DIR names. Every child of a backend has that variable, and most
 * have nothing to do with the data: a directory is taken under protection when the process first
 * names something in it, not at its start. But for the one process that `chromashim run` becomes,
 * and where a persist may wait to be undone.
 */
#ifndef PRELOAD_NAMED_H
#define PRELOAD_NAMED_H

#include <stdatomic.h>
#include <stdbool.h>

struct protection;

extern _Atomic unsigned named_waiting; /* directories that have not been met yet */

static inline bool named_wait(void)
{
	return atomic_load_explicit(&named_waiting, memory_order_relaxed) != 0;
}

/* In the constructor. One that is relative to the working directory is taken at once; if not to
 * wait, all are. */
void named_read(const char *dirs, bool wait, struct protection *(*claim)(int dirfd));

/*
 * Whether an absolute path is one of those that wait, or in one, which is then taken under
 * protection. By the text alone, or for a path without links also by what the directory's own leads
 * to.
 */
bool named_meet(const char *path);
bool named_meet_real(const char *path);

/* All of them. */
void named_take(void);

#endif
