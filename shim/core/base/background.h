/* SPDX-License-Identifier: MIT
 *
 * Work that gives way to the backend's: at low priority for the processor and the disk.
 */
#ifndef CORE_BACKGROUND_H
#define CORE_BACKGROUND_H

/* The calling thread, from now on. */
void background_enter(void);

/* Runs it in a thread of its own that has entered, and waits for it. */
int background_wait_for(int (*run)(void *context), void *context);

#endif
