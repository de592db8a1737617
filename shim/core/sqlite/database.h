/* SPDX-License-Identifier: MIT
 *
 * Opening a Chroma database for reading with SQLite's own library, and asking it things.
 *
 * SQLite's errors become -errno: -EBADMSG the file is damaged or no database, -EBUSY locked,
 * -ENOSPC, -ENOMEM, -EACCES may not or cannot open, -EROFS a journal waits to be rolled back,
 * -ENOENT a table or column is missing, -EINTR interrupted, -EIO anything else;
 * sqlite3_errmsg() has the words.
 */
#ifndef CORE_DATABASE_H
#define CORE_DATABASE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/fileio.h"
#include "core/base/names.h"

/* Neither it nor what SQLite keeps beside it is something other than a file: SQLite would wait for
 * a FIFO for ever. */
bool database_is_plain(const char *dir);

/*
 * Once, before anything is opened. As root SQLite gives each -wal that it opens to the owner of the
 * database, also to read, and also if it is his: that moves its change time, and breaks the pins
 * that rest on it. From now on only what belongs to somebody else is given away.
 */
void database_spare_owners(void);

/*
 * Opens <dir>/chroma.sqlite3 read-only (mode=ro, taking part in SQLite's locking). *out is the
 * caller's to close with sqlite3_close(), also after an error unless it is NULL. Nothing is read
 * yet.
 */
int database_open(const char *dir, sqlite3 **out);

/*
 * The same for a database with a hot journal, which database_open() cannot read (-EROFS): as it
 * will be once SQLite has rolled the journal back. Also for one in WAL mode that nobody has open:
 * with its log, but without the files that SQLite would make. Nothing is written; while it is open,
 * a lock keeps others from rolling back. -EBUSY: somebody is doing that just now.
 */
int database_open_rolled_back(int dirfd, sqlite3 **out);

/* Whichever of the two is right; *out as with database_open(). The schema has been read. */
int database_open_now(const char *dir, int dirfd, sqlite3 **out);

/* One whose bytes come from elsewhere, with no journal or log to it. The source's data is lent. */
int database_open_source(const struct file_source *source, sqlite3 **out);

/* The settings that every connection here has; the above do it. */
void database_configure(sqlite3 *db);

/* 0 or the -errno for a result code of SQLite (basic or extended; DONE and ROW are 0). */
int database_error(int code);

int database_prepare(sqlite3 *db, sqlite3_stmt **out, const char *sql);

/* 1: a row, 0: no more, or -errno. */
int database_step(sqlite3_stmt *statement);

/*
 * Makes what the text of a schema that is not trusted says: one table, index or FTS5 table.
 * -EACCES if it says anything else.
 */
int database_create(sqlite3 *db, const char *sql);

/*
 * Rows of a table of one database whose `key` is `value` into another: the columns that both have,
 * and `name`, if it is not NULL, in the place of the column of that name. Rows that are there
 * already: left alone if `lenient`, else -EIO.
 */
int database_copy_rows(sqlite3 *from, sqlite3 *to, const char *table, const char *key,
		       const char *value, const char *name, bool lenient);
/* Likewise, with `as` in the place of the key's value; not lenient. */
int database_copy_rows_as(sqlite3 *from, sqlite3 *to, const char *table, const char *key,
			  const char *value, const char *as, const char *name);

/* 1, 0, or -errno. */
int database_has_table(sqlite3 *db, const char *name);
int database_has_column(sqlite3 *db, const char *table, const char *column);

/* The one number that sql gives with `text` as its parameter (NULL: none); 0 if it is NULL. */
int database_number(sqlite3 *db, const char *sql, const char *text, int64_t *out);

/*
 * A sequence number as Chroma stores it: INTEGER (>= 1.0), or the 8-byte big-endian BLOB of
 * Python's releases. Returns its type: SQLITE_INTEGER, SQLITE_BLOB, SQLITE_NULL, or another (then
 * *out is 0).
 */
int database_sequence(sqlite3_stmt *row, int column, uint64_t *out);

#endif
