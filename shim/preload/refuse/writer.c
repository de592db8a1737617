/* SPDX-License-Identifier: MIT
 *
 * One writer: who may change a protected directory.
 *
 * The lock is the kernel's (OFD, on writer.lock), so no death leaves it behind. The file's text
 * tells others who holds it: lines "pid N", "since TIME", "generation N", "command ...". The
 * generation goes up whenever the right to write goes to another process or comes back from a fork:
 * what was loaded into memory in an older one may be out of date.
 */
#include <string.h>

#include "preload/base/shim.h"
#include "preload/persist/persists.h"
#include "preload/place/lives.h"
#include "preload/place/turn.h"
#include "preload/refuse/graphs.h"
#include "preload/refuse/guardian.h"
#include "preload/refuse/heirs.h"
#include "preload/refuse/intent.h"
#include "preload/refuse/older.h"
#include "preload/refuse/opening.h"
#include "preload/refuse/other_openers.h"
#include "preload/refuse/refuse.h"
#include "preload/refuse/writer_refusal.h"
#include "preload/refuse/writer_text.h"
#include "preload/sqlite/carriers.h"
#include "preload/sqlite/transactions.h"

#define MAKING_WAIT UINT64_C(2000000000) /* ns */
#define OPENING_WAIT UINT64_C(2000000000)

static int lock_file(int fd, int cmd, off_t from, off_t length)
{
	struct flock lock = {
	    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from, .l_len = length};
	int r = sys_fcntl(fd, cmd, (unsigned long)&lock);

	if (cmd == F_OFD_GETLK)
		return r < 0 ? r : lock.l_type != F_UNLCK;
	return r;
}

/* Opens and locks. 0, -EAGAIN: another has it, or why there can be no lock at all. */
static int lock_part(struct protection *a, struct hold *h, off_t from, off_t length)
{
	struct stat st, named;
	int r, fd = spare_open(a->store_fd, WRITER_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
			       0600);

	if (fd < 0)
		return fd;
	r = lock_file(fd, F_OFD_SETLK, from, length);
	if (r < 0) {
		sys_close(fd);
		return r == -EACCES ? -EAGAIN : r;
	}
	if (sys_fstat(fd, &st) < 0 ||
	    sys_fstatat(a->store_fd, WRITER_LOCK, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
	    st.st_ino != named.st_ino) {
		sys_close(fd); /* taken away between opening and locking */
		return -EINTR;
	}
	a->writer_ino = st.st_ino;
	return hold_keep(h, fd, a->maps_hold);
}

/* In two parts, since the family keeps the first when it passes on the rest. Others lock them in
 * this order, or the whole file. */
static int try_lock(struct protection *a, int from)
{
	int r;

	protection_life(a); /* tells whether maps hold files open */
	r = lock_part(a, &a->first, from, HEIRS_BYTE);
	if (r == 0)
		r = lock_part(a, &a->rest, from + HEIRS_BYTE, 0);
	if (r < 0)
		hold_let_go(&a->first);
	else
		a->lock_from = from;
	return r;
}

/* ---- becoming the writer ---- */

static void say_unlocked(const struct protection *a)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&said))
		shim_say(a->spelling[0], ": cannot lock ", STORE_NAME "/" WRITER_LOCK,
			 "; a second writer would not be noticed. See that the store is writable "
			 "and its file system has locks, and restart.",
			 NULL);
}

static bool has_lock(const struct protection *a)
{
	return hold_is(&a->first) || hold_is(&a->rest);
}

static void unlock(struct protection *a)
{
	hold_let_go(&a->rest);
	hold_let_go(&a->first);
}

/* The first of a family has written nothing since it forked; has one of its children? */
static int take_back(struct protection *a)
{
	if (heirs_take(a, 0))
		return 0;
	a->left = true;
	unlock(a);
	record_feature(a, OPLOG_HAS_WRITER, false);
	return -EAGAIN;
}

static int take(struct protection *a)
{
	int r, holder;

	if (a->left)
		return -EAGAIN;
	if (heirs_is_first(a))
		return take_back(a);
	holder = a->right ? heirs_holder(a) : 0;
	r = try_lock(a, heirs_from(a));
	if (r < 0 || !a->right || heirs_take(a, holder))
		return r;
	unlock(a);
	return -EAGAIN;
}

/* What was loaded before may be older than what another process has written. */
static void begin_generation(struct protection *a)
{
	uint64_t last = writer_text_generation(a);

	if (a->generation != last)
		graphs_forget(protection_number(a));
	a->generation = last + 1;
	writer_text_sign(a, a->generation, false);
}

