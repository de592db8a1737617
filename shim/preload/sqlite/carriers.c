/* SPDX-License-Identifier: MIT
 *
 * OFD locks in place of SQLite's POSIX locks, and the fence: RESERVED kept between transactions,
 * so that a process without the shim reads as usual and cannot write.
 *
 * The fence stands only while no journal is left. Another process takes RESERVED for "the journal
 * is not hot"; held over a journal that a failed transaction left behind, it would make outsiders
 * read uncommitted pages.
 *
 * While nobody is the writer the guardian keeps the fence (command/guard/fence.c), with a read
 * lock: SQLite's own are all write locks. Who has become the writer need not wait until it has let
 * go, for writer.lock keeps all others out that have the library: it takes a read lock beside.
 */
#include "preload/sqlite/carriers.h"

#include <string.h>

#include "core/base/filesystem.h"
#include "core/base/number.h"
#include "core/sqlite/page.h"
#include "preload/base/bounds.h"
#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/base/limits.h"
#include "preload/place/record.h"
#include "preload/place/turn.h"
#include "preload/sqlite/transactions.h"

#define CARRIERS 1024 /* 255 directories, of each the database and its -shm, for two libraries */
#define PATIENCE UINT64_C(100000000) /* ns that a writer waits for readers of its own process */

struct carrier {
	_Atomic int state; /* 0 free, 1 being made, 2 in use */
	dev_t dev;
	ino_t ino;
	uint8_t object;
	uint8_t protection;
	uint8_t role;
	bool in_transaction;	/* RESERVED is held for SQLite, not only as a fence */
	_Atomic bool reads;	/* holds SQLite's SHARED */
	_Atomic uint64_t waits; /* since when for another library's readers, 0: not */
	int fd;			/* hidden */
};

static struct carrier carriers[CARRIERS];
static _Atomic int carriers_top; /* none at or above it has ever been in use */
static _Atomic uint32_t making;	 /* the thread that makes one, or lets go of one */
/* Which carrier holds RESERVED as a fence, number + 1; and which shares it with the guardian. */
static _Atomic int fences[PROTECTIONS], sharing[PROTECTIONS];
static bool inherited; /* by a fork: descriptors that have no carrier here */

/* ---- where OFD locks can be trusted ---- */

static bool is_known_good(int fd)
{
	const struct filesystem *known = filesystem_of(fd);

	return known && known->locks;
}

