/* SPDX-License-Identifier: MIT
 *
 * Opening and creating: where a descriptor of a protected file begins.
 */
#include <stdlib.h>
#include <string.h>

#include "preload/calls/call.h"
#include "preload/place/named.h"
#include "preload/refuse/graphs.h"
#include "preload/refuse/makers.h"
#include "preload/refuse/readers.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/carriers.h"
#include "preload/sqlite/transactions.h"

static bool takes_mode(int flags)
{
	return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

static union slot opened_slot(const struct place *place, void *caller, int fd, int flags)
{
	union slot s = place->slot;
	struct stat st;

	if (s.role == ROLE_OTHER && sys_fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) &&
	    (flags & O_TMPFILE) != O_TMPFILE) {
		s.role = ROLE_DIRECTORY;
		directory_learn(place, &st);
	}
	if ((flags & O_ACCMODE) != O_RDONLY)
		s.writable |= SLOT_WRITABLE;
	if (flags & O_APPEND)
		s.writable |= SLOT_APPEND;
	if (s.role >= ROLE_DATABASE && s.role <= ROLE_SHM)
		s.object = object_of(caller);
	if (role_in_segment(s.role) && s.role != ROLE_PICKLE && (s.writable & SLOT_WRITABLE)) {
		if (graph_loads(s))
			writer_loads(s);
		s.object = graph_opened(s, flags);
	}
	return s;
}

static int open_once(enum oplog_op op, int dirfd, const char *path, int flags, mode_t mode)
{
	if (op == OP_OPENAT)
		return real.openat(dirfd, path, flags, mode);
	return op == OP_CREAT ? real.creat(path, mode) : real.open(path, flags, mode);
}

static int real_open(enum oplog_op op, int dirfd, const char *path, int flags, mode_t mode)
{
	int fd = open_once(op, dirfd, path, flags, mode);

	return fd < 0 && descriptors_are_back() ? open_once(op, dirfd, path, flags, mode) : fd;
}

/* Of several processes that open a new directory at once, one makes the database. */
static int open_database(const struct place *place, enum oplog_op op, int dirfd, const char *path,
			 int flags, mode_t mode)
{
	int fd;

	if (place->slot.role != ROLE_DATABASE || op == OP_CREAT ||
	    (flags & (O_CREAT | O_EXCL)) != O_CREAT || !maker_is_wanted(place->slot.protection))
		return real_open(op, dirfd, path, flags, mode);
	fd = real_open(op, dirfd, path, flags | O_EXCL, mode);
	if (fd >= 0) {
		maker_made(place->slot.protection);
		return fd;
	}
	if (errno != EEXIST)
		return fd;
	maker_wait(place->slot.protection);
	return real_open(op, dirfd, path, flags, mode);
}

static bool only_reads(int flags)
{
	return (flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC)) &&
	       (flags & O_TMPFILE) != O_TMPFILE;
}

/* What is in a store may be read; its descriptors are known, or relative paths would lead in. */
static int open_in_store(const struct place *place, enum oplog_op op, int dirfd, const char *path,
			 int flags, mode_t mode)
{
	int fd;

	if (!only_reads(flags))
		return CHANGED(CHANGE_PATH(op, place, .flags = flags), -1);
	fd = real_open(op, dirfd, path, flags, mode);
	if (fd >= 0 && !shim_borrowed())
		slot_set(fd, place->slot);
	return fd;
}

static int open_entered(const struct place *place, void *caller, enum oplog_op op, int dirfd,
			const char *path, int flags, mode_t mode)
{
	int fd =
	    CHANGED(CHANGE_PATH(op, place, .caller = caller, .flags = flags,
				.length = takes_mode(flags) ? mode : 0, .arg = (unsigned)flags),
		    open_database(place, op, dirfd, path, flags, mode));
	int saved = errno;

	if (fd >= 0) {
		union slot s = opened_slot(place, caller, fd, flags);

		slot_set(fd, s);
		if (carrier_make(s, fd)) {
			s.writable |= SLOT_CARRIED;
			slot_set(fd, s);
		}
		writer_opened(s, fd);
		if (s.role == ROLE_WAL && (s.writable & SLOT_WRITABLE)) {
			atomic_store(&protections[s.protection].wal_mode, true);
			record_feature(&protections[s.protection], OPLOG_WAL_MODE, true);
			fence_drop(s.protection);
		}
		transaction_opened(s, flags);
	}
	errno = saved;
	return fd;
}

