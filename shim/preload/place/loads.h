/* SPDX-License-Identifier: MIT
 *
 * An index is loaded file by file, and persisted file by file: a process that loads it while
 * another one persists it would get a part of each. Both have a lock on one byte of the store's
 * loads.lock, which is the index's own: shared while it is loaded, exclusive while it is persisted.
 * Whoever has waited in vain for a bounded time goes on without.
 */
#ifndef PRELOAD_LOADS_H
#define PRELOAD_LOADS_H

#include "preload/place/protection.h"

/* The pickle is about to be opened for reading, not by the writer: waits for its persist. */
void load_begins(union slot s);
/* All files have been read: they are opened once more, for writing. */
void load_has_read(unsigned protection);
/* The database was read, which is the end of a load: the mark that belongs to the index. */
void load_has_asked(unsigned protection);
void loads_fork(void);
/* The directory is let go. */
void loads_stop(unsigned protection);

/* The index of that directory is about to be persisted: h is its lock, or is nothing. */
void loads_keep_out(struct hold *h, unsigned protection, uint32_t directory);

#endif
