/* SPDX-License-Identifier: MIT
 *
 * The heap of a command that reads a long log.
 */
#include <malloc.h>

#include "command/base/command.h"

#define KEPT (256 << 20) /* far more than the segments that are open at once */

/*
 * Segments come and go by the megabyte, and a page that was given back costs a fault to have
 * again: a third of all time for a log of ten million records. What is freed is kept for the next
 * one, and the thread that reads ahead takes it from the same heap.
 */
void heap_keep(void)
{
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	mallopt(M_TRIM_THRESHOLD, KEPT);
#endif
}
