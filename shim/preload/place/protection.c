/* SPDX-License-Identifier: MIT
 *
 * Taking a directory under protection: its store, its log, and what is said when that fails.
 */
#include "preload/place/protection.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <time.h>

#include "core/base/names.h"
#include "core/base/version.h"
#include "core/store/aside.h"
#include "preload/place/protection_rooms.h"
#include "preload/place/guard_maps.h"
#include "preload/base/bounds.h"
#include "preload/base/exit_status.h"
#include "preload/base/shim.h"
#include "preload/place/faults.h"
#include "preload/base/limits.h"
#include "preload/place/lives.h"
#include "preload/place/record.h"
#include "preload/place/turn.h"

#define LONG_WAIT UINT64_C(10000000000) /* ns after which it is said that an open waits */

static _Atomic uint32_t claiming; /* the thread that takes a directory under protection */

/* Why there can be no store. */
static const char *protection_error_text(int error)
{
	const char *obstacle = store_obstacle(-error);

	if (error == ENOENT)
		return "the directory that it is to be made in is not there";
	return obstacle ? obstacle : shim_error_text(error);
}

/* ---- the store ---- */

static struct store met; /* while `claiming` is held */

/* The path of the store from the root, "" if it is not below it. */
static void find_below(struct protection *a)
{
	char link[SYS_FD_PATH];
	size_t n = a->spelling_length[0];
	ssize_t length;

	a->store_below[0] = '\0';
	sys_fd_path(link, a->store_fd);
	length = sys_readlinkat(AT_FDCWD, link, a->store_below, PATH_MAX - 1);
	if (length > 0 && (size_t)length > n + 1 && a->store_below[n] == '/' &&
	    memcmp(a->store_below, a->spelling[0], n) == 0) {
		memmove(a->store_below, a->store_below + n + 1, (size_t)length - n - 1);
		a->store_below[(size_t)length - n - 1] = '\0';
	} else {
		a->store_below[0] = '\0';
	}
}

/*
 * What is written through a map must not need a new block at each store: on a full btrfs that is
 * SIGBUS. What is made in a directory, also a directory, has its attribute.
 */
