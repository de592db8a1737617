/* SPDX-License-Identifier: MIT
 *
 * Chunks and their names on their way to the disk; for chunks.c. 0 or -errno.
 */
#ifndef CORE_CHUNK_SYNC_H
#define CORE_CHUNK_SYNC_H

#include "core/snapshot/chunks.h"

/* Whether a sync of the whole file system tells what could not be written. */
bool chunk_sync_is_heard(void);
/* What is written and not named yet. */
int chunk_sync_batch(struct chunks *c);
/* The directories in which names were given, and chunks/ itself. */
int chunk_sync_names(struct chunks *c);

#endif
