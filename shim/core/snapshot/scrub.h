/* SPDX-License-Identifier: MIT
 *
 * Reading every chunk that snapshots need, each once, and comparing it with its name: what has
 * changed on the disk since it was written is found, however old it is.
 */
#ifndef CORE_SNAPSHOT_SCRUB_H
#define CORE_SNAPSHOT_SCRUB_H

#include "core/snapshot/snapshot.h"

struct scrub_result {
	uint64_t chunks, bytes; /* that were read; bytes of plain content */
	uint64_t damaged;	/* or not there */
	char first[96];		/* what is wrong with the first one */
};

/*
 * The store is open, at least for SNAPSHOT_KEEP. hurt[i]: list[i] needs a chunk that is damaged;
 * for those that are broken already none is read. 0 whatever was found, or -errno: not all could be
 * read.
 */
int snapshot_scrub(struct snapshot_store *s, const struct manifest *list, size_t count, bool *hurt,
		   snapshot_progress_fn *progress, void *context, struct scrub_result *out);

#endif
