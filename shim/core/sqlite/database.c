/* SPDX-License-Identifier: MIT
 *
 * A thin layer over SQLite for reading Chroma's database.
 */
#include "core/sqlite/database.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 5000 /* a transaction of Chroma's rarely takes longer */

int database_error(int code)
{
	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_FORMAT:
		return -EBADMSG;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_PERM:
	case SQLITE_AUTH:
	case SQLITE_CANTOPEN:
		return -EACCES;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_ERROR: /* no such table or column, in a statement of ours */
		return -ENOENT;
	case SQLITE_INTERRUPT:
		return -EINTR;
	default:
		return -EIO;
	}
}

static int give_if_other(int fd, uid_t owner, gid_t group)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == owner && st.st_gid == group
		   ? 0
		   : fchown(fd, owner, group);
}

void database_spare_owners(void)
{
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

	if (vfs && vfs->iVersion >= 3 && vfs->xSetSystemCall)
		vfs->xSetSystemCall(vfs, "fchown", (sqlite3_syscall_ptr)give_if_other);
}

/* "file:" + the path with everything but plain characters escaped + the options */
static char *make_uri(const char *dir)
{
	static const char hex[] = "0123456789ABCDEF", options[] = "?mode=ro";
	const char *parts[] = {dir, "/" CHROMA_DATABASE};
	char *uri = malloc(3 * strlen(dir) + sizeof("file:/" CHROMA_DATABASE) + sizeof(options));
	char *at = uri;
	unsigned i;
	const char *p;

	if (!uri)
		return NULL;
	at = stpcpy(at, "file:");
	for (i = 0; i < 2; i++) {
		for (p = parts[i]; *p; p++) {
			if (isalnum((unsigned char)*p) || strchr("/-_.", *p)) {
				*at++ = *p;
				continue;
			}
			*at++ = '%';
			*at++ = hex[(unsigned char)*p >> 4];
			*at++ = hex[*p & 15];
		}
	}
	stpcpy(at, options);
	return uri;
}

void database_configure(sqlite3 *db)
{
	sqlite3_extended_result_codes(db, 1);
	sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
	/* The schema of a damaged file may say anything: no functions with side effects. */
	sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
}

bool database_is_plain(const char *dir)
{
	static const char *const suffixes[] = {"", "-journal", "-wal", "-shm"};
	char path[PATH_MAX];
	struct stat st;
	unsigned i;

	for (i = 0; i < 4; i++) {
		int n = snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE "%s", dir, suffixes[i]);

		if (n < (int)sizeof(path) && stat(path, &st) == 0 && !S_ISREG(st.st_mode))
			return false;
	}
	return true;
}

