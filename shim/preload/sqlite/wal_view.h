/* SPDX-License-Identifier: MIT
 *
 * A database in WAL mode as a source of pages: by the log and its index, as whoever holds the lock
 * for writing finds it. Where the log has no frame of a page, it is read from the database.
 */
#ifndef PRELOAD_SQLITE_WAL_VIEW_H
#define PRELOAD_SQLITE_WAL_VIEW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/fileio.h"

#define VIEW_AT_ONCE 256u

struct wal_view {
	int database, log, index;
	uint32_t page_size, change, page_count;
	uint64_t salt;	 /* another one: the log was begun anew */
	uint32_t frames; /* that count: with fewer of them it is as it was before */
	uint32_t *pages; /* the caller's, room for VIEW_AT_ONCE */
};

/* By the host's descriptors. False: they are not there, or the log is too long. */
bool wal_view_open(unsigned protection, uint8_t object, struct wal_view *v);
/* A file_source's read; data is the view. One page at a time. */
ssize_t wal_view_read(const struct file_source *source, void *buf, size_t n, uint64_t at);

#endif