static int claim(struct protection *a, bool opens)
{
	bool is_new = false;
	int tries = 0, r = 0;

	if (!turn_take_whole(&a->writer_claim))
		return 0; /* a signal handler on top of the claim; it is told in time */
	if (!writer_is_ours(a)) {
		do
			r = take(a);
		while (r == -EINTR && ++tries < 100);
		if (r >= 0) {
			atomic_store(&a->opening, opens ? OPENING : OPENING_NOT);
			if (opens)
				writer_text_sign(a, writer_text_generation(a), true);
			else
				begin_generation(a);
			atomic_store(&a->writer, shim_pid);
			record_feature(a, OPLOG_HAS_WRITER, true);
			is_new = true;
		}
	}
	turn_give_whole(&a->writer_claim);
	if (is_new)
		guardian_start(a);
	return r;
}

/* 0: this process is the writer (or there can be no lock, which is said); -EBUSY: another is. */
static int become(struct protection *a, const struct change *c)
{
	int r = writer_is_ours(a) || a->store_fd < 0 ? 0 : claim(a, opening_begins(a, c));

	if (r == -EAGAIN)
		return -EBUSY;
	if (r < 0)
		say_unlocked(a);
	return 0;
}

/* Does someone else hold it? Without becoming the writer. */
bool writer_is_foreign(struct protection *a)
{
	int fd, r;

	if (writer_is_ours(a) || a->store_fd < 0 || !turn_take_whole(&a->writer_claim))
		return false;
	fd = writer_is_ours(a)
		 ? -1
		 : sys_openat(a->store_fd, WRITER_LOCK, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	r = fd < 0 ? 0 : lock_file(fd, F_OFD_GETLK, heirs_from(a), 0);
	if (fd >= 0)
		sys_close(fd);
	turn_give_whole(&a->writer_claim);
	return r == 1 || a->left;
}

/* What it has done as the writer was not all for opening: it is the writer from now on. */
void writer_stays(unsigned protection)
{
	struct protection *a = &protections[protection];

	if (atomic_exchange(&a->opening, OPENING_NOT) != OPENING_NOT)
		begin_generation(a);
}

/* Somebody has the right for the moment in which he opens the database. True: ask again. */
static bool wait_for_opener(const struct protection *a, uint64_t *until)
{
	const struct timespec pause = {0, 1000000};
	uint64_t now = oplog_now();

	if (!writer_text_opens(a))
		return false;
	*until = *until ? *until : now + OPENING_WAIT;
	if (now >= *until)
		return false;
	SYS2(SYS_nanosleep, &pause, NULL);
	return true;
}

void writer_loads(union slot s)
{
	struct protection *a = protection_of(s);
	uint64_t last, until = 0;

	if (writer_is_ours(a))
		writer_stays(s.protection);
	if (writer_is_ours(a) || a->store_fd <= 0 || settings.single_writer == SINGLE_WRITER_OFF)
		return;
	do
		if (opening_was_all(a) && claim(a, false) >= 0)
			return;
	while (writer_is_foreign(a) && wait_for_opener(a, &until));
	last = writer_is_foreign(a) ? 0 : writer_text_generation(a);
	if (a->generation != last)
		graphs_forget(s.protection);
	a->generation = last;
}

void writer_look(struct protection *a)
{
	struct stat st;
	int r;

	if (!writer_is_ours(a) || !has_lock(a))
		return;
	r = sys_fstatat(a->store_fd, WRITER_LOCK, &st, AT_SYMLINK_NOFOLLOW);
	if (r == 0 ? st.st_ino == a->writer_ino : r != -ENOENT)
		return;
	r = try_lock(a, 0);
	if (r >= 0)
		writer_text_sign(a, a->generation, false);
	if (r >= 0)
		shim_say(a->spelling[0], ": ", STORE_NAME "/" WRITER_LOCK,
			 " was removed while this process is the writer; it is made again. "
			 "Nothing in the store may be removed while a backend runs.",
			 NULL);
	else
		say_unlocked(a);
}

/* ---- giving it back ---- */

static bool is_idle(unsigned protection)
{
	return !transaction_open(protection) && persists_idle(protection);
}

/* Chroma's own files, but for SQLite's index of its log, which readers write too. */
static bool is_of_chroma(union slot s)
{
	return s.role >= ROLE_DATABASE && s.role <= ROLE_PICKLE && s.role != ROLE_SHM;
}

/* Whether a descriptor could write any of them; or only the database. */
static bool is_open(unsigned protection, bool database_only)
{
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.protection == protection && (s.writable & SLOT_WRITABLE) &&
		    (database_only ? s.role == ROLE_DATABASE : is_of_chroma(s)))
			return true;
	}
	return false;
}

