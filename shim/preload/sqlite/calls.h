/* SPDX-License-Identifier: MIT
 *
 * SQLite seen from above: what the entry points in base/calls.def do.
 *
 * Each calls the SQLite that it stands in for, and if the database is a protected one, records what
 * was asked. Nothing is locked across the call, errno is what SQLite left it, and what SQLite asks
 * of itself, through its own exported functions, is not recorded again. (So is, then, what an
 * application's function does that SQLite calls in the middle of a statement; its transaction is
 * seen from below all the same.)
 */
#ifndef PRELOAD_SQLITE_CALLS_H
#define PRELOAD_SQLITE_CALLS_H

#include "preload/base/types.h"
#include "preload/place/files.h"
#include "preload/sqlite/copies.h"

int do_sqlite3_open(void *caller, const char *path, sqlite3 **db);
int do_sqlite3_open16(void *caller, const void *path, sqlite3 **db);
int do_sqlite3_open_v2(void *caller, const char *path, sqlite3 **db, int flags, const char *vfs);
int do_sqlite3_close(void *caller, sqlite3 *db);
int do_sqlite3_close_v2(void *caller, sqlite3 *db);
int do_sqlite3_prepare(void *caller, sqlite3 *db, const char *sql, int size, sqlite3_stmt **stmt,
		       const char **tail);
int do_sqlite3_prepare_v2(void *caller, sqlite3 *db, const char *sql, int size, sqlite3_stmt **stmt,
			  const char **tail);
int do_sqlite3_prepare_v3(void *caller, sqlite3 *db, const char *sql, int size, unsigned int flags,
			  sqlite3_stmt **stmt, const char **tail);
int do_sqlite3_prepare16(void *caller, sqlite3 *db, const void *sql, int size, sqlite3_stmt **stmt,
			 const void **tail);
int do_sqlite3_prepare16_v2(void *caller, sqlite3 *db, const void *sql, int size,
			    sqlite3_stmt **stmt, const void **tail);
int do_sqlite3_prepare16_v3(void *caller, sqlite3 *db, const void *sql, int size,
			    unsigned int flags, sqlite3_stmt **stmt, const void **tail);
int do_sqlite3_exec(void *caller, sqlite3 *db, const char *sql,
		    int (*row)(void *, int, char **, char **), void *context, char **message);
int do_sqlite3_step(void *caller, sqlite3_stmt *stmt);
int do_sqlite3_reset(void *caller, sqlite3_stmt *stmt);
int do_sqlite3_finalize(void *caller, sqlite3_stmt *stmt);
sqlite3_backup *do_sqlite3_backup_init(void *caller, sqlite3 *to, const char *to_name,
				       sqlite3 *from, const char *from_name);
int do_sqlite3_backup_step(void *caller, sqlite3_backup *backup, int pages);
int do_sqlite3_backup_finish(void *caller, sqlite3_backup *backup);
int do_sqlite3_wal_checkpoint(void *caller, sqlite3 *db, const char *name);
int do_sqlite3_wal_checkpoint_v2(void *caller, sqlite3 *db, const char *name, int mode, int *log,
				 int *done);
int do_sqlite3_load_extension(void *caller, sqlite3 *db, const char *file, const char *entry,
			      char **message);

/* A protected database was opened by this thread: by a call above, perhaps. */
void sqlite_database_opened(union slot s);

#endif