static int set_lock(int fd, int cmd, short type, off_t start, off_t length)
{
	struct flock lock = {
	    .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
	int r = sys_fcntl(fd, cmd, (unsigned long)&lock);

	return cmd == F_OFD_GETLK && r == 0 ? lock.l_type != F_UNLCK : r;
}

/*
 * A lock through one description must be seen through another, and outlive a third's closing. On a
 * file that is nobody else's: others may be at the same in this moment.
 */
static bool passes_probe(const struct protection *a, int *error)
{
	char name[48] = "lock.probe-", *end = name + sizeof(name) - 1;
	char *at = number_put(name + strlen(name), end, (uint64_t)thread_id(), 10, 1);
	int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
	int one, two, three;
	bool good;

	*at++ = '-'; /* threads of other containers have the same number */
	number_put(at, end, oplog_now(), 16, 1);
	one = sys_openat(a->store_fd, name, flags | O_EXCL, 0600);
	two = sys_openat(a->store_fd, name, flags, 0600);
	three = sys_openat(a->store_fd, name, flags, 0600);
	*error = one < 0 ? one : two < 0 ? two : three < 0 ? three : 0;
	good = one >= 0 && two >= 0 && three >= 0 &&
	       set_lock(one, F_OFD_SETLK, F_WRLCK, 0, 1) == 0 &&
	       set_lock(two, F_OFD_GETLK, F_WRLCK, 0, 1) == 1;
	if (three >= 0)
		sys_close(three);
	good = good && set_lock(two, F_OFD_GETLK, F_WRLCK, 0, 1) == 1;
	if (one >= 0)
		sys_close(one);
	if (two >= 0)
		sys_close(two);
	sys_unlinkat(a->store_fd, name, 0);
	return good;
}

/* From now on, for the whole directory: who closes a file of SQLite's has to know. */
static void leave_locks(struct protection *a, int error)
{
	atomic_store(&a->ofd_locks, -1);
	record_feature(a, OPLOG_HAS_OFD_LOCKS, false);
	if (a->store_fd < 0)
		return;
	if (error == -ENOSPC || error == -EUSERS) {
		limit_reached(error == -ENOSPC ? LIMIT_LOCKS : LIMIT_DESCRIPTORS);
		return;
	}
	shim_say(a->spelling[0], ": ",
		 hidden_are_out(error) ? "too many files are open"
		 : error == -EACCES    ? "the database cannot be opened once more"
				       : "this file system is not known to have locks that last",
		 "; SQLite's own locks are left as they are (no fence).",
		 hidden_are_out(error)
		     ? " Allow the process more open files (ulimit -n), and restart."
		     : "",
		 NULL);
}

static bool is_usable(struct protection *a, int fd)
{
	int known = atomic_load(&a->ofd_locks), error = 0;
	bool good;

	if (known)
		return known > 0;
	good = a->store_fd >= 0 && is_known_good(fd) && passes_probe(a, &error);
	if (!good && hidden_are_out(error) && protection_descriptors_give_back())
		good = passes_probe(a, &error);
	if (!good) {
		leave_locks(a, error);
		return false;
	}
	atomic_store(&a->ofd_locks, 1);
	record_feature(a, OPLOG_HAS_OFD_LOCKS, true);
	return true;
}

bool carriers_usable(unsigned protection, int fd)
{
	return is_usable(&protections[protection], fd);
}

/* ---- carriers ---- */

static struct carrier *find(const struct stat *st, uint8_t object)
{
	int i;

	for (i = 0; i < atomic_load(&carriers_top); i++)
		if (atomic_load_explicit(&carriers[i].state, memory_order_acquire) == 2 &&
		    carriers[i].ino == st->st_ino && carriers[i].dev == st->st_dev &&
		    carriers[i].object == object)
			return &carriers[i];
	return NULL;
}

/* The only one of this name, which then is of this file: a carrier stays as long as a descriptor of
 * its file does. NULL: there are several (the file was exchanged), or it is not known. */
static struct carrier *find_only(union slot s)
{
	struct carrier *only = NULL;
	int i;

	if (!(s.writable & SLOT_CARRIED) || inherited)
		return NULL;
	for (i = 0; i < atomic_load(&carriers_top); i++) {
		struct carrier *c = &carriers[i];

		if (atomic_load_explicit(&c->state, memory_order_acquire) != 2 ||
		    c->protection != s.protection || c->role != s.role || c->object != s.object)
			continue;
		if (only)
			return NULL;
		only = c;
	}
	return only;
}

/* Of a descriptor's file. NULL: it has none. */
static struct carrier *find_or_make(union slot s, int fd)
{
	struct carrier *c = find_only(s);
	struct stat st;

	if (c || sys_fstat(fd, &st) < 0)
		return c;
	c = find(&st, s.object);
	if (c)
		return c;
	carrier_make(s, fd); /* a connection from before a fork */
	return find(&st, s.object);
}

/* The same file once more, by its open descriptor: names may have changed meanwhile. */
static int open_again(int fd)
{
	char path[SYS_FD_PATH];
	int again;

	sys_fd_path(path, fd);
	again = sys_openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
	return again < 0 ? sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : again;
}

/* Under the turn. 0 or -errno. */
static int make(union slot s, int fd, const struct stat *st)
{
	int i, r;

	for (i = 0; i < (int)bound_of("locks", CARRIERS); i++) {
		struct carrier *c = &carriers[i];
		int unused = 0;

		if (!atomic_compare_exchange_strong(&c->state, &unused, 1))
			continue;
		if (i >= atomic_load(&carriers_top))
			atomic_store(&carriers_top, i + 1);
		c->dev = st->st_dev;
		c->ino = st->st_ino;
		c->object = s.object;
		c->protection = s.protection;
		c->role = s.role;
		r = open_again(fd);
		if (hidden_are_out(r)) {
			protection_descriptors_give_back();
			spare_give();
			r = open_again(fd);
		}
		if (r >= 0)
			r = hidden_adopt(r, &c->fd);
		atomic_store_explicit(&c->state, r < 0 ? 0 : 2, memory_order_release);
		return r < 0 ? r : 0;
	}
	return -ENOSPC;
}

static void fence_set(unsigned protection, int number)
{
	if (atomic_exchange(&fences[protection], number) != number)
		record_feature(&protections[protection], OPLOG_HAS_FENCE, number != 0);
}

static bool is_carried(union slot s)
{
	return s.role == ROLE_DATABASE || s.role == ROLE_SHM;
}

/* One thread at a time: two carriers of one library would hide its locks from each other. */
bool carrier_make(union slot s, int fd)
{
	const struct carrier *c;
	bool is_its = false;
	struct stat st;
	int r = 0;

	if (!is_carried(s) || !is_usable(protection_of(s), fd) || sys_fstat(fd, &st) < 0 ||
	    !turn_take(&making))
		return false;
	if (!find(&st, s.object))
		r = make(s, fd, &st);
	c = find(&st, s.object);
	if (c)
		is_its = c->protection == s.protection && c->role == s.role;
	turn_give(&making);
	if (r < 0)
		leave_locks(protection_of(s), r);
	return is_its;
}

/* Another descriptor that the same library has on the carrier's file. */
static bool is_open_still(const struct carrier *c)
{
	int fd, top = atomic_load(&slots_top);
	struct stat st;

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (is_carried(s) && s.object == c->object && sys_fstat(fd, &st) == 0 &&
		    st.st_ino == c->ino && st.st_dev == c->dev)
			return true;
	}
	return false;
}

