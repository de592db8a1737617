/* SPDX-License-Identifier: MIT
 *
 * Which chunks are needed, and by which snapshot if it is one alone. Memory grows with the chunks
 * that there are, not with the snapshots that share them.
 */
#ifndef CORE_SNAPSHOT_USES_H
#define CORE_SNAPSHOT_USES_H

#include "core/snapshot/manifest.h"

#define CHUNK_SHARED UINT32_MAX

struct chunk_use {
	struct chunk_name name;
	uint32_t owner; /* CHUNK_SHARED: of several */
	bool is_taken;	/* this place in the table */
};

/* Zero-initialised memory is an empty one. */
struct chunk_uses {
	struct chunk_use *table; /* by name */
	size_t room, count;	 /* room: 0 or a power of two */
};

/* All of a manifest, but those of zeros, which have no file. 0 or -ENOMEM. */
int chunk_uses_add(struct chunk_uses *u, const struct manifest *m, uint32_t owner);
/* As chunks_needed_fn; the context is a struct chunk_uses. */
bool chunk_uses_has(void *uses, const struct chunk_name *name);
/* The first place from *at on that is taken; *at is then behind it. NULL: there is none. */
const struct chunk_use *chunk_uses_next(const struct chunk_uses *u, size_t *at);
void chunk_uses_free(struct chunk_uses *u);

#endif
