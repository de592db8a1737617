/* SPDX-License-Identifier: MIT
 *
 * What pins.c (the files of pins) has for changes.c (what is put into them).
 */
#ifndef PRELOAD_PINS_INTERNAL_H
#define PRELOAD_PINS_INTERNAL_H

#include "preload/pin/pins.h"

/* The protection's pins, for a moment with the descriptor of pins/ that finding files there takes.
 * 0 or -errno; then there is nothing to leave. */
int pins_enter(unsigned protection, struct pins *p);
void pins_leave(unsigned protection, struct pins *p);

/* What is about to be destroyed in [offset, offset + length); hostfd -1: none, or not readable. The
 * file counts as being changed until pin_range_saved(), if *pinned is not 0 then. 0 or -errno. */
int pin_save_range(unsigned protection, uint32_t name, int hostfd, uint64_t offset, uint64_t length,
		   uint64_t *pinned);
void pin_range_saved(unsigned protection, uint32_t name, uint64_t pinned);
/* A change that began before the newest pin, and was no part of what that saves. A segment's files
 * have their persist, which the pin has. */
void pin_note_late(unsigned protection, uint32_t name, uint64_t epoch);
/* After a save: the pins break if it failed, or if they outgrew their room. */
void pin_conclude(unsigned protection, int r);

#endif
