/* SPDX-License-Identifier: MIT
 *
 * Pinning a snapshot from outside, while a backend under the shim is at work: the backend is held
 * up for no longer than a lock on the database lasts, whatever the directory's size.
 */
#ifndef CORE_PIN_OUTSIDE_H
#define CORE_PIN_OUTSIDE_H

#include "core/base/trouble.h"
#include "core/pin/pin.h"

/* Whether a living process under the shim is the directory's writer; only then a pin can be held.
 */
bool pin_has_writer(int storefd);

struct pin_outside_options {
	const char *path; /* the data directory */
	int dirfd, storefd;
	const char *reason, *description; /* description may be NULL */
	uint64_t wait;			  /* ns, for the database's lock */
	uint64_t limit; /* bytes that may be saved for pins, 0: half of what is free */
};

/*
 * 0 and *id_out. -ENOTSUP: no pin is possible here (no writer under the shim, or one that has no
 * pins, a journal that waits to be rolled back): copy instead. -EBUSY: the database was never free;
 * -ENOSPC: too many are held already.
 */
int pin_outside(struct pins *pins, const struct pin_outside_options *options, uint64_t *id_out,
		struct snapshot_trouble *t);

/* The slot of pin `id`, held or broken; NULL: there is none. */
struct pin_slot *pins_find(struct pins *pins, uint64_t id);

#endif