void writer_opened(union slot s, int fd)
{
	struct protection *a = protection_of(s);

	if (s.role != ROLE_DATABASE || !(s.writable & SLOT_WRITABLE) || a->store_fd <= 0 ||
	    atomic_exchange(&a->in_use, true))
		return;
	if (!atomic_exchange(&a->other_openers_looked_for, true))
		other_openers_report(s.protection);
	older_report(a, fd);
	if (!life_use(a, true))
		atomic_store(&a->in_use, false);
}

void writer_give_back(unsigned protection)
{
	struct protection *a = &protections[protection];
	int before;
	MAPS_GUARDED;

	if (atomic_load(&a->in_use) && !is_open(protection, true)) {
		atomic_store(&a->in_use, false);
		life_use(a, false);
	}
	if (!(writer_is_ours(a) || heirs_is_first(a)) || is_open(protection, false) ||
	    !persists_none(protection) || turn_try_whole(&a->writer_claim) <= 0)
		return;
	/* Who comes back meanwhile either is seen here, or waits and then claims it anew. */
	before = atomic_exchange(&a->writer, 0);
	if (is_open(protection, false) || atomic_load(&a->users) > 0) {
		atomic_store(&a->writer, before);
	} else {
		fence_drop(protection);
		unlock(a);
		if (heirs_is_first(a))
			a->right = a->right->outer;
		a->left = false;
		record_feature(a, OPLOG_HAS_WRITER, false);
	}
	turn_give_whole(&a->writer_claim);
}

void writers_closed_slow(void)
{
	unsigned i, used = atomic_load(&protections_used);
	int saved = errno;

	for (i = 0; i < used; i++)
		writer_give_back(i);
	errno = saved;
}

/* Another thread that has asked for RESERVED as the writer asks again (writer_lacks_right()). */
void writer_leaves_slow(unsigned protection)
{
	struct protection *a = &protections[protection];
	MAPS_GUARDED;

	/* A transaction may have ended and was not told. */
	if (!a->guarded || (!opening_is_all(a) && is_idle(protection)))
		writer_stays(protection);
	if (!opening_is_all(a) || turn_try_whole(&a->writer_claim) <= 0)
		return;
	atomic_store(&a->writer, 0);
	if (opening_is_all(a) && is_idle(protection)) {
		writer_text_sign(a, writer_text_generation(a), true); /* the guardian sees that */
		fence_drop(protection);
		unlock(a);
		record_feature(a, OPLOG_HAS_WRITER, false);
	} else {
		atomic_store(&a->writer, shim_pid);
	}
	turn_give_whole(&a->writer_claim);
}

/* ---- passing it on ---- */

static void pass_on(unsigned protection)
{
	struct protection *a = &protections[protection];
	struct right *own;

	if (!writer_is_ours(a) || !has_lock(a) || !is_idle(protection) ||
	    turn_try_whole(&a->writer_claim) <= 0)
		return;
	own = heirs_is_first(a) ? a->right : right_new(a->right, a->lock_from);
	if (own) {
		a->right = own;
		atomic_store(&a->writer, 0);
		fence_rest(protection);
		if (is_idle(protection)) {
			hold_let_go(&a->rest);
			atomic_store(&a->right->holder, 0);
		} else {
			atomic_store(&a->writer, shim_pid);
		}
	}
	turn_give_whole(&a->writer_claim);
}

void writers_before_fork(void)
{
	unsigned i, used = atomic_load(&protections_used);
	int saved = errno;

	if (shim_live && !shim_borrowed())
		for (i = 0; i < used; i++)
			pass_on(i);
	errno = saved;
}

void writers_fork(void)
{
	unsigned i, used = atomic_load(&protections_used);

	heirs_fork();
	for (i = 0; i < used; i++) {
		atomic_store(&protections[i].writer, 0);
		atomic_store(&protections[i].writer_claim, 0);
		atomic_store(&protections[i].in_use, false);
		protections[i].forked |= has_lock(&protections[i]);
		protections[i].left = false;
		if (protections[i].right ? heirs_holder(&protections[i]) != 0
					 : has_lock(&protections[i]))
			protections[i].generation = 0; /* its parent goes on writing */
		hold_fork(&protections[i].first);
		hold_fork(&protections[i].rest);
	}
}

/* ---- what is refused ---- */

/* Chroma makes the directory of an index that is not there also to read, and fills it with the
 * files of an empty one, which are refused to a reader, and goes on without. */
