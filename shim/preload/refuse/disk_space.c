/* SPDX-License-Identifier: MIT
 *
 * Room on the disk: saying no while a no is still clean.
 *
 * At a transaction's first journal header, or first page there, SQLite takes ENOSPC for "database
 * or disk is full", and nothing has happened yet. In the midst of things there is no good moment:
 * hnswlib swallows the error and Chroma purges its queue. So what has begun is helped to its end,
 * if need be with the ballast (ballast.h).
 *
 * A SQLite that is seen from below alone is refused later or earlier: at the lock for the commit
 * (commits.h), or, where there is no room even for a journal, at its open.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "core/base/clock.h"
#include "core/base/disk_left.h"
#include "core/settings/config.h"
#include "preload/base/bounds.h"
#include "preload/base/shim.h"
#include "preload/place/faults.h"
#include "preload/place/lives.h"
#include "preload/refuse/ballast.h"
#include "preload/refuse/commits.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/transactions.h"

#define MIB (UINT64_C(1) << 20)
#define MINUTE_MS 60000u
#define SMALLEST_PAGE 512
#define CREDIT 4 /* segments that may be persisted at about the same time */
/* A backend that is started while the disk is low writes a few rows before it serves reads. */
#define START_TRANSACTIONS 8

enum shortage { ENOUGH, BYTES, INODES, TEMPORARY, QUOTA_LOW, QUOTA };

static struct room {
	_Atomic uint64_t next_look; /* ns, CLOCK_MONOTONIC */
	_Atomic int shortage;
	_Atomic unsigned passed;  /* transactions let through in spite of it at the start */
	_Atomic bool opened;	  /* one was let through at the open of its journal */
	_Atomic uint64_t passing; /* the number of one that may go on to its end */
	_Atomic int credit;	  /* transactions that may change the queue, until credit_until */
	_Atomic uint64_t credit_until;
	_Atomic uint64_t quota_until;
	bool sets_aside; /* it was the writer, and has made it or found it */
	_Atomic uint64_t free, total;
	uint64_t tell_at; /* when the log is told of it next; 0: not yet known */
	atomic_flag at_it;
} rooms[PROTECTIONS];

static struct disk_floor wanted_floor(void)
{
	return (struct disk_floor){settings.min_free_percent, settings.min_free_bytes};
}

static uint64_t floor_of(uint64_t total)
{
	return disk_floor_of(wanted_floor(), total);
}

/* What is free beyond that. */
static uint64_t spare(const struct room *r)
{
	uint64_t floor = floor_of(r->total);

	return r->free > floor ? r->free - floor : 0;
}

static bool ask_left(const struct protection *a, struct disk_left *out)
{
	struct quota quota;

	if (disk_left(a->root_fd, wanted_floor(), out) < 0)
		return false;
	if (fault_of_quota(&quota))
		disk_left_limit(out, wanted_floor(), &quota);
	return true;
}

bool space_make(unsigned protection)
{
	if (!ballast_give_up(protection))
		return false;
	atomic_store(&rooms[protection].next_look, 0);
	return true;
}

/* ---- looking ---- */

