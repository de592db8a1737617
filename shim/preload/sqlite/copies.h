/* SPDX-License-Identifier: MIT
 *
 * The SQLite libraries of this process, and which of them a call is meant for.
 *
 * RTLD_NEXT does not do: CPython's _sqlite3 brings libsqlite3 in with RTLD_LOCAL, and extension
 * modules carry copies of their own. So every shared object that defines sqlite3_open_v2 is a copy.
 * With one copy it is always that one; with more, what the dynamic linker would have taken without
 * us: the global scope first, then what the caller's own library depends on.
 */
#ifndef PRELOAD_SQLITE_COPIES_H
#define PRELOAD_SQLITE_COPIES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "preload/base/types.h"

#define SQLITE_COPIES 8

/* What a copy does not have answers SQLITE_MISUSE, or NULL. No member is ever NULL. */
struct sqlite_calls {
#define CALL(...)
#define SAME(...)
#define LATE(...)
#define VARIADIC(...)
#define LEFT(...)
#define SQLITE(ret, name, params, args, body) ret(*name) params;
#include "preload/base/calls.def"
#undef CALL
#undef SAME
#undef LATE
#undef VARIADIC
#undef LEFT
#undef SQLITE
	/* Not interposed, for our own questions. */
	const char *(*sqlite3_db_filename)(sqlite3 *db, const char *schema);
	const char *(*sqlite3_sql)(sqlite3_stmt *stmt);
	int (*sqlite3_stmt_readonly)(sqlite3_stmt *stmt);
	int (*sqlite3_total_changes)(sqlite3 *db);
	int (*sqlite3_errcode)(sqlite3 *db);
	int (*sqlite3_backup_pagecount)(sqlite3_backup *backup);
	int (*sqlite3_backup_remaining)(sqlite3_backup *backup);
};

struct sqlite_copy {
	struct sqlite_calls calls;
	uintptr_t base;	  /* where it is mapped */
	uint8_t object;	  /* as object_of() numbers it */
	_Atomic bool met; /* a database was opened in it through us */
};

extern struct sqlite_copy sqlite_copies[SQLITE_COPIES + 1]; /* the last one has nothing */
extern _Atomic unsigned sqlite_copies_used;

/* For a call that opens a database: looks for copies loaded since. Index into sqlite_copies. */
unsigned sqlite_copy_for_open(void *caller);
/* For any other call whose handle is not known. */
unsigned sqlite_copy_of(void *caller);

/*
 * A library has locked, as SQLite does, a protected database: a SQLite, static or not. Told to the
 * op log once for each directory and segment.
 */
void sqlite_copy_seen(unsigned protection, uint8_t object);
void sqlite_copies_fork(void);

/* Whether calls of this library's SQLite pass through here. */
bool sqlite_is_above(uint8_t object);

#endif
