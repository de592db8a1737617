/* SPDX-License-Identifier: MIT
 *
 * Is a snapshot good for what it is kept for? Each chunk is compared with its name; then its
 * database is opened from them with SQLite (integrity_check, the full-text index), and every
 * segment checked against it, as `check --full` does with a directory. Nothing is copied.
 */
#ifndef CORE_VERIFY_H
#define CORE_VERIFY_H

#include "core/snapshot/restore.h"

/*
 * Sets m's state to verified or broken, its trouble and the time, and writes it; the store is open
 * for SNAPSHOT_ADD, so that others may add meanwhile, or SNAPSHOT_CHANGE. A damaged chunk is set
 * aside, so that the next snapshot writes it again. 0 whatever was found; -errno (as -ENOSPC,
 * -EBUSY) if it could not be tried or told: then nothing has changed. What could not be judged
 * leaves the state complete, with the reason in `trouble`.
 */
int verify_snapshot(struct snapshot_store *s, struct manifest *m, snapshot_progress_fn *progress,
		    void *context, struct snapshot_trouble *t);

enum verify_verdict { VERIFY_GOOD, VERIFY_DAMAGED, VERIFY_UNKNOWN };

/* The same look at a directory that nobody else uses. `why` (room bytes) says what was found first,
 * if not good. */
int verify_directory(int dirfd, enum verify_verdict *out, char *why, size_t room);

#endif
