/* SPDX-License-Identifier: MIT
 *
 * Chunks and their names on their way to the disk; for chunks.c. 0 or -errno.
 */
#ifndef CORE_CHUNK_SYNC_H
#define CORE_CHUNK_SYNC_H

#include "core/snapshot/chunks.h"

/* Whether a sync of the whole file system tells what could not be written. */
bool chunk_sync_is_heard(void);
/*
 * Names may be there that have not reached the disk yet: whoever finds the mark syncs all
 * directories before its first manifest. Its own name is synced with the batch, before one of that
 * has its name.
 */
#define CHUNK_SYNC_MARK ".naming"
void chunk_sync_doubt_names(struct chunks *c); /* if the mark is there */
int chunk_sync_mark_names(struct chunks *c);
/* What is written and not named yet. */
int chunk_sync_batch(struct chunks *c);
/* The directories in which names were given, and chunks/ itself; then the mark goes. */
int chunk_sync_names(struct chunks *c);

#endif