static void no_copy_on_write(int fd)
{
	struct statfs fs;
	int flags = 0;

	if (SYS2(SYS_fstatfs, fd, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC &&
	    SYS3(SYS_ioctl, fd, FS_IOC_GETFLAGS, &flags) == 0 && !(flags & FS_NOCOW_FL)) {
		flags |= FS_NOCOW_FL;
		SYS3(SYS_ioctl, fd, FS_IOC_SETFLAGS, &flags);
	}
}

static int open_store(struct protection *a, int dirfd)
{
	struct stat st;
	int r;

	if (sys_fstatat(dirfd, STORE_NAME, &st, AT_SYMLINK_NOFOLLOW) == -ENOENT)
		store_aside_take(dirfd, a->spelling[0]);
	r = store_open(&met, dirfd, a->spelling[0], settings.store, STORE_USE);
	if (r < 0)
		return r;
	memcpy(a->store_id, met.id, sizeof(a->store_id));
	r = hidden_adopt(met.fd, &a->store_fd);
	if (r < 0)
		return r;
	find_below(a);
	no_copy_on_write(a->store_fd);
	r = sys_mkdirat(a->store_fd, OPLOG_DIR, 0700);
	return r == -EEXIST ? 0 : r;
}

static void put_start_record(unsigned index)
{
	struct oplog_record r = {.op = OP_START, .offset = -1};
	struct acts *acts = protections[index].acts;
	char own[1024], *command = acts ? acts->command : own;
	size_t room = acts ? sizeof(acts->command) : sizeof(own);
	int fd = sys_openat(AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0);
	ssize_t i, n = fd < 0 ? 0 : sys_read(fd, command, room);

	if (fd >= 0)
		sys_close(fd);
	if (n > 0 && command[n - 1] == '\0')
		n--;
	for (i = 0; i < n; i++)
		if (command[i] == '\0')
			command[i] = ' ';
	if (acts)
		acts->command_size = n > 0 ? (uint32_t)n : 0;
	record_put(index, &r, command, n > 0 ? (size_t)n : 0);
}

static uint64_t life_of(void *protection)
{
	return protection_life(protection);
}

/* Nothing is made of it before there is something to tell. */
static void start_acts(struct protection *a, const struct oplog_header *identity)
{
	struct acts *acts = a->acts;

	if (!acts && settings.acts_size)
		acts = memory_make(sizeof(*acts));
	if (!acts)
		return;
	acts->told = 0;
	acts->log.folder = OPLOG_ACTS_DIR;
	acts->log.lazy = true;
	acts->log.life = life_of;
	acts->log.life_context = a;
	oplog_writer_prepare(&acts->log, &a->store_fd, settings.acts_size, identity);
	acts->log.identity.features = 0;
	a->acts = acts;
}

static int start_log(struct protection *a)
{
	struct oplog_header identity;
	struct timespec now = {0, 0};
	ssize_t n;

	memset(&identity, 0, sizeof(identity));
	clock_gettime(CLOCK_REALTIME, &now);
	identity.protected_since = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	identity.uid = (uint32_t)SYS0(SYS_geteuid);
	identity.shim_version = version_own_number();
	identity.features = OPLOG_IDLE | (limits_are_reached() ? OPLOG_LIMIT : 0);
	n = sys_readlinkat(AT_FDCWD, "/proc/self/exe", identity.program,
			   sizeof(identity.program) - 1);
	if (n < 0)
		identity.program[0] = '\0';
	n = (ssize_t)a->spelling_length[0];
	if ((size_t)n >= sizeof(identity.data_dir))
		n = sizeof(identity.data_dir) - 1;
	memcpy(identity.data_dir, a->spelling[0], (size_t)n);
	a->log.life = life_of;
	a->log.life_context = a;
	start_acts(a, &identity);
	return oplog_writer_open(&a->log, &a->store_fd, settings.log_size, &identity);
}

/* As people know it; before it was found, it is where it would be. */
static const char *store_said(void)
{
	return met.inside || !met.path[0] ? STORE_NAME : met.path;
}

/* Nothing in it is touched, and it takes the directory on again with the version that it is of. */
static void say_newer(const struct protection *a)
{
	char version[VERSION_TEXT];

	version_text(version, met.version);
	shim_say(a->spelling[0], ": the store ", store_said(), " was made by a newer chromashim (",
		 met.version ? version : "unknown", "; this library is ", version_own(),
		 "), and is left alone",
		 settings.closed ? "; the database is not opened for writing "
				   "(CHROMASHIM_ON_FAILURE=closed)."
				 : "; the backend runs UNPROTECTED and unrecorded.",
		 met.waits ? " A persist that was cut short has to be undone from it, and IS NOT: "
			     "its collection may be broken."
			   : "",
		 " Stop it, and start it with that version or a newer one.", NULL);
}

static void say_unprotected(const struct protection *a, int error)
{
	if (error == -EPROTONOSUPPORT) {
		say_newer(a);
		return;
	}
	if (error == -EUSERS)
		limit_reached(LIMIT_DESCRIPTORS);
	shim_say(a->spelling[0], ": cannot use the store ", store_said(), ": ",
		 protection_error_text(-error),
		 settings.closed ? "; the database is not opened for writing "
				   "(CHROMASHIM_ON_FAILURE=closed). "
				 : "; the backend runs UNPROTECTED and unrecorded. ",
		 error == -EUSERS ? "Open fewer directories at once in one process, and restart."
		 : error == -EMFILE || error == -ENFILE
		     ? "Allow the process more open files (ulimit -n), and restart."
		 : error == -EFBIG
		     ? "Allow the process larger files (ulimit -f, LimitFSIZE=), and restart."
		 : store_obstacle(error)
		     ? "Name a directory of its own as CHROMASHIM_STORE, and restart."
		 : met.former >= STORE_FORMER_WAITS
		     ? "Make it writable for this user, and restart: it cannot be left yet."
		     : "Make it writable for this user, or set CHROMASHIM_STORE, and restart.",
		 NULL);
}

/* Another store is named than the directory had: once, as it says the new one from then on. */
static void tell_former(const struct protection *a)
{
	const char *named = settings.store ? settings.store : met.mine.store;

	if (met.former == STORE_FORMER_LEFT)
		shim_say(a->spelling[0], ": its store was ", met.former_path, ", and is ", named,
			 " from now on. Log and snapshots stay in the old one: to see them or to "
			 "go back, stop the backend and set CHROMASHIM_STORE=",
			 met.former_path, "; remove it when you need them no more.", NULL);
	else if (met.former == STORE_FORMER_GONE)
		shim_say(a->spelling[0], ": its store was ", met.former_path,
			 ", which is not there, cannot be read, or is another directory's; ", named,
			 " is used from now on. Unless it was moved there, what a crash has cut "
			 "short CANNOT BE UNDONE: after a crash, stop the backend, bring the old "
			 "store back, and start with CHROMASHIM_STORE=",
			 met.former_path, NULL);
	else if (met.former == STORE_FORMER_WAITS)
		shim_say(a->spelling[0], ": its store is ", met.former_path, ", not ", named,
			 ": what a crash has cut short is undone from there. It stays the store "
			 "until the next start.",
			 NULL);
	else if (met.former == STORE_FORMER_LIVES)
		shim_say(a->spelling[0], ": its store is ", met.former_path, ", not ", named,
			 ": another process uses it. It stays the store until none does; stop all "
			 "of them, and start again.",
			 NULL);
}

/* What a reader of the log should know of the store. */
static void tell_store(unsigned index)
{
	static const char copy[] =
	    "this directory is a copy of another one, or was moved to another file system: its "
	    "store is taken on under a new id, and pins are not. The other was at ";
	struct oplog_record r = {.op = OP_NOTE, .offset = -1};
	static char text[sizeof(copy) + PATH_MAX]; /* under `claiming`, too */
	size_t n = strlen(met.from);

	if (met.lost)
		shim_say(protections[index].spelling[0], ": its store, ", met.mine.store,
			 ", is not there, or is another directory's; ", STORE_NAME,
			 " is used. Bring it back, or name one as CHROMASHIM_STORE, and restart.",
			 NULL);
	tell_former(&protections[index]);
	if (met.met != STORE_ADOPTED)
		return;
	memcpy(text, copy, sizeof(copy) - 1);
	memcpy(text + sizeof(copy) - 1, met.from, n);
	record_put(index, &r, text, sizeof(copy) - 1 + n);
}

/* SQLite keeps the journal beside what a link leads to, where nobody looks for it. */
static void tell_link(unsigned index)
{
	static const char text[] = "chroma.sqlite3 is a symbolic link: the database is unprotected";
	struct oplog_record r = {.op = OP_NOTE, .offset = -1};
	const struct protection *a = &protections[index];
	char target[512];
	ssize_t n = sys_readlinkat(a->root_fd, CHROMA_DATABASE, target, sizeof(target) - 1);

	if (n <= 0)
		return;
	target[n] = '\0';
	shim_say(a->spelling[0], "/" CHROMA_DATABASE " is a symbolic link to ", target,
		 ": the database is UNPROTECTED (one writer, log, snapshots), "
		 "only its indexes are protected. Move the file here, or let "
		 "the whole directory be the link, and restart.",
		 NULL);
	record_put(index, &r, text, sizeof(text) - 1);
}

/* ---- protections ---- */

static bool read_root(struct protection *a, int dirfd)
{
	char link[SYS_FD_PATH];
	ssize_t length;

	sys_fd_path(link, dirfd);
	length = sys_readlinkat(AT_FDCWD, link, a->spelling[0], PATH_MAX - 1);
	if (length <= 0 || a->spelling[0][0] != '/')
		return false;
	a->spelling[0][length] = '\0';
	a->spelling_length[0] = (size_t)length;
	atomic_store(&a->spellings, 1);
	return true;
}

/* One that was removed, and in which the host has something open still, is not meant by its old
 * path. */
static void forget_spelling(const struct protection *fresh)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++)
		if (&protections[i] != fresh &&
		    strcmp(protections[i].spelling[0], fresh->spelling[0]) == 0)
			atomic_store(&protections[i].spellings, 0);
}

