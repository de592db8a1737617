/* SPDX-License-Identifier: MIT
 *
 * Databases: open and close, backup, checkpoint, extensions.
 */
#include "preload/sqlite/calls.h"

#include <fcntl.h>
#include <string.h>

#include "preload/sqlite/record.h"

/* ---- open ---- */

/* SQLite's own word for the file first: it has seen through URIs and links. */
static bool is_protected(const struct sqlite_calls *calls, sqlite3 *db, const char *path,
			 struct sqlite_handle *h)
{
	const char *file = db ? calls->sqlite3_db_filename(db, "main") : NULL;
	A_PLACE(place);

	if (!atomic_load(&protections_used))
		return false;
	if (!file || !*file)
		file = path;
	if (!file || !*file || !place_find(&place, AT_FDCWD, file, true) ||
	    place.slot.role == ROLE_STORE)
		return false;
	h->protected = true;
	h->protection = place.slot.protection;
	h->database = place.slot.name;
	return true;
}

static int opened(unsigned copy, int ret, const char *path, sqlite3 **db, uint64_t begin, int flags)
{
	struct sqlite_handle h = {.copy = (uint8_t)copy};
	struct oplog_record r = {.op = OP_SQL_OPEN, .time = begin, .offset = -1};
	int saved = errno;

	if (is_protected(&sqlite_copies[copy].calls, db ? *db : NULL, path, &h)) {
		r.duration = oplog_now() - begin;
		r.result = sqlite_result(ret);
		r.arg = (unsigned)flags;
		sqlite_put(&h, &r);
	}
	if (db && *db && (h.protected || sqlite_is_ambiguous()))
		sqlite_remember(*db, &h);
	errno = saved;
	return ret;
}

/* Which SQLite is to open a database. What none can open is at least no wild pointer. */
static const struct sqlite_calls *open_begin(void *caller, sqlite3 **db, unsigned *copy_out)
{
	*copy_out = sqlite_copy_for_open(caller);
	if (*copy_out == SQLITE_COPIES && db)
		*db = NULL;
	return &sqlite_copies[*copy_out].calls;
}

#define DEFAULT_FLAGS (SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)

int do_sqlite3_open(void *caller, const char *path, sqlite3 **db)
{
	unsigned copy;
	const struct sqlite_calls *calls = open_begin(caller, db, &copy);
	uint64_t begin = oplog_now();

	return opened(copy, calls->sqlite3_open(path, db), path, db, begin, DEFAULT_FLAGS);
}

int do_sqlite3_open16(void *caller, const void *path, sqlite3 **db)
{
	unsigned copy;
	const struct sqlite_calls *calls = open_begin(caller, db, &copy);
	uint64_t begin = oplog_now();

	return opened(copy, calls->sqlite3_open16(path, db), NULL, db, begin, DEFAULT_FLAGS);
}

int do_sqlite3_open_v2(void *caller, const char *path, sqlite3 **db, int flags, const char *vfs)
{
	unsigned copy;
	const struct sqlite_calls *calls = open_begin(caller, db, &copy);
	uint64_t begin = oplog_now();

	return opened(copy, calls->sqlite3_open_v2(path, db, flags, vfs), path, db, begin, flags);
}

/* ---- close ---- */

/* Taken out first, since the address may be another database's as soon as it is closed. */
static int close_with(void *caller, sqlite3 *db, bool v2)
{
	struct sqlite_handle h;
	bool known = !sqlite_depth && sqlite_handle_take(db, &h);
	const struct sqlite_calls *calls = sqlite_calls_for(caller, known ? &h : NULL);
	struct oplog_record r = {.op = OP_SQL_CLOSE, .offset = -1};
	int ret, saved;

	if (!known)
		return v2 ? calls->sqlite3_close_v2(db) : calls->sqlite3_close(db);
	r.time = oplog_now();
	sqlite_depth++;
	ret = v2 ? calls->sqlite3_close_v2(db) : calls->sqlite3_close(db);
	sqlite_depth--;
	saved = errno;
	r.duration = oplog_now() - r.time;
	r.result = sqlite_result(ret);
	if (h.protected)
		sqlite_put(&h, &r);
	if (ret != SQLITE_OK) /* statements are left: it stays open */
		sqlite_remember(db, &h);
	errno = saved;
	return ret;
}

int do_sqlite3_close(void *caller, sqlite3 *db)
{
	return close_with(caller, db, false);
}

int do_sqlite3_close_v2(void *caller, sqlite3 *db)
{
	return close_with(caller, db, true);
}

/* ---- backup: one record for all of it; length = pages copied, arg = 1 into, 0 out of ---- */

static void put_backup(const struct sqlite_handle *h, uint64_t pages, int code)
{
	struct oplog_record r = {
	    .op = OP_SQL_BACKUP,
	    .time = h->begin,
	    .duration = h->spent,
	    .offset = -1,
	    .length = pages,
	    .result = sqlite_result(code),
	    .arg = h->into,
	};

	sqlite_put(h, &r);
}

