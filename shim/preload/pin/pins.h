/* SPDX-License-Identifier: MIT
 *
 * Pins inside the backend: what a pin needs is saved before it is overwritten, and pins are taken
 * before what is risky. The format and its order are specified in chromashim_pin.h.
 *
 * A pin that cannot be kept breaks; nothing here ever fails a call or waits, but for
 * pin_take_waiting().
 */
#ifndef PRELOAD_PINS_H
#define PRELOAD_PINS_H

#include "core/pin/pin.h"
#include "preload/place/change.h"

extern struct pins protection_pins[PROTECTIONS];

/* A directory comes under protection, after torn persists were rolled back. */
void pins_start(unsigned protection);
void pins_fork(void);
/* The directory is let go. */
void pins_stop(unsigned protection);
/* pins_state_lost(), of a protection; in a handler. */
bool pins_are_lost(unsigned protection);

/* Before a change that is about to be made; its group, if it has one, is registered. */
void pin_change_slow(struct change *c);
/* A file of the protection, by its name's number: what it holds in the range is about to be
 * overwritten by the shim itself. The pin that it was saved for, 0: none; for pin_saved_slow()
 * afterwards. */
uint64_t pin_save_slow(unsigned protection, uint32_t name, uint64_t offset, uint64_t length);
void pin_saved_slow(unsigned protection, uint32_t name, uint64_t pinned);

/* Files that are open for pins, and not just now in use, are closed; they are opened again when
 * they are needed. True: there were some. */
bool pins_give_back(void);

/* Whether that inode has a name in pins/. */
bool pins_have(unsigned protection, ino_t ino);

/* Bytes of a file that a pin holds, or may turn out to; not its locks or its mode. */
bool pin_alters(const struct change *c);
/* After it, made or not: what its files are now is what was seen of them last; and it is counted
 * out. */
void pin_change_end(struct change *c);
/* Around whatever changes a pinned file, from before the look whether a pin is held: else who reads
 * a pin may take it for the work of somebody else. */
struct pin_writer *pin_enter(unsigned protection);
/* What pin_enter() gave; NULL: nothing is done. */
void pin_leave(struct pin_writer *writer);

/* Persists whose undo data cannot be kept: 1 one more, -1 one less. No pin is taken meanwhile. */
void pin_unprotected(unsigned protection, int change);

static inline bool pin_is_held(unsigned protection)
{
	return __builtin_expect(pins_epoch(&protection_pins[protection]) != 0, 0);
}

static inline void pin_change(struct change *c)
{
	if (pin_is_held(c->slot.protection))
		pin_change_slow(c);
}

static inline uint64_t pin_save(unsigned protection, uint32_t name, uint64_t offset,
				uint64_t length)
{
	return pin_is_held(protection) ? pin_save_slow(protection, name, offset, length) : 0;
}

static inline void pin_saved(unsigned protection, uint32_t name, uint64_t pinned)
{
	if (pinned)
		pin_saved_slow(protection, name, pinned);
}

/* ---- taking one: take.c ---- */

/* Before a change: is it one that a snapshot is to be pinned for? */
void pin_trigger(const struct change *c);

/*
 * Pins now. The database must be at rest: its journal written and nothing else, or locked for
 * reading. Returns the number, or -errno.
 */
int64_t pin_take(unsigned protection, const char *reason, const char *description);
/* Waits until the database is at rest, up to `patience` ns. -ETIMEDOUT, -ENOTSUP (no locks that
 * last here). `fresh`: also if one was pinned a moment ago, whose number it gives else. */
int64_t pin_take_waiting(unsigned protection, const char *reason, const char *description,
			 uint64_t patience, bool fresh);

/* A transaction that changed something is over: if it is no part of the burst under way, that is
 * over, too. */
void pins_transaction_committed(unsigned protection, uint64_t number);

/* It could not be kept: breaks all, and says so. */
void pins_fail(unsigned protection, int error, const char *what);

#endif