int database_open(const char *dir, sqlite3 **out)
{
	char *uri;
	int code;

	*out = NULL;
	if (!database_is_plain(dir))
		return -ENOTSUP;
	uri = make_uri(dir);
	if (!uri)
		return -ENOMEM;
	code = sqlite3_open_v2(uri, out, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
	free(uri);
	if (code == SQLITE_OK)
		database_configure(*out);
	return database_error(code);
}

int database_prepare(sqlite3 *db, sqlite3_stmt **out, const char *sql)
{
	return database_error(sqlite3_prepare_v2(db, sql, -1, out, NULL));
}

int database_step(sqlite3_stmt *statement)
{
	int code = sqlite3_step(statement);

	return code == SQLITE_ROW ? 1 : database_error(code);
}

static int may_create(void *context, int action, const char *first, const char *second,
		      const char *database, const char *trigger)
{
	bool is_virtual = *(const bool *)context;

	(void)database;
	(void)trigger;
	switch (action) {
	case SQLITE_CREATE_TABLE:
	case SQLITE_CREATE_INDEX:
	case SQLITE_REINDEX:
	case SQLITE_FUNCTION:
	case SQLITE_INSERT:
	case SQLITE_UPDATE:
	case SQLITE_READ:
		return SQLITE_OK;
	case SQLITE_CREATE_VTABLE:
		return sqlite3_stricmp(second, "fts5") == 0 ? SQLITE_OK : SQLITE_DENY;
	case SQLITE_SELECT: /* FTS5 does; a table would be made of it */
		return is_virtual ? SQLITE_OK : SQLITE_DENY;
	case SQLITE_PRAGMA:
		return strcmp(first, "data_version") == 0 ? SQLITE_OK : SQLITE_DENY;
	default:
		return SQLITE_DENY;
	}
}

int database_create(sqlite3 *db, const char *sql)
{
	bool is_virtual = sqlite3_strnicmp(sql, "CREATE VIRTUAL ", 15) == 0;
	sqlite3_stmt *s = NULL;
	int r;

	if (sqlite3_strnicmp(sql, "CREATE ", 7) != 0)
		return -EACCES;
	sqlite3_set_authorizer(db, may_create, &is_virtual);
	r = database_prepare(db, &s, sql); /* what follows its end does not count */
	if (r == 0)
		r = database_step(s);
	sqlite3_finalize(s);
	sqlite3_set_authorizer(db, NULL, NULL);
	return r;
}

/* Rows from one database to another. */
struct copying {
	sqlite3 *from, *to;
	const char *table, *key, *value;
	const char *as, *name; /* instead of the key's value, and of what is in `name`, or NULL */
	bool lenient;
	sqlite3_stmt *get, *put;
	int key_at, name_at; /* among the columns, or -1 */
};

/* Of the columns that both have. */
static int prepare_copy(struct copying *c)
{
	char *columns = sqlite3_mprintf(""), *marks = sqlite3_mprintf(""), *sql;
	sqlite3_stmt *names = NULL;
	int count = 0, r = database_prepare(c->to, &names, "SELECT name FROM pragma_table_info(?)");

	c->key_at = c->name_at = -1;
	if (r == 0)
		sqlite3_bind_text(names, 1, c->table, -1, SQLITE_STATIC);
	while (r == 0 && (r = database_step(names)) == 1) {
		const char *name = (const char *)sqlite3_column_text(names, 0);

		r = database_has_column(c->from, c->table, name);
		if (r <= 0)
			continue;
		r = 0;
		c->name_at = strcmp(name, "name") == 0 ? count : c->name_at;
		c->key_at = strcmp(name, c->key) == 0 ? count : c->key_at;
		columns = sqlite3_mprintf("%z%s\"%w\"", columns, count ? ", " : "", name);
		marks = sqlite3_mprintf("%z%s?", marks, count++ ? ", " : "");
	}
	sqlite3_finalize(names);
	sql = sqlite3_mprintf("SELECT %s FROM \"%w\" WHERE \"%w\" = ?", columns, c->table, c->key);
	if (r == 0 && count)
		r = sql && columns && marks ? database_prepare(c->from, &c->get, sql) : -ENOMEM;
	sqlite3_free(sql);
	sql = sqlite3_mprintf("INSERT %sINTO \"%w\"(%s) VALUES (%s)",
			      c->lenient ? "OR IGNORE " : "", c->table, columns, marks);
	if (r == 0 && count)
		r = sql ? database_prepare(c->to, &c->put, sql) : -ENOMEM;
	sqlite3_free(sql);
	sqlite3_free(columns);
	sqlite3_free(marks);
	return r;
}

static int copy_row(const struct copying *c)
{
	const char *instead;
	int i, r;

	for (i = 0; i < sqlite3_column_count(c->get); i++) {
		instead = i == c->name_at ? c->name : i == c->key_at ? c->as : NULL;
		if (instead)
			sqlite3_bind_text(c->put, i + 1, instead, -1, SQLITE_STATIC);
		else
			sqlite3_bind_value(c->put, i + 1, sqlite3_column_value(c->get, i));
	}
	r = database_step(c->put);
	sqlite3_reset(c->put);
	return r;
}

static int copy_rows(struct copying *c)
{
	int r = prepare_copy(c);

	if (c->get)
		sqlite3_bind_text(c->get, 1, c->value, -1, SQLITE_STATIC);
	while (r == 0 && c->get && (r = database_step(c->get)) == 1)
		r = copy_row(c);
	sqlite3_finalize(c->get);
	sqlite3_finalize(c->put);
	return r;
}

int database_copy_rows(sqlite3 *from, sqlite3 *to, const char *table, const char *key,
		       const char *value, const char *name, bool lenient)
{
	return copy_rows(&(struct copying){.from = from,
					   .to = to,
					   .table = table,
					   .key = key,
					   .value = value,
					   .name = name,
					   .lenient = lenient});
}

int database_copy_rows_as(sqlite3 *from, sqlite3 *to, const char *table, const char *key,
			  const char *value, const char *as, const char *name)
{
	return copy_rows(&(struct copying){.from = from,
					   .to = to,
					   .table = table,
					   .key = key,
					   .value = value,
					   .as = as,
					   .name = name});
}

static int exists(sqlite3 *db, const char *sql, const char *first, const char *second)
{
	sqlite3_stmt *s = NULL;
	int r = database_prepare(db, &s, sql);

	if (r == 0) {
		sqlite3_bind_text(s, 1, first, -1, SQLITE_STATIC);
		if (second)
			sqlite3_bind_text(s, 2, second, -1, SQLITE_STATIC);
		r = database_step(s);
	}
	sqlite3_finalize(s);
	return r;
}

int database_has_table(sqlite3 *db, const char *name)
{
	return exists(db, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", name,
		      NULL);
}

int database_has_column(sqlite3 *db, const char *table, const char *column)
{
	return exists(db, "SELECT 1 FROM pragma_table_info(?) WHERE name = ?", table, column);
}

int database_number(sqlite3 *db, const char *sql, const char *text, int64_t *out)
{
	sqlite3_stmt *s = NULL;
	int r = database_prepare(db, &s, sql);

	*out = 0;
	if (r == 0 && text)
		sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
	if (r == 0)
		r = database_step(s);
	if (r == 1)
		*out = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return r < 0 ? r : 0;
}

int database_sequence(sqlite3_stmt *row, int column, uint64_t *out)
{
	int type = sqlite3_column_type(row, column), i;
	const unsigned char *p;

	*out = 0;
	if (type == SQLITE_INTEGER) {
		*out = (uint64_t)sqlite3_column_int64(row, column);
	} else if (type == SQLITE_BLOB) {
		p = sqlite3_column_blob(row, column);
		if (sqlite3_column_bytes(row, column) != 8)
			return SQLITE_TEXT;
		for (i = 0; i < 8; i++)
			*out = *out << 8 | p[i];
	}
	return type;
}