static const char *choose_temporary(void)
{
	static const char *const usual[] = {"/var/tmp", "/usr/tmp", "/tmp"};
	const char *chosen = getenv("SQLITE_TMPDIR");
	struct stat st;
	size_t i;

	if (!chosen || !*chosen)
		chosen = getenv("TMPDIR");
	if (chosen && *chosen)
		return chosen;
	for (i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		if (sys_fstatat(AT_FDCWD, usual[i], &st, 0) == 0)
			return usual[i];
	return ".";
}

/* Chosen once, as SQLite does: the environment may be changed by another thread at any time. */
static const char *temporary_directory(void)
{
	static char directory[PATH_MAX] = ".";
	static _Atomic int state; /* 1 being chosen, 2 chosen */
	int not_yet = 0;

	if (atomic_compare_exchange_strong(&state, &not_yet, 1)) {
		const char *chosen = choose_temporary();
		size_t n = strnlen(chosen, sizeof(directory));

		if (n < sizeof(directory))
			memcpy(directory, chosen, n + 1);
		atomic_store(&state, 2);
	}
	return atomic_load(&state) == 2 ? directory : ".";
}

/* With a hysteresis: what was low is low until there is a quarter more. */
static int shortage_of(const struct room *r, const struct disk_left *left, uint64_t now)
{
	int before = atomic_load(&r->shortage);
	uint64_t wanted = floor_of(left->total);
	struct statfs temporary;

	if (before == BYTES || before == QUOTA_LOW)
		wanted += wanted / 4;
	if (left->free < wanted)
		return left->of_quota ? QUOTA_LOW : BYTES;
	if (left->inodes < CONFIG_FEW_INODES)
		return INODES;
	if (left->quota_inodes < CONFIG_FEW_INODES || now < atomic_load(&r->quota_until))
		return QUOTA;
	if (SYS2(SYS_statfs, temporary_directory(), &temporary) == 0 && temporary.f_blocks &&
	    (uint64_t)temporary.f_bavail * (uint64_t)temporary.f_bsize < MIB)
		return TEMPORARY;
	return ENOUGH;
}

/* Whether it was full when last asked; remembered for each disk, since many directories may be on
 * one. */
static bool was_full(dev_t dev, bool full)
{
	static struct {
		_Atomic uint64_t dev; /* + 1 */
		_Atomic bool full;
	} disks[8];
	unsigned i;

	for (i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
		uint64_t none = 0;

		atomic_compare_exchange_strong(&disks[i].dev, &none, (uint64_t)dev + 1);
		if (!none || none == (uint64_t)dev + 1)
			return atomic_exchange(&disks[i].full, full);
	}
	return true;
}

static void warn_full(const struct protection *a, struct room *r, unsigned protection,
		      bool of_quota)
{
	uint64_t used = r->total ? 100 - r->free * 100 / r->total : 0;
	bool full = settings.warn_full && used >= settings.warn_full;
	struct oplog_record record = {.op = OP_WARN_SPACE, .offset = -1, .length = r->free};
	char percent[4];
	size_t n = 0;

	if (!full) {
		if (used + 2 < settings.warn_full)
			was_full(a->dev, false);
		return;
	}
	if (was_full(a->dev, true))
		return;
	if (used >= 100)
		percent[n++] = '1';
	if (used >= 10)
		percent[n++] = (char)('0' + used / 10 % 10);
	percent[n++] = (char)('0' + used % 10);
	percent[n] = '\0';
	shim_say(a->spelling[0], of_quota ? ": the disk quota is " : ": the disk is ", percent,
		 " % full; writes will be refused when too little is left (CHROMASHIM_MIN_FREE)",
		 NULL);
	record_put(protection, &record, percent, n);
}

/* For those who ask later when the disk got full. Short processes need not tell. */
static void tell_room(const struct protection *a, struct room *r, unsigned protection, uint64_t now)
{
	uint64_t interval = bound_of("disk", MINUTE_MS) * (SECOND / 1000);
	struct oplog_record record = {
	    .op = OP_DISK, .offset = (int64_t)r->free, .length = r->total};
	bool is_due = r->tell_at && now >= r->tell_at;

	if (!r->tell_at || is_due)
		r->tell_at = now + interval;
	if (is_due && a->acts)
		record_act(protection, &record, NULL, 0);
}

/* Asked seldom while there is plenty, often when it gets tight or there is no ballast. */
static uint64_t next_interval(const struct room *r)
{
	uint64_t wanted = floor_of(r->total);

	if (ballast_at_hand((unsigned)(r - rooms)) < ballast_size(r->total))
		return SECOND / 100;
	if (r->free > 8 * wanted)
		return SECOND;
	return r->free > 2 * wanted ? SECOND / 10 : SECOND / 100;
}

static void say_unknown(const struct protection *a)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&said))
		shim_say(a->spelling[0],
			 ": cannot tell how much room is left on the disk; writes go on, also "
			 "when it gets full",
			 NULL);
}

static void measure(struct protection *a, struct room *r, unsigned protection, uint64_t now)
{
	struct disk_left left;
	int shortage = ENOUGH;
	bool known = ask_left(a, &left);

	if (known) {
		ballast_find(a);
		r->free = left.free;
		r->total = left.total;
		shortage = shortage_of(r, &left, now);
		warn_full(a, r, protection, left.of_quota);
		tell_room(a, r, protection, now);
	} else {
		say_unknown(a);
	}
	if ((atomic_exchange(&r->shortage, shortage) != ENOUGH) != (shortage != ENOUGH))
		record_feature(a, OPLOG_SPACE_LOW, shortage != ENOUGH);
	if (known && shortage == ENOUGH && writer_is_ours(a)) {
		r->sets_aside = true;
		ballast_make(a, ballast_size(r->total), spare(r));
	}
}

static void look(unsigned protection)
{
	struct protection *a = &protections[protection];
	struct room *r = &rooms[protection];
	uint64_t now = oplog_now();

	if (now < atomic_load(&r->next_look) || atomic_flag_test_and_set(&r->at_it))
		return;
	measure(a, r, protection, now);
	writer_look(a);
	protection_life_look(a);
	atomic_store(&r->next_look, now + next_interval(r));
	atomic_flag_clear(&r->at_it);
}

void rooms_fork(void)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++)
		atomic_flag_clear(&rooms[i].at_it);
}

/* What was set aside for its writes is of no use to anybody now. */
void space_stop(unsigned protection)
{
	if (rooms[protection].sets_aside && !writer_is_foreign(&protections[protection]))
		ballast_remove(&protections[protection]);
	ballast_forget(protection);
	memset(&rooms[protection], 0, sizeof(rooms[protection]));
}

