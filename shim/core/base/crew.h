/* SPDX-License-Identifier: MIT
 *
 * The same work, or two pieces of it, by two threads, where there are two processors; or by some
 * that wait for the disk.
 */
#ifndef CORE_CREW_H
#define CORE_CREW_H

#include <stdbool.h>

/* Calls it in this thread, and beside it in another one that has the same priority if there is a
 * processor for it; back when both are done. `is_helper`: in the other one. Not inside a backend.
 */
void crew_run(void (*work)(void *context, bool is_helper), void *context);

/* Two pieces of work beside each other, where there are two processors; else one after the other.
 */
void crew_both(void (*one)(void *context), void (*other)(void *context), void *context);

/* The work of crew_run() with up to `count` others, however many processors there are: the work is
 * to wait. */
void crew_wait(unsigned count, void (*work)(void *context, bool is_helper), void *context);

#endif
