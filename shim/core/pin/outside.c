/* SPDX-License-Identifier: MIT
 *
 * Pinning from outside.
 *
 * In rollback mode SQLite's SHARED lock keeps the database from being written; in WAL mode the
 * write lock does (BEGIN IMMEDIATE), and a checkpoint that is under way writes what the log says
 * anyway.
 */
#include "core/pin/outside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/alive.h"
#include "core/base/fileio.h"
#include "core/base/tree.h"
#include "core/oplog/oplog.h"
#include "core/sqlite/database.h"
#include "core/sqlite/page.h"
#include "core/undo/undo.h"

#define WAL_FILE CHROMA_DATABASE "-wal"
#define GROUP_TRIES 200
#define STEP_MAX 50000000 /* ns */

bool pin_has_writer(int storefd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = file_open_at(storefd, WRITER_LOCK);
	bool held = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;

	if (fd >= 0)
		close(fd);
	return held;
}

struct pin_slot *pins_find(struct pins *pins, uint64_t id)
{
	unsigned i;

	for (i = 0; pins->state && i < PIN_SLOTS; i++) {
		uint32_t state = __atomic_load_n(&pins->slots[i].state, __ATOMIC_SEQ_CST);

		if ((state == PIN_HELD || state == PIN_BROKEN) && pins->slots[i].id == id)
			return &pins->slots[i];
	}
	return NULL;
}

/* ---- the lock ---- */

/* 0 or 1, or -errno. */
static int database_is_wal(const struct pin_outside_options *o)
{
	struct file_source source;
	int fd = file_open_at(o->dirfd, CHROMA_DATABASE), r = fd;

	if (fd >= 0)
		r = file_source_open(&source, fd);
	if (r == 0)
		r = sqlite_is_wal(&source);
	/* Nothing in this process has a lock on it yet, that closing could drop. */
	if (fd >= 0)
		close(fd);
	return r;
}

static int lock_database(const struct pin_outside_options *o, bool wal, sqlite3 **db)
{
	char path[64];
	int64_t ignored;
	int r;

	*db = NULL;
	if (!database_is_plain(o->path))
		return -ENOTSUP;
	if (!wal) {
		r = database_open(o->path, db);
		if (r == 0)
			r = database_error(sqlite3_exec(*db, "BEGIN", NULL, NULL, NULL));
	} else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d/" CHROMA_DATABASE, o->dirfd);
		r = database_error(sqlite3_open_v2(path, db, SQLITE_OPEN_READWRITE, NULL));
		/* Were it the last to close, it would write the log into the database. */
		if (r == 0)
			sqlite3_db_config(*db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		if (r == 0)
			r = database_error(sqlite3_exec(*db, "BEGIN IMMEDIATE", NULL, NULL, NULL));
	}
	return r == 0 ? database_number(*db, "SELECT count(*) FROM sqlite_master", NULL, &ignored)
		      : r;
}

/* ---- under it ---- */

static uint64_t size_of(int dirfd, const char *name)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

/* As the library reckons it. */
static void set_limit(struct pins *pins, const struct pin_outside_options *o)
{
	uint64_t half = tree_room(pins->dirfd) / 2;
	uint64_t limit = o->limit && o->limit < half ? o->limit : half;

	__atomic_store_n(&pins->state->limit, limit, __ATOMIC_SEQ_CST);
}

static int pin_locked(struct pins *pins, const struct pin_outside_options *o, bool wal,
		      uint64_t life, uint64_t *id_out)
{
	struct pin_slot *slot = NULL;
	struct pin_request q = {.reason = o->reason,
				.description = o->description,
				.database_size = size_of(o->dirfd, CHROMA_DATABASE),
				.wal_size = wal ? size_of(o->dirfd, WAL_FILE) : 0,
				.wal = wal,
				.life = life};
	uint64_t began = oplog_now();
	int undofd = file_open_directory_at(o->storefd, UNDO_DIR), tries, r = -EAGAIN;

	set_limit(pins, o);
	for (tries = 0; tries < GROUP_TRIES && r == -EAGAIN; tries++) {
		r = pin_begin(pins, &q, &slot);
		if (r < 0)
			break;
		r = pin_add_groups(pins, slot, undofd, o->dirfd);
		if (r == 0)
			r = pin_list_make(pins, slot->id, o->dirfd);
		if (r < 0)
			pin_drop(pins, slot);
	}
	if (r == 0) {
		*id_out = slot->id;
		slot->held_ns = oplog_now() - began;
		pin_hold(slot); /* from now on it may be copied, and its slot be another's */
	}
	if (undofd >= 0)
		close(undofd);
	return r == -EAGAIN ? -EBUSY : r;
}

/* The writer, or whoever has the database open and may become it, has this very state mapped; one
 * of an older version, or with one that was replaced meanwhile, would not save for it. */
static bool can_pin(struct pins *pins, const struct pin_outside_options *o)
{
	return (pin_has_writer(o->storefd) || alive_in_use(o->storefd, -1)) &&
	       pins_are_current(pins) && pins_have_writer(pins);
}

static int try_once(struct pins *pins, const struct pin_outside_options *o, uint64_t life,
		    uint64_t *id_out, struct snapshot_trouble *t)
{
	sqlite3 *db = NULL;
	int wal = database_is_wal(o), r;

	if (wal < 0)
		return wal;
	r = lock_database(o, wal, &db);
	if (r < 0)
		snprintf(t->detail, sizeof(t->detail), "%s", db ? sqlite3_errmsg(db) : "");
	/* The writer's death would let anybody write. */
	if (r == 0)
		r = can_pin(pins, o) ? pin_locked(pins, o, wal, life, id_out) : -ENOTSUP;
	sqlite3_close(db);
	return r == -EROFS ? -ENOTSUP : r;
}

static int try_often(struct pins *pins, const struct pin_outside_options *o, uint64_t life,
		     uint64_t *id_out, struct snapshot_trouble *t)
{
	uint64_t deadline = oplog_now() + o->wait;
	struct timespec step = {0, 1000000};

	for (;;) {
		int r;

		*t = (struct snapshot_trouble){CHROMA_DATABASE, {0}};
		r = try_once(pins, o, life, id_out, t);
		if (r != -EBUSY || oplog_now() > deadline)
			return r;
		nanosleep(&step, NULL);
		if (step.tv_nsec < STEP_MAX)
			step.tv_nsec += step.tv_nsec / 2;
	}
}

int pin_outside(struct pins *pins, const struct pin_outside_options *o, uint64_t *id_out,
		struct snapshot_trouble *t)
{
	uint64_t life = 0;
	int fd, r;

	if (!pins->state || !can_pin(pins, o))
		return -ENOTSUP;
	fd = alive_open(o->storefd);
	if (fd >= 0)
		alive_begin(fd, &life);
	r = try_often(pins, o, life, id_out, t);
	if (fd >= 0)
		close(fd);
	return r;
}