static bool makes_index_for_reading(const struct change *c)
{
	return (c->op == OP_MKDIR || c->op == OP_MKDIRAT) &&
	       name_is_segment(name_get(c->slot.name)) &&
	       transactions_may_come(c->slot.protection) &&
	       writer_is_foreign(protection_of(c->slot));
}

/*
 * Chroma opens an index for writing also to read it, and goes on when it may not; the pickle tells
 * a real persist. So nothing is said, and the log has the call as any other that failed.
 */
static int refuse_index(const struct change *c)
{
	graph_refused(c->slot);
	protection_of(c->slot)->read_beside = true;
	errno = EBUSY; /* what the record has */
	record_end(record_begin(c->slot, c->op, -1, 0, c->arg), -1);
	return -EBUSY;
}

static bool is_index_for_reading(const struct change *c)
{
	return intent_opens(c->op) && c->slot.role >= ROLE_HEADER && c->slot.role <= ROLE_LINKS &&
	       transactions_may_come(c->slot.protection); /* a shell has no database open */
}

int writer_refuse(const struct change *c)
{
	return writer_refusal(c, WRITES);
}

/*
 * Only while opening the database: later this process may have a lock that
 * the writer itself waits for. True: the other has ended.
 */
static bool wait_for_end(struct protection *a, const struct change *c)
{
	const struct timespec pause = {0, 50000000};
	uint64_t until = oplog_now() + settings.wait;
	struct writer_text h;

	if (settings.single_writer != SINGLE_WRITER_WAIT || !intent_opens(c->op) ||
	    c->slot.role != ROLE_DATABASE)
		return false;
	writer_text_read(a, &h);
	shim_say(a->spelling[0], ": waiting for process ", h.pid, " (", h.command,
		 ") to end, which has been writing to this directory since ", h.since, NULL);
	while (writer_is_foreign(a)) {
		if (oplog_now() >= until)
			return false;
		SYS2(SYS_nanosleep, &pause, NULL);
	}
	return true;
}

/*
 * Who has the right to write makes the database next. One that opens it meanwhile could not even
 * read, and would be told that it cannot be opened: it waits for the file, but not for long.
 */
static bool wait_for_database(const struct protection *a, const struct change *c)
{
	const struct timespec pause = {0, 5000000};
	uint64_t until = oplog_now() + MAKING_WAIT;
	struct stat st;
	int r;

	if (!intent_opens(c->op) || c->slot.role != ROLE_DATABASE ||
	    (c->flags & (O_CREAT | O_TRUNC)) != O_CREAT)
		return false;
	while ((r = sys_fstatat(a->root_fd, c->place->relative, &st, AT_SYMLINK_NOFOLLOW)) ==
		   -ENOENT &&
	       oplog_now() < until)
		SYS2(SYS_nanosleep, &pause, NULL);
	return r == 0;
}

/* `cat backup >chroma.sqlite3`: some shells open it themselves, and have cat write. */
static bool writes_for_parent(const struct protection *a, const struct change *c)
{
	struct writer_text h;

	if (!(c->slot.writable & SLOT_INHERITED) || c->op == OP_LOCK)
		return false;
	writer_text_read(a, &h);
	return writer_text_is_parent(&h);
}

static bool is_allowed(struct protection *a, const struct change *c, enum intent intent)
{
	if (intent == READS || (intent == WRITES && writes_for_parent(a, c)))
		return true;
	return intent == MAY_WRITE ? !writer_is_foreign(a) : become(a, c) == 0;
}

bool writer_lacks_right(union slot s)
{
	const struct protection *a = protection_of(s);

	return settings.single_writer == SINGLE_WRITER_DENY && s.role == ROLE_DATABASE &&
	       a->store_fd > 0 && !(s.writable & SLOT_NOWHERE) && !writer_is_ours(a);
}

int writer_check(const struct change *c)
{
	struct protection *a = protection_of(c->slot);
	enum intent intent;
	uint64_t until = 0;

	if (writer_is_ours(a) || settings.single_writer == SINGLE_WRITER_OFF)
		return 0;
	intent = intent_of(c);
	if (intent == WRITES && makes_index_for_reading(c))
		return 0;
	while (!is_allowed(a, c, intent)) {
		if (wait_for_opener(a, &until) || wait_for_end(a, c))
			continue;
		if (intent == WRITES && wait_for_database(a, c))
			intent = MAY_WRITE;
		else
			return is_index_for_reading(c) ? refuse_index(c)
						       : writer_refusal(c, intent);
	}
	return 0;
}