static int number_of(const struct carrier *c)
{
	return (int)(c - carriers) + 1;
}

static void share_end(const struct carrier *c)
{
	int number = number_of(c);

	atomic_compare_exchange_strong(&sharing[c->protection], &number, 0);
}

static void let_go(struct carrier *c)
{
	int number = number_of(c);

	if (atomic_load(&fences[c->protection]) == number)
		fence_set(c->protection, 0);
	share_end(c);
	atomic_store(&c->state, 1);
	hidden_release(&c->fd);
	c->in_transaction = false;
	atomic_store(&c->reads, false);
	atomic_store(&c->waits, 0);
	atomic_store(&c->state, 0);
}

/* All that its library has no descriptor of any more: an open that comes now makes it anew. */
void carriers_closed_slow(void)
{
	int i, saved = errno;

	if (!turn_take(&making))
		return;
	for (i = 0; i < atomic_load(&carriers_top); i++)
		if (atomic_load(&carriers[i].state) == 2 && !is_open_still(&carriers[i]))
			let_go(&carriers[i]);
	turn_give(&making);
	errno = saved;
}

/* ---- the fence ---- */

static bool covers_reserved(const struct flock *lock)
{
	return lock->l_start <= SQLITE_RESERVED_BYTE &&
	       (lock->l_len == 0 || lock->l_start + lock->l_len > SQLITE_RESERVED_BYTE);
}

static bool covers_shared(const struct flock *lock)
{
	return lock->l_start <= SQLITE_SHARED_FIRST &&
	       (lock->l_len == 0 ||
		lock->l_start + lock->l_len >= SQLITE_SHARED_FIRST + SQLITE_SHARED_SIZE);
}

static bool fence_wanted(const struct protection *a, unsigned protection)
{
	return settings.fence && settings.single_writer != SINGLE_WRITER_OFF && writer_is_ours(a) &&
	       !atomic_load(&a->wal_mode) && !transaction_journal_left(protection);
}

void fence_drop(unsigned protection)
{
	int number = atomic_load(&fences[protection]);

	if (!number)
		return;
	set_lock(carriers[number - 1].fd, F_OFD_SETLK, F_UNLCK, SQLITE_RESERVED_BYTE, 1);
	share_end(&carriers[number - 1]);
	fence_set(protection, 0);
}

