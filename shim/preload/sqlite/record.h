/* SPDX-License-Identifier: MIT
 *
 * Records of SQLite's calls, shared by calls.c and statements.c.
 */
#ifndef PRELOAD_SQLITE_RECORD_H
#define PRELOAD_SQLITE_RECORD_H

#include "preload/base/shim.h"
#include "preload/place/record.h"
#include "preload/sqlite/copies.h"
#include "preload/sqlite/handles.h"

/* How deep this thread is in calls to SQLite that are recorded. */
extern __thread unsigned sqlite_depth __attribute__((tls_model("initial-exec")));

/* The SQLite that a call is for. h may be NULL. */
static inline struct sqlite_calls *sqlite_calls_for(void *caller, const struct sqlite_handle *h)
{
	if (h)
		return &sqlite_copies[h->copy].calls;
	if (__builtin_expect(atomic_load_explicit(&sqlite_copies_used, memory_order_relaxed) == 1,
			     1))
		return &sqlite_copies[0].calls;
	return &sqlite_copies[sqlite_copy_of(caller)].calls;
}

static inline unsigned sqlite_copy_index(const struct sqlite_calls *calls)
{
	return (unsigned)((const struct sqlite_copy *)calls - sqlite_copies);
}

_Static_assert(offsetof(struct sqlite_copy, calls) == 0, "sqlite_copy_index() casts");

/* With more than one copy, a handle must be known to find its own. */
static inline bool sqlite_is_ambiguous(void)
{
	return atomic_load_explicit(&sqlite_copies_used, memory_order_relaxed) > 1;
}

/* One copy, and no handle that is worth a look. */
static inline bool sqlite_is_plain(void)
{
	return atomic_load_explicit(&sqlite_handles_used, memory_order_relaxed) == 0 &&
	       atomic_load_explicit(&sqlite_copies_used, memory_order_relaxed) == 1;
}

/* A handle to be remembered; a protected one that finds no room is counted as lost. */
void sqlite_remember(const void *key, const struct sqlite_handle *value);

/*
 * The name of a statement's text, with which all its later records can do; 0 if texts are not
 * wanted, or more different ones were met than are kept.
 */
uint32_t sqlite_text_name(unsigned protection, const char *sql, size_t size, bool *cut_out);

/*
 * Writes a record about a statement. r->file is set here: the text's name if there is one, else
 * the database's, and then the text follows the record.
 */
void sqlite_put_text(const struct sqlite_handle *h, struct oplog_record *r, const char *sql,
		     size_t size);
/* A record about a database. */
void sqlite_put(const struct sqlite_handle *h, struct oplog_record *r);

/* What a record gets from the code that SQLite gave. */
static inline int64_t sqlite_result(int code)
{
	return code == SQLITE_ROW || code == SQLITE_DONE ? 0 : -(int64_t)code;
}

#endif