/* A place for a new directory; one that was let go before a fresh one. */
static unsigned free_index(void)
{
	unsigned i, used;

	protections_tidy();
	used = atomic_load(&protections_used);
	for (i = 0; i < used; i++)
		if (!atomic_load(&protections[i].ready) && atomic_load(&slots_use[i].open) <= 0)
			return i;
	return used;
}

/* Once for each place: who looks at one that was let go finds its texts. */
static bool make_paths(struct protection *a)
{
	char(*paths)[PATH_MAX] = a->spelling;

	if (!paths)
		paths = sys_mmap((SPELLINGS + 1) * sizeof(*paths), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_map_failed(paths))
		return false;
	a->store_below = paths[SPELLINGS];
	a->spelling = paths;
	return true;
}

/* Also the one that is kept. */
static bool give_all_back(void)
{
	bool any = protections_release_idle();

	any = rooms_give_back() || any;
	return spare_give() || any;
}

static int start(struct protection *a, int dirfd)
{
	int r = hidden_adopt(sys_fcntl(dirfd, F_DUPFD_CLOEXEC, 0), &a->root_fd);

	if (r >= 0)
		r = open_store(a, dirfd);
	if (r >= 0)
		r = start_log(a);
	if (r >= 0)
		guard_maps();
	return r;
}

