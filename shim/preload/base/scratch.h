/* SPDX-License-Identifier: MIT
 *
 * Room for a path, off the stack: the host may call from a signal handler, or from a thread with a
 * stack of a few KiB. A few pages that are taken and given back by one atomic step each, in a
 * handler on top of a call as well; when all are taken, memory is asked for.
 */
#ifndef PRELOAD_SCRATCH_H
#define PRELOAD_SCRATCH_H

#define SCRATCH_SIZE 4096 /* PATH_MAX */

char *scratch_take(void); /* NULL: there is no memory */
void scratch_give(char *const *scratch);

/* Taken where it is declared, and given back at the end of its block. */
#define SCRATCH(name) char *const name __attribute__((cleanup(scratch_give))) = scratch_take()

#endif