/* Unlocks what was asked, all but RESERVED. */
static int unlock_around_reserved(const struct carrier *c, const struct flock *lock)
{
	off_t after = SQLITE_RESERVED_BYTE + 1;
	int r = 0;

	if (lock->l_start < SQLITE_RESERVED_BYTE)
		r = set_lock(c->fd, F_OFD_SETLK, F_UNLCK, lock->l_start,
			     SQLITE_RESERVED_BYTE - lock->l_start);
	if (r == 0 && (lock->l_len == 0 || lock->l_start + lock->l_len > after))
		r = set_lock(c->fd, F_OFD_SETLK, F_UNLCK, after,
			     lock->l_len ? lock->l_start + lock->l_len - after : 0);
	return r;
}

static int unlock(struct carrier *c, const struct flock *lock)
{
	struct protection *a = &protections[c->protection];
	int number = number_of(c);
	bool reserved = c->role == ROLE_DATABASE && covers_reserved(lock);
	int r;

	if (c->role == ROLE_DATABASE && covers_shared(lock))
		atomic_store(&c->reads, false);
	if (reserved && (atomic_load(&fences[c->protection]) == number || c->in_transaction) &&
	    fence_wanted(a, c->protection)) {
		r = unlock_around_reserved(c, lock);
		if (r == 0) {
			c->in_transaction = false;
			fence_set(c->protection, number);
		}
		return r;
	}
	r = set_lock(c->fd, F_OFD_SETLK, F_UNLCK, lock->l_start, lock->l_len);
	if (r == 0 && reserved) {
		c->in_transaction = false;
		share_end(c);
		if (atomic_load(&fences[c->protection]) == number)
			fence_set(c->protection, 0);
	}
	return r;
}

/* Our own fence must not stop another SQLite of this process: it steps aside while it is idle. */
static void fence_pass(const struct carrier *c, unsigned protection)
{
	int number = atomic_load(&fences[protection]);

	if (number && &carriers[number - 1] != c && !carriers[number - 1].in_transaction)
		fence_drop(protection);
}

void fence_rest(unsigned protection)
{
	fence_pass(NULL, protection);
}

/* Takes SHARED from the other libraries of this process (or gives it back); whether there are any.
 */
static bool own_readers(const struct carrier *c, short type)
{
	bool any = false;
	int i;

	for (i = 0; i < atomic_load(&carriers_top); i++) {
		struct carrier *other = &carriers[i];

		if (other == c || atomic_load(&other->state) != 2 || other->ino != c->ino ||
		    other->dev != c->dev || !atomic_load(&other->reads))
			continue;
		any = true;
		if (type != F_WRLCK)
			set_lock(other->fd, F_OFD_SETLK, type, SQLITE_SHARED_FIRST,
				 SQLITE_SHARED_SIZE);
	}
	return any;
}

/*
 * A writer is kept out by a reader in another SQLite of the same process. POSIX locks would not
 * do that; and the reader may never end, when it waits in turn for a lock of the host that the
 * writer's caller holds (Python's interpreter lock). So after some patience it is as without us.
 */
static int pass_own_readers(struct carrier *c, const struct flock *lock)
{
	uint64_t now = oplog_now(), since = atomic_load(&c->waits);
	struct oplog_record note = {.op = OP_NOTE, .offset = -1};
	static const char text[] = "a reader in another SQLite of this process was not waited for";
	int r;

	if (!own_readers(c, F_WRLCK)) {
		atomic_store(&c->waits, 0);
		return -EAGAIN;
	}
	if (!since)
		atomic_store(&c->waits, now);
	if (!since || now - since < PATIENCE)
		return -EAGAIN;
	own_readers(c, F_UNLCK);
	r = set_lock(c->fd, F_OFD_SETLK, lock->l_type, lock->l_start, lock->l_len);
	if (r < 0) { /* there are readers in other processes, too */
		own_readers(c, F_RDLCK);
		return -EAGAIN;
	}
	record_put(c->protection, &note, text, sizeof(text) - 1);
	return 0;
}

