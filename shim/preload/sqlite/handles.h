/* SPDX-License-Identifier: MIT
 *
 * SQLite's handles (databases, statements, backups) that the shim has to know again.
 *
 * Lock-free and of fixed size: 64-byte lines of seven keys, so that a handle which is not here
 * costs one line. A handle is used by one thread at a time, as SQLite asks, and so is what is known
 * of it.
 */
#ifndef PRELOAD_SQLITE_HANDLES_H
#define PRELOAD_SQLITE_HANDLES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sqlite_handle {
	uint8_t copy; /* index into sqlite_copies */
	uint8_t protection;
	bool protected; /* of a database in a protected directory; else known only for its copy */
	bool attach;	/* a statement that may make it so */
	bool running;	/* a statement between its first step and its end */
	bool read_only;
	bool into;	   /* a backup that writes the protected database */
	bool cut;	   /* its text is longer than its name */
	uint32_t database; /* name of the protected database */
	uint32_t sql;	   /* name of the statement's text, 0: not yet, or none */
	void *db;
	/* This run, or this backup. */
	uint64_t begin, spent, rows;
	int64_t changed;
	int error;
};

extern _Atomic unsigned sqlite_handles_used;

struct sqlite_handle *sqlite_handle_search(const void *key);

/* NULL: not known. Costs one load as long as none is. */
static inline struct sqlite_handle *sqlite_handle_find(const void *key)
{
	if (atomic_load_explicit(&sqlite_handles_used, memory_order_relaxed) == 0)
		return NULL;
	return sqlite_handle_search(key);
}

/* False: no room. A key that is known is overwritten. */
bool sqlite_handle_add(const void *key, const struct sqlite_handle *value);
/* Takes it out before it is freed, since its address may be used again at once. */
bool sqlite_handle_take(const void *key, struct sqlite_handle *out);

#endif
