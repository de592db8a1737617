/* SPDX-License-Identifier: MIT
 *
 * Taking pins: what they are taken before, and the moment.
 *
 * In the midst of a transaction the moment is its first write to the database: the journal is
 * complete, the database untouched, and the thread holds the lock under which nobody else writes.
 * A transaction that writes another page first has outgrown the page cache; a commit begins with
 * page 1. In WAL mode any moment will do, since what is not committed counts for nothing.
 */
#include <string.h>
#include <sys/vfs.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/base/names.h"
#include "core/sqlite/page.h"
#include "core/undo/undo.h"
#include "preload/base/shim.h"
#include "preload/pin/internal.h"
#include "preload/place/lives.h"
#include "preload/sqlite/carriers.h"
#include "preload/sqlite/transaction_state.h"

#define SHARERS 64   /* steps of a burst that share one pin */
#define HELD_MOST 24 /* automatic pins; of one more, one is given up */
#define TRIES 8
#define STEP UINT64_C(1000000)

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)
#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_SEQ_CST)

/* ---- taking ---- */

static uint64_t size_of(unsigned protection, const char *name)
{
	struct stat st;

	return sys_fstatat(protections[protection].root_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0
		   ? (uint64_t)st.st_size
		   : 0;
}

/* In the midst of a transaction its frames are not part of it: of the last one, which commits it,
 * only the header may be there. */
static uint64_t log_size(unsigned protection)
{
	const struct transaction *t = &transactions[protection];

	if (t->kind == TRANSACTION_WAL && t->thread == thread_id() && t->first_at != NOWHERE)
		return t->first_at;
	return size_of(protection, CHROMA_DATABASE "-wal");
}

/* What pre-images may take: as it is set, and never more than half of what is free. */
static uint64_t limit_of(unsigned protection)
{
	uint64_t limit = settings.undo_size;
	struct statfs fs;

	if (SYS2(SYS_fstatfs, protections[protection].store_fd, &fs) == 0) {
		uint64_t half = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / 2;

		if (!limit || half < limit)
			limit = half;
	}
	return limit;
}

static void record_pin(unsigned protection, uint64_t id, const char *reason, uint64_t ns)
{
	struct oplog_record r = {.op = OP_SNAPSHOT_PIN, .offset = -1, .arg = id, .length = ns};

	record_put(protection, &r, reason, strlen(reason));
}

/* With all slots in use, an automatic pin makes room. */
static int take_place(struct pins *p, const struct pin_request *q, struct pin_slot **out)
{
	int r = pin_begin(p, q, out);

	if (r == -ENOSPC) {
		pins_thin(p, 0);
		r = pin_begin(p, q, out);
	}
	return r;
}

static int add_groups(unsigned protection, struct pins *p, const struct pin_slot *s)
{
	int r, undofd = protections[protection].undo_usable
			    ? protection_folder(&protections[protection], UNDO_DIR)
			    : -1;

	if (protections[protection].undo_usable && undofd < 0)
		return undofd;
	r = pin_add_groups(p, s, undofd, protections[protection].root_fd);
	if (undofd >= 0)
		sys_close(undofd);
	return r;
}

static int pin_once(unsigned protection, struct pins *p, const struct pin_request *q,
		    struct pin_slot **out)
{
	int r = take_place(p, q, out);

	if (r == 0)
		r = add_groups(protection, p, *out);
	if (r == 0)
		r = pin_list_make(p, (*out)->id, protections[protection].root_fd);
	if (r < 0 && *out)
		pin_drop(p, *out);
	return r;
}

/* 0, the slot is out then, or -errno. */
static int take(unsigned protection, struct pins *p, struct pin_request *q, struct pin_slot **out)
{
	int tries, r = -EAGAIN;

	if (!pins_are_current(p)) {
		pins_fail(protection, EOWNERDEAD,
			  "pins/ in the store was replaced; restart the backend");
		return -EOWNERDEAD;
	}
	q->wal = atomic_load(&protections[protection].wal_mode);
	q->database_size = size_of(protection, CHROMA_DATABASE);
	q->wal_size = q->wal ? log_size(protection) : 0;
	STORE(p->state->limit, limit_of(protection));
	for (tries = 0; tries < TRIES && r == -EAGAIN; tries++) {
		*out = NULL;
		r = pin_once(protection, p, q, out);
	}
	return r;
}

int64_t pin_take(unsigned protection, const char *reason, const char *description)
{
	struct pin_request q = {.reason = reason,
				.description = description,
				.life = protection_life(&protections[protection])};
	struct pins *whole = &protection_pins[protection], p;
	uint64_t begin = clock_read(CLOCK_MONOTONIC);
	struct pin_slot *s = NULL;
	uint64_t id, held;
	int r;

	if (!whole->state)
		return -ENOENT;
	r = pins_enter(protection, &p);
	if (r < 0)
		return r;
	r = take(protection, &p, &q, &s);
	pins_leave(protection, &p);
	if (r < 0)
		return r;
	id = s->id;
	s->held_ns = held = clock_read(CLOCK_MONOTONIC) - begin;
	STORE(whole->state->sharers, 0);
	STORE(whole->state->shared, id);
	pin_hold(s); /* from now on it may be copied, and its slot be another's */
	record_pin(protection, id, reason, held);
	pins_thin(whole, HELD_MOST + 1);
	return (int64_t)id;
}

/* ---- bursts ---- */

/*
 * Is there one that holds the moment before this, but for what else was risky? It is over with the
 * first transaction that is no part of it, and does not go on for ever.
 */
static bool is_shared(unsigned protection)
{
	struct pin_header *h = protection_pins[protection].state;

	return settings.burst && LOAD(h->shared) &&
	       __atomic_fetch_add(&h->sharers, 1, __ATOMIC_SEQ_CST) < SHARERS;
}

static bool removing[PROTECTIONS]; /* pinned for what is removed, and nothing was written since */
static uint64_t
    risky[PROTECTIONS]; /* the transaction under way, or the last one: one writer at a time */

void pins_transaction_committed(unsigned protection, uint64_t number)
{
	MAPS_GUARDED;

	removing[protection] = false;
	if (protection_pins[protection].state && risky[protection] != number &&
	    LOAD(protection_pins[protection].state->shared))
		STORE(protection_pins[protection].state->shared, 0);
}

static void pin_for(unsigned protection, const char *reason, const char *description)
{
	int64_t r;

	risky[protection] = transactions[protection].number;
	if (is_shared(protection))
		return;
	r = pin_take(protection, reason, description);
	if (r < 0 && r != -ENOENT) {
		struct oplog_record record = {
		    .op = OP_SNAPSHOT_PIN, .offset = -1, .result = (int32_t)r};

		record_put(protection, &record, reason, strlen(reason));
	}
}

/* ---- triggers ---- */

static void database_trigger(const struct change *c)
{
	unsigned protection = c->slot.protection;
	const struct transaction *t = &transactions[protection];

	if (!c->iov || !transaction_database_starts(c->slot, c->length, c->offset) ||
	    !t->initial_pages)
		return;
	if (c->offset == 0 &&
	    transaction_changes_schema(c->slot, c->iov->iov_base, c->iov->iov_len, 0))
		pin_for(protection, "schema", "before the tables change");
	else if ((uint64_t)transaction_journaled(protection) +
		     transaction_frees(c->slot, c->iov->iov_base, c->iov->iov_len, c->offset) >=
		 settings.bulk_pages)
		pin_for(protection, "bulk", "before many pages change");
	else if (c->offset > 0)
		pin_for(protection, "bulk", "before a transaction larger than the page cache");
}

static void wal_trigger(const struct change *c)
{
	static uint64_t
	    done[PROTECTIONS]; /* the transaction that was pinned for: one writer at a time */
	unsigned protection = c->slot.protection;
	const struct transaction *t = &transactions[protection];

	if (!c->iov || t->kind != TRANSACTION_WAL || done[protection] == t->number)
		return;
	if (c->offset > 0 &&
	    transaction_changes_schema(c->slot, c->iov->iov_base, c->iov->iov_len, c->offset))
		pin_for(protection, "schema", "before the tables change");
	else if (t->pages >= settings.bulk_pages)
		pin_for(protection, "bulk", "before many pages change");
	else
		return;
	done[protection] = t->number;
}

/* Elements, or the database, are about to go, with their file or without. */
static bool destroys(const struct change *c)
{
	struct stat st;
	bool cuts = ((c->op == OP_FTRUNCATE || c->op == OP_TRUNCATE) && c->length == 0) ||
		    ((c->op == OP_OPEN || c->op == OP_OPENAT || c->op == OP_CREAT) &&
		     (c->flags & O_TRUNC) && c->slot.role != ROLE_PICKLE);

	if (c->op != OP_UNLINK && c->op != OP_UNLINKAT && !cuts &&
	    !(change_renames(c) && c->slot.role == ROLE_DATABASE))
		return false;
	return sys_fstatat(protections[c->slot.protection].root_fd,
			   name_text(name_get(c->slot.name)), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st.st_size > 0;
}

/* A directory that is removed file by file is pinned before the first one. */
static void removal_trigger(const struct change *c)
{
	unsigned protection = c->slot.protection;

	if (removing[protection] || !destroys(c) || is_shared(protection))
		return;
	removing[protection] =
	    pin_take_waiting(protection, "bulk",
			     c->slot.role == ROLE_DATABASE ? "before the database is removed"
							   : "before a segment is removed",
			     0, true) > 0;
}

void pin_trigger(const struct change *c)
{
	int saved = errno;

	if (!settings.snapshots || !protection_pins[c->slot.protection].state)
		return;
	if (c->slot.role == ROLE_DATABASE && c->iov)
		database_trigger(c);
	else if (c->slot.role == ROLE_DATABASE)
		removal_trigger(c);
	else if (c->slot.role == ROLE_WAL)
		wal_trigger(c);
	else if (role_in_segment(c->slot.role))
		removal_trigger(c);
	errno = saved;
}

/* ---- at any moment ---- */

/* SQLite's SHARED, on a descriptor of our own: with locks that last, closing it hurts nobody. */
static int lock_database(unsigned protection, int *fd_out)
{
	struct flock lock = {.l_whence = SEEK_SET};
	int fd, r;

	if (atomic_load(&protections[protection].ofd_locks) < 0)
		return -ENOTSUP;
	fd = sys_openat(protections[protection].root_fd, CHROMA_DATABASE,
			O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd;
	if (!carriers_usable(protection, fd)) {
		sys_close(fd);
		return -ENOTSUP;
	}
	lock.l_type = F_RDLCK;
	lock.l_start = SQLITE_PENDING_BYTE; /* a writer that waits goes first */
	lock.l_len = 1;
	r = sys_fcntl(fd, F_OFD_SETLK, (unsigned long)&lock);
	if (r == 0) {
		lock.l_start = SQLITE_SHARED_FIRST;
		lock.l_len = SQLITE_SHARED_SIZE;
		r = sys_fcntl(fd, F_OFD_SETLK, (unsigned long)&lock);
	}
	if (r < 0) {
		sys_close(fd);
		return r;
	}
	*fd_out = fd;
	return 0;
}

/*
 * What a failed transaction, or a process that died in one, has left stands for pages that are not
 * in the database. Nobody holds RESERVED over such a journal.
 */
static bool journal_is_left(unsigned protection, int fd)
{
	struct flock reserved = {
	    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SQLITE_RESERVED_BYTE, .l_len = 1};

	return size_of(protection, CHROMA_DATABASE "-journal") > 0 &&
	       sys_fcntl(fd, F_OFD_GETLK, (unsigned long)&reserved) == 0 &&
	       reserved.l_type == F_UNLCK;
}

static int64_t take_at_rest(unsigned protection, const char *reason, const char *description)
{
	int64_t r;
	int fd = -1;

	if (!atomic_load(&protections[protection].wal_mode)) {
		r = lock_database(protection, &fd);
		if (r < 0)
			return r;
	}
	r = fd >= 0 && journal_is_left(protection, fd) ? -EAGAIN
						       : pin_take(protection, reason, description);
	if (fd >= 0)
		sys_close(fd);
	return r;
}

int64_t pin_take_waiting(unsigned protection, const char *reason, const char *description,
			 uint64_t patience, bool fresh)
{
	static const struct timespec step = {0, STEP};
	uint64_t end = clock_read(CLOCK_MONOTONIC) + patience;
	int64_t r;
	MAPS_GUARDED;

	if (!protection_pins[protection].state)
		return -ENOENT;
	r = (int64_t)LOAD(protection_pins[protection].state->shared);
	if (!fresh && is_shared(protection) && r > 0)
		return r;
	for (;;) {
		r = take_at_rest(protection, reason, description);
		if ((r != -EAGAIN && r != -EACCES) || clock_read(CLOCK_MONOTONIC) >= end)
			return r == -EAGAIN || r == -EACCES ? -ETIMEDOUT : r;
		SYS2(SYS_nanosleep, &step, NULL);
	}
}
