/* SPDX-License-Identifier: MIT
 *
 * Hydration: what a pin holds is copied into chunks and a manifest, and becomes a snapshot that
 * stands by itself.
 *
 * It may be killed at any point: a manifest in state `hydrating` says how far it has come, and the
 * next one goes on there. For the same reason it can be done in pieces, so that nobody else has to
 * wait for the store.
 */
#ifndef CORE_HYDRATE_H
#define CORE_HYDRATE_H

#include "core/pin/pin.h"
#include "core/snapshot/snapshot.h"

struct hydrate_options {
	int dirfd;	 /* the data directory */
	uint64_t rate;	 /* bytes a second, 0: as fast as it goes */
	uint64_t budget; /* ns, then it stops for a while; 0: none */
	/* The pin stays as a base (pin/base.h), so that the next snapshot reads only what has
	 * changed; only one that nobody else gives up. Whoever asks for it lets go of it in time.
	 */
	bool hold_on;
	snapshot_progress_fn *progress; /* bytes; may be NULL */
	void *context;
};

/*
 * The store is open for SNAPSHOT_ADD. 1: not done yet, call it again. 0: it is over, and the pin
 * let go of: *out is complete, or broken with the trouble told (also where the pin was broken
 * already), or in no state at all: Chroma had not made its tables yet, and there is no snapshot.
 * *out is to be freed in any case. -errno (-ENOSPC, -ENOMEM): nothing has changed, try
 * again.
 */
int hydrate_pin(struct snapshot_store *s, struct pins *pins, struct pin_slot *slot,
		const struct hydrate_options *options, struct manifest *out,
		struct snapshot_trouble *t);

/* A pin or a hydrating manifest whose other half is gone (by a reboot): says that it is broken. How
 * many there were, or -errno. */
int hydrate_give_up_lost(struct snapshot_store *s, struct pins *pins);

/* What a pin looks like in a list of snapshots. *out is to be freed. -ENOMEM. */
int hydrate_describe(const struct pin_slot *slot, struct manifest *out);

#endif