void space_quota_hit(unsigned protection)
{
	atomic_store(&rooms[protection].quota_until, oplog_now() + 10 * SECOND);
	atomic_store(&rooms[protection].next_look, 0);
}

bool space_for(unsigned protection, uint64_t bytes)
{
	struct disk_left left;

	return !ask_left(&protections[protection], &left) ||
	       left.free + ballast_at_hand(protection) >= bytes;
}

/* ---- refusing ---- */

static int refuse_space(const struct change *c, int shortage, int error)
{
	static const char *const why[] = {
	    [BYTES] = "too little room is left on the disk (CHROMASHIM_MIN_FREE)",
	    [INODES] = "the file system has no inodes left",
	    [TEMPORARY] = "the directory for SQLite's temporary files is full",
	    [QUOTA_LOW] = "too little is left of the disk quota (CHROMASHIM_MIN_FREE)",
	    [QUOTA] = "the disk quota is used up",
	};
	bool of_quota = shortage == QUOTA_LOW || shortage == QUOTA;

	refuse_say(c, OP_REFUSE_SPACE, error,
		   (const char *const[]){protections[c->slot.protection].spelling[0],
					 ": writing is refused: ", why[shortage],
					 shortage == TEMPORARY ? ": " : "",
					 shortage == TEMPORARY ? temporary_directory() : "",
					 ". Reads go on; writes will by themselves once there is "
					 "room. Remove something else",
					 of_quota ? " of this user, or have the quota raised."
						  : ", or enlarge the disk.",
					 NULL});
	return error;
}

/* Chroma goes on as if a persist had succeeded that was undone: it would move the mark, and remove
 * the records from its queue. */
static int refuse_after_lost_persist(const struct change *c)
{
	refuse_say(c, OP_NOTE, -EIO,
		   (const char *const[]){protections[c->slot.protection].spelling[0],
					 ": writing is refused: the end of a persist could not be "
					 "written, and what it was to save is only in Chroma's "
					 "queue. Look at the disk, and restart the backend.",
					 NULL});
	return -EIO;
}

/* ---- what is about to begin ---- */

enum beginning {
	NOTHING,     /* or in the midst of something */
	FILE_MADE,   /* one that is neither SQLite's nor a segment's */
	JOURNAL,     /* a transaction's is opened, by a SQLite seen from below alone */
	COMMIT,	     /* of a transaction that was to be refused */
	WAL_LOCK,    /* a transaction's in WAL mode, by a SQLite seen from below alone */
	TRANSACTION, /* not known yet what for */
	PAGE,	     /* the first that it changes: tells */
};

static enum beginning beginning_of_write(const struct change *c)
{
	const struct iovec *first = c->iov;
	bool page = c->iov_count == 1 && first->iov_len >= SMALLEST_PAGE;

	if (c->slot.role == ROLE_JOURNAL) {
		if (c->iov_count > 0 &&
		    transaction_journal_starts(c->slot, first->iov_base, first->iov_len, c->offset))
			return TRANSACTION;
		return page && transaction_journaled(c->slot.protection) == 0 ? PAGE : NOTHING;
	}
	if (c->slot.role != ROLE_WAL)
		return NOTHING;
	if (transaction_wal_starts(c->slot, c->offset))
		return TRANSACTION;
	/* Until its last frame is there, all of it can be refused. */
	return page ? PAGE : NOTHING;
}

static enum beginning beginning_of_open(const struct change *c)
{
	struct stat st;

	if (c->slot.role == ROLE_JOURNAL && (c->flags & O_CREAT) &&
	    commits_refuse(c->slot.protection))
		return JOURNAL;
	return c->slot.role == ROLE_OTHER && (c->flags & O_CREAT) &&
		       sys_fstatat(protections[c->slot.protection].root_fd, c->place->relative, &st,
				   AT_SYMLINK_NOFOLLOW) == -ENOENT
		   ? FILE_MADE
		   : NOTHING;
}

static enum beginning beginning_of(const struct change *c)
{
	switch (c->op) {
	case OP_LOCK:
		return commits_come(c) ? COMMIT : commits_wal_begins(c) ? WAL_LOCK : NOTHING;
	case OP_WRITE:
	case OP_PWRITE:
	case OP_WRITEV:
	case OP_PWRITEV:
		return beginning_of_write(c);
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
		return beginning_of_open(c);
	default:
		return NOTHING;
	}
}

/*
 * A leaf of Chroma's queue, by the topics in its rows. New records go through the queue first; the
 * transactions that follow (metadata, marks) and those of reads change other tables first. They
 * must pass: a read of a collection begins by finishing what was left of its writes.
 */