/* RESERVED, beside the guardian. One library at a time: read locks do not keep each other out. */
static int share(struct carrier *c)
{
	_Atomic int *who = &sharing[c->protection];
	int none = 0, number = number_of(c);

	if (!writer_is_ours(&protections[c->protection]) ||
	    (!atomic_compare_exchange_strong(who, &none, number) && none != number))
		return -EAGAIN;
	if (set_lock(c->fd, F_OFD_SETLK, F_RDLCK, SQLITE_RESERVED_BYTE, 1) == 0)
		return 0;
	share_end(c);
	return -EAGAIN;
}

static int take(struct carrier *c, int cmd, const struct flock *lock)
{
	bool reserved =
	    c->role == ROLE_DATABASE && lock->l_type == F_WRLCK && covers_reserved(lock);
	int r;

	if (reserved)
		fence_pass(c, c->protection);
	r = set_lock(c->fd, cmd == F_SETLKW || cmd == F_OFD_SETLKW ? F_OFD_SETLKW : F_OFD_SETLK,
		     lock->l_type, lock->l_start, lock->l_len);
	if (reserved && (r == -EAGAIN || r == -EACCES) && lock->l_start == SQLITE_RESERVED_BYTE)
		r = share(c);
	else if (reserved && r == 0)
		share_end(c);
	if (c->role == ROLE_DATABASE && covers_shared(lock)) {
		if (lock->l_type == F_WRLCK && (r == -EAGAIN || r == -EACCES))
			r = pass_own_readers(c, lock);
		if (r == 0) {
			atomic_store(&c->reads, lock->l_type == F_RDLCK);
			atomic_store(&c->waits, 0);
		}
	}
	if (r == 0 && reserved)
		c->in_transaction = true;
	return r;
}

/* Who would be in the way? Not our fence. */
static int ask(struct carrier *c, struct flock *lock)
{
	int number = atomic_load(&fences[c->protection]);
	const struct carrier *fence = number ? &carriers[number - 1] : NULL;
	bool idle = fence && fence != c && !fence->in_transaction;
	struct flock asked = *lock;
	int r;

	asked.l_pid = 0;
	r = sys_fcntl(idle && c->role == ROLE_DATABASE && covers_reserved(lock) ? fence->fd : c->fd,
		      F_OFD_GETLK, (unsigned long)&asked);
	if (r == 0)
		*lock = asked;
	return r;
}

bool carrier_lock(union slot s, int fd, int cmd, struct flock *lock, int *ret)
{
	struct carrier *c;

	if (!is_carried(s) || lock->l_whence != SEEK_SET ||
	    atomic_load(&protections[s.protection].ofd_locks) <= 0)
		return false;
	c = find_or_make(s, fd);
	if (!c)
		return false;
	if (cmd == F_GETLK || cmd == F_OFD_GETLK)
		*ret = ask(c, lock);
	else if (lock->l_type == F_UNLCK)
		*ret = unlock(c, lock);
	else if (lock->l_type == F_WRLCK && !(s.writable & SLOT_WRITABLE))
		*ret = -EBADF; /* as for the descriptor that it was asked of */
	else
		*ret = take(c, cmd, lock);
	return true;
}

void carriers_fork(void)
{
	unsigned protection, used = atomic_load(&protections_used);
	int i;

	atomic_store(&making, 0);
	inherited |= atomic_load(&carriers_top) > 0;
	for (i = 0; i < atomic_load(&carriers_top); i++) {
		if (atomic_load(&carriers[i].state) == 2)
			hidden_release(&carriers[i].fd);
		carriers[i].in_transaction = false;
		atomic_store(&carriers[i].reads, false);
		atomic_store(&carriers[i].waits, 0);
		atomic_store(&carriers[i].state, 0);
	}
	for (protection = 0; protection < used; protection++) {
		atomic_store(&fences[protection], 0);
		atomic_store(&sharing[protection], 0);
	}
}