sqlite3_backup *do_sqlite3_backup_init(void *caller, sqlite3 *to, const char *to_name,
				       sqlite3 *from, const char *from_name)
{
	struct sqlite_handle *into = sqlite_handle_find(to), *out_of = sqlite_handle_find(from);
	struct sqlite_calls *calls = sqlite_calls_for(caller, into ? into : out_of);
	struct sqlite_handle h = {.copy = (uint8_t)sqlite_copy_index(calls)};
	uint64_t begin = oplog_now();
	sqlite3_backup *ret = calls->sqlite3_backup_init(to, to_name, from, from_name);
	int saved = errno;

	if (sqlite_depth)
		return ret;
	if (into && into->protected)
		h = *into;
	else if (out_of && out_of->protected)
		h = *out_of;
	h.into = into && into->protected;
	h.begin = begin;
	h.error = SQLITE_OK;
	if (ret && (h.protected || sqlite_is_ambiguous()))
		sqlite_remember(ret, &h);
	else if (!ret && h.protected)
		put_backup(&h, 0, calls->sqlite3_errcode(to));
	errno = saved;
	return ret;
}

int do_sqlite3_backup_step(void *caller, sqlite3_backup *backup, int pages)
{
	struct sqlite_handle *h = sqlite_handle_find(backup);
	struct sqlite_calls *calls = sqlite_calls_for(caller, h);
	uint64_t begin;
	int ret, saved;

	if (!h || !h->protected || sqlite_depth)
		return calls->sqlite3_backup_step(backup, pages);
	begin = oplog_now();
	sqlite_depth++;
	ret = calls->sqlite3_backup_step(backup, pages);
	sqlite_depth--;
	saved = errno;
	h->spent += oplog_now() - begin;
	h->error = ret == SQLITE_DONE ? SQLITE_OK : ret;
	errno = saved;
	return ret;
}

int do_sqlite3_backup_finish(void *caller, sqlite3_backup *backup)
{
	struct sqlite_handle h;
	bool known = !sqlite_depth && sqlite_handle_take(backup, &h);
	const struct sqlite_calls *calls = sqlite_calls_for(caller, known ? &h : NULL);
	uint64_t begin, pages;
	int ret, saved;

	if (!known || !h.protected)
		return calls->sqlite3_backup_finish(backup);
	pages = (unsigned)calls->sqlite3_backup_pagecount(backup) -
		(unsigned)calls->sqlite3_backup_remaining(backup);
	begin = oplog_now();
	sqlite_depth++;
	ret = calls->sqlite3_backup_finish(backup);
	sqlite_depth--;
	saved = errno;
	h.spent += oplog_now() - begin;
	put_backup(&h, pages, ret != SQLITE_OK ? ret : h.error);
	errno = saved;
	return ret;
}

/* ---- checkpoint: length = frames in the WAL, offset = frames copied, arg = mode ---- */

static int checkpoint(const struct sqlite_calls *calls, sqlite3 *db, const char *name, int mode,
		      int *log, int *done)
{
	struct sqlite_handle *h = sqlite_depth ? NULL : sqlite_handle_find(db);
	struct oplog_record r = {.op = OP_SQL_CHECKPOINT, .time = oplog_now()};
	int frames = -1, copied = -1, ret, saved;

	if (!h || !h->protected)
		return calls->sqlite3_wal_checkpoint_v2(db, name, mode, log, done);
	sqlite_depth++;
	ret = calls->sqlite3_wal_checkpoint_v2(db, name, mode, &frames, &copied);
	sqlite_depth--;
	saved = errno;
	if (log)
		*log = frames;
	if (done)
		*done = copied;
	r.duration = oplog_now() - r.time;
	r.length = frames > 0 ? (unsigned)frames : 0;
	r.offset = copied;
	r.result = sqlite_result(ret);
	r.arg = (unsigned)mode;
	sqlite_put(h, &r);
	errno = saved;
	return ret;
}

int do_sqlite3_wal_checkpoint(void *caller, sqlite3 *db, const char *name)
{
	const struct sqlite_handle *h = sqlite_handle_find(db);
	const struct sqlite_calls *calls = sqlite_calls_for(caller, h);

	if (!h || !h->protected || sqlite_depth)
		return calls->sqlite3_wal_checkpoint(db, name);
	return checkpoint(calls, db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

int do_sqlite3_wal_checkpoint_v2(void *caller, sqlite3 *db, const char *name, int mode, int *log,
				 int *done)
{
	return checkpoint(sqlite_calls_for(caller, sqlite_handle_find(db)), db, name, mode, log,
			  done);
}

/* ---- extensions; texts = the file ---- */

int do_sqlite3_load_extension(void *caller, sqlite3 *db, const char *file, const char *entry,
			      char **message)
{
	struct sqlite_handle *h = sqlite_handle_find(db);
	const struct sqlite_calls *calls = sqlite_calls_for(caller, h);
	struct oplog_record r = {.op = OP_SQL_LOAD, .offset = -1};
	int ret, saved;

	if (!h || !h->protected || sqlite_depth)
		return calls->sqlite3_load_extension(db, file, entry, message);
	r.time = oplog_now();
	ret = calls->sqlite3_load_extension(db, file, entry, message);
	saved = errno;
	r.duration = oplog_now() - r.time;
	r.file = h->database;
	r.result = sqlite_result(ret);
	record_put(h->protection, &r, file, file ? strlen(file) : 0);
	errno = saved;
	return ret;
}