static bool is_queue(const struct iovec *page)
{
	static const char topic[] = "persistent://";
	const char *p = page->iov_base, *end = p + page->iov_len - (sizeof(topic) - 2);

	while (p < end && (p = memchr(p, topic[0], (size_t)(end - p))) != NULL) {
		if (memcmp(p, topic, sizeof(topic) - 1) == 0)
			return true;
		p++;
	}
	return false;
}

/* ---- what passes in spite of a shortage ---- */

/* A persist is about to end; what it makes superfluous in the queue will be removed from there. */
static void expect_purge(struct room *r)
{
	if (atomic_fetch_add(&r->credit, 1) >= CREDIT)
		atomic_store(&r->credit, CREDIT);
	atomic_store(&r->credit_until, oplog_now() + 5 * SECOND);
}

static bool take_credit(struct room *r)
{
	int credit = atomic_load(&r->credit);

	if (oplog_now() > atomic_load(&r->credit_until))
		return false;
	while (credit > 0)
		if (atomic_compare_exchange_strong(&r->credit, &credit, credit - 1))
			return true;
	return false;
}

/* A started backend comes up and serves reads, if there is any room at all. */
static bool has_just_started(struct room *r, uint64_t left)
{
	return left > MIB / 2 && atomic_load(&r->passed) < START_TRANSACTIONS &&
	       atomic_fetch_add(&r->passed, 1) < START_TRANSACTIONS;
}

/*
 * What one transaction may need at its commit. Chroma gets stuck for good when a commit fails, as
 * its SQL library then takes the connection for one that is in a transaction.
 */
static uint64_t enough_for_one(const struct room *r)
{
	uint64_t ballast = ballast_size(r->total) / 2, floor = floor_of(r->total) / 2;
	uint64_t enough = ballast > floor ? ballast : floor;

	return enough < 16 * MIB ? enough : 16 * MIB;
}

static bool may_pass(struct room *r, const struct change *c, enum beginning what)
{
	uint64_t left = r->free + ballast_at_hand(c->slot.protection);
	uint64_t number = transaction_number(c->slot.protection);
	bool passes = false;

	if (what == TRANSACTION && atomic_exchange(&r->opened, false))
		return true;
	/* What a transaction in WAL mode is for is not known when it begins. */
	if (what == WAL_LOCK && atomic_load(&r->shortage) == QUOTA)
		return false;
	if (what == TRANSACTION || what == JOURNAL || what == WAL_LOCK)
		return left >= enough_for_one(r) || has_just_started(r, left);
	if (what == PAGE)
		passes = atomic_load(&r->passing) == number || !is_queue(c->iov) || take_credit(r);
	if (passes)
		atomic_store(&r->passing, number);
	return passes;
}

/* At its first page, or put off to its commit. */
static int refuse_page(const struct change *c, int shortage)
{
	if (c->slot.role == ROLE_JOURNAL && commits_refuse(c->slot.protection)) {
		commits_put_off(c->slot.protection);
		return 0;
	}
	return refuse_space(c, shortage, -ENOSPC);
}

static int refuse_lock(const struct change *c, int shortage, enum beginning what)
{
	bool first;

	if (!(what == COMMIT ? commits_refuse_now(c, &first) : commits_refuse_wal(&first)))
		return 0;
	return first ? refuse_space(c, shortage, -EAGAIN) : -EAGAIN;
}

int space_check(const struct change *c)
{
	struct room *r = &rooms[c->slot.protection];
	enum beginning what;
	int shortage;

	if (role_in_segment(c->slot.role)) {
		if (c->slot.role == ROLE_PICKLE &&
		    (c->op == OP_OPEN || c->op == OP_OPENAT || c->op == OP_CREAT) &&
		    (c->flags & O_ACCMODE) != O_RDONLY)
			expect_purge(r);
		return 0;
	}
	what = beginning_of(c);
	if (what == NOTHING)
		return 0;
	if (atomic_load(&protections[c->slot.protection].persist_lost) && what != FILE_MADE &&
	    what != COMMIT && what != WAL_LOCK)
		return refuse_after_lost_persist(c);
	if (c->slot.role == ROLE_WAL && commits_refuse(c->slot.protection))
		return 0; /* its lock was the last that could be refused */
	look(c->slot.protection);
	shortage = atomic_load(&r->shortage);
	if (shortage == ENOUGH) {
		atomic_store(&r->passed, START_TRANSACTIONS);
		atomic_store(&r->passing, transaction_number(c->slot.protection));
	}
	if (shortage == ENOUGH || may_pass(r, c, what)) {
		if (what == JOURNAL)
			atomic_store(&r->opened, true);
		return 0;
	}
	if (what == COMMIT || what == WAL_LOCK)
		return refuse_lock(c, shortage, what);
	return what == PAGE ? refuse_page(c, shortage) : refuse_space(c, shortage, -ENOSPC);
}