int open_place(const struct place *place, void *caller, enum oplog_op op, int dirfd,
	       const char *path, int flags, mode_t mode)
{
	int fd;

	if (place->slot.role == ROLE_STORE)
		return open_in_store(place, op, dirfd, path, flags, mode);
	if (place->slot.role == ROLE_DATABASE && !shim_borrowed())
		maker_wait(place->slot.protection);
	fd = reader_opens(place, caller, flags);
	if (fd >= 0)
		return fd;
	if (fd == -EACCES) {
		errno = EACCES;
		return -1;
	}
	if (!protection_enter(
		place->slot.protection)) /* let go by another thread, in this moment */
		return real_open(op, dirfd, path, flags, mode);
	fd = open_entered(place, caller, op, dirfd, path, flags, mode);
	protection_leave(place->slot.protection);
	return fd;
}

static int open_any(void *caller, enum oplog_op op, int dirfd, const char *path, int flags,
		    mode_t mode)
{
	A_PLACE(place);

	if (place_find_for_open(&place, dirfd, path, flags))
		return open_place(&place, caller, op, dirfd, path, flags, mode);
	return real_open(op, dirfd, path, flags, mode);
}

int do_open(void *caller, const char *path, int flags, mode_t mode)
{
	return open_any(caller, OP_OPEN, AT_FDCWD, path, flags, takes_mode(flags) ? mode : 0);
}

int do_openat(void *caller, int dirfd, const char *path, int flags, mode_t mode)
{
	return open_any(caller, OP_OPENAT, dirfd, path, flags, takes_mode(flags) ? mode : 0);
}

/* What glibc does when a fortified program forgets the mode. */
static void need_no_mode(int flags)
{
	if (takes_mode(flags)) {
		shim_say("open without a mode although a file may be created: program error", NULL);
		abort();
	}
}

int do_open_2(void *caller, const char *path, int flags)
{
	need_no_mode(flags);
	return do_open(caller, path, flags, 0);
}

int do_openat_2(void *caller, int dirfd, const char *path, int flags)
{
	need_no_mode(flags);
	return do_openat(caller, dirfd, path, flags, 0);
}

int do_creat(void *caller, const char *path, mode_t mode)
{
	return open_any(caller, OP_CREAT, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* These two know the file only once it is open. */
static int known_by_descriptor(enum oplog_op op, int fd, int flags)
{
	int saved = errno;
	A_PLACE(place);

	if (fd >= 0 && (atomic_load(&protections_used) || named_wait()) &&
	    place_of_descriptor(&place, fd, false)) {
		union slot s;

		if (place.slot.role == ROLE_STORE) {
			if (only_reads(flags)) {
				slot_set(fd, place.slot);
				errno = saved;
				return fd;
			}
			real.close(fd);
			return CHANGED(CHANGE_PATH(op, &place, .flags = flags), -1);
		}
		s = opened_slot(&place, NULL, fd, flags);

		slot_set(fd, s);
		record_end(record_begin(s, op, -1, 0, (unsigned)flags), fd);
	}
	errno = saved;
	return fd;
}

int do_open_by_handle_at(int mountfd, struct file_handle *handle, int flags)
{
	int fd = real.open_by_handle_at(mountfd, handle, flags);

	return known_by_descriptor(OP_OPEN_BY_HANDLE_AT, fd, flags);
}

int do_mkostemps(char *path, int suffix, int flags)
{
	A_PLACE(place);
	int fd;

	if (place_find(&place, AT_FDCWD, path, true) && place.slot.role == ROLE_STORE)
		return CHANGED(CHANGE_PATH(OP_MKSTEMP, &place), -1);
	fd = REAL_LATE(mkostemps)(path, suffix, flags);
	return known_by_descriptor(OP_MKSTEMP, fd, flags | O_RDWR | O_CREAT | O_EXCL);
}

int do_access(const char *path, int mode)
{
	if (!reader_hides(path))
		return real.access(path, mode);
	errno = ENOENT;
	return -1;
}