/* Apart, or each open of a database would need the stack of its first one. */
static __attribute__((noinline)) struct protection *protection_make(int dirfd,
								    const struct stat *st)
{
	unsigned index = free_index();
	struct protection *a = &protections[index];
	int r;

	if (index >= bound_of("directories", PROTECTIONS) || !names_setup()) {
		limit_reached(LIMIT_DIRECTORIES);
		return NULL;
	}
	a->dev = st->st_dev;
	a->ino = st->st_ino;
	a->named = false;
	atomic_store(&slots_use[index].idle_since, oplog_now());
	life_stop(a);
	atomic_store(&a->writer, 0);
	atomic_store(&a->other_openers_looked_for, false);
	atomic_store(&a->ofd_locks, 0);
	atomic_store(&a->wal_mode, false);
	a->root_fd = a->store_fd = -1;
	if (!make_paths(a))
		return NULL;
	if (!read_root(a, dirfd))
		return NULL;
	forget_spelling(a);
	r = start(a, dirfd);
	if (hidden_are_out(r) && give_all_back()) {
		protection_descriptors_release(a);
		r = start(a, dirfd);
	}
	a->failed = r < 0;
	if (r < 0)
		say_unprotected(a, r);
	rooms_start(index);
	atomic_store(&a->ready, true);
	if (index == atomic_load(&protections_used))
		atomic_store_explicit(&protections_used, index + 1, memory_order_release);
	directories_read(index, dirfd);
	put_start_record(index);
	tell_store(index);
	tell_link(index);
	rooms_started(index);
	return a;
}

struct protection *protection_find(const struct stat *st)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++)
		if (atomic_load(&protections[i].ready) && protections[i].ino == st->st_ino &&
		    protections[i].dev == st->st_dev && !protection_is_gone(&protections[i]))
			return &protections[i];
	return NULL;
}

/*
 * Whoever comes while a directory is taken under protection waits until that is done, however long
 * a roll-back takes: what it opens would be unprotected for good. False: this is a signal handler
 * on top of the thread that is at it.
 */
static __attribute__((noinline)) bool wait_for_turn(int dirfd)
{
	char path[PLACE_MAX];
	int r = turn_take_within(&claiming, LONG_WAIT);

	if (r == 0) {
		shim_say(descriptor_path(dirfd, path, sizeof(path)) ? path : "a data directory",
			 ": its opening waits for another thread, which takes a directory under "
			 "protection and undoes what a dead process has left; it goes on then",
			 NULL);
		r = turn_take(&claiming) ? 1 : -EDEADLK;
	}
	return r > 0;
}

bool protection_descriptors_give_back(void)
{
	int saved = errno;
	bool any = false;
	MAPS_GUARDED;

	if (!shim_live || shim_borrowed())
		return false;
	if (turn_take_within(&claiming, 0) > 0) {
		any = protections_release_idle();
		turn_give(&claiming);
	}
	any |= rooms_give_back();
	if (any)
		spare_keep();
	errno = saved;
	return any;
}

struct protection *protection_claim(int dirfd)
{
	struct protection *a;
	struct stat st;
	MAPS_GUARDED;

	if (sys_fstat(dirfd, &st) < 0)
		return NULL;
	a = protection_find(&st);
	if (a || !wait_for_turn(dirfd))
		return a;
	a = protection_find(&st);
	if (!a)
		a = protection_make(dirfd, &st);
	turn_give(&claiming);
	return a;
}

bool protection_let_go(struct protection *a)
{
	bool gone = false;
	MAPS_GUARDED;

	if (turn_take_within(&claiming, 0) > 0) {
		gone = protection_release(protection_number(a));
		turn_give(&claiming);
	}
	return gone;
}

void protections_moved(void)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++) {
		struct protection *a = &protections[i];
		struct stat st;

		if (sys_fstatat(AT_FDCWD, a->spelling[0], &st, 0) == 0 && st.st_ino == a->ino &&
		    st.st_dev == a->dev)
			continue;
		if (a->root_fd > 0)
			read_root(a, a->root_fd);
	}
}

void protections_fork(void)
{
	unsigned i, used = atomic_load(&protections_used);

	atomic_store(&claiming, 0);
	for (i = 0; i < used; i++) {
		life_fork(&protections[i]);
		atomic_store(&protections[i].users, 0);
		oplog_writer_fork(&protections[i].log);
		if (!protections[i].acts)
			continue;
		oplog_writer_fork(&protections[i].acts->log);
		protections[i].acts->told = 0;
	}
}

void protections_finish(int number)
{
	unsigned i, used = atomic_load(&protections_used);
	MAPS_GUARDED;

	fault_count();
	for (i = 0; i < used; i++) {
		struct oplog_record r = {.op = OP_EXIT, .offset = -1, .arg = (uint64_t)number};
		int status = exit_status();

		if (!number && status >= 0) {
			r.offset = 0;
			r.result = status;
		}
		if (!atomic_load(&protections[i].log.current))
			continue;
		record_put(i, &r, NULL, 0);
		oplog_writer_finish(&protections[i].log);
		if (protections[i].acts)
			oplog_writer_finish(&protections[i].acts->log);
	}
}
