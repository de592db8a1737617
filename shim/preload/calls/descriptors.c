/* SPDX-License-Identifier: MIT
 *
 * Closing and duplicating: what becomes of a descriptor.
 *
 * A vfork child shares our memory but not our descriptors, and CPython closes and duplicates in
 * one: there nothing may be changed but the descriptors themselves.
 */
#include "preload/calls/call.h"

#include "preload/persist/persists.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/carriers.h"
#include "preload/sqlite/transactions.h"

#ifndef CLOSE_RANGE_CLOEXEC /* glibc before 2.34 */
#define CLOSE_RANGE_CLOEXEC 4u
#endif

/* Once it is: what was kept for the host's sake may go with its last descriptor. */
static void closed(union slot s)
{
	carriers_closed(s);
	writers_closed(s);
}

int do_close(int fd)
{
	union slot s = slot_of(fd);
	struct oplog_claim claim;
	int ret;

	if (LIKELY(!s.all) || shim_borrowed())
		return real.close(fd);
	if (s.role == ROLE_HIDDEN) {
		errno = EBADF;
		return -1;
	}
	if (s.role == ROLE_STORE) {
		slot_clear(fd);
		return real.close(fd);
	}
	persist_closing(fd, s);
	claim = record_begin(s, OP_CLOSE, -1, 0, (unsigned)fd);
	slot_clear(fd); /* before: another thread may get the number at once */
	ret = real.close(fd);
	record_end(claim, ret);
	closed(s);
	return ret;
}

/* Returns whether there was any. */
static bool forget_range(unsigned first, unsigned last)
{
	unsigned fd, top = (unsigned)atomic_load(&slots_top);
	bool any = false;

	for (fd = first; fd <= last && fd < top; fd++) {
		union slot s = slot_of((int)fd);

		if (s.role == ROLE_STORE)
			slot_clear((int)fd);
		if (!slot_protected(s))
			continue;
		persist_closing((int)fd, s);
		record_end(record_begin(s, OP_CLOSE, -1, 0, fd), 0);
		slot_clear((int)fd);
		any = true;
	}
	return any;
}

/* Closes many descriptors at once, whatever they are of. */
static void all_closed(void)
{
	carriers_closed_slow();
	writers_closed_slow();
}

static int close_around_own(unsigned first, unsigned last, int flags)
{
	int own, ret = 0;

	while (ret == 0 && (own = hidden_in_range(first, last)) >= 0) {
		if ((unsigned)own > first)
			ret = real.close_range(first, (unsigned)own - 1, flags);
		first = (unsigned)own + 1;
		if ((unsigned)own == last)
			return ret;
	}
	return ret == 0 ? real.close_range(first, last, flags) : ret;
}

/* Closes a range in pieces, around the shim's own descriptors. */
int do_close_range(unsigned int first, unsigned int last, int flags)
{
	bool any;
	int ret;

	if (!shim_live || first > last || ((unsigned)flags & CLOSE_RANGE_CLOEXEC) ||
	    shim_borrowed())
		return real.close_range(first, last, flags);
	any = forget_range(first, last);
	ret = close_around_own(first, last, flags);
	if (any)
		all_closed();
	return ret;
}

void do_closefrom(int first)
{
	do_close_range(first < 0 ? 0 : (unsigned)first, ~0u, 0);
}

static void duplicated(union slot s, int fd, int to)
{
	if (s.role == ROLE_STORE)
		slot_set(to, s);
	if (!slot_protected(s))
		return;
	slot_set(to, s);
	record_end(record_begin(s, OP_DUP, -1, 0, (unsigned)fd), to);
}

int do_dup(int fd)
{
	union slot s = slot_of(fd);
	int to;

	if (s.role == ROLE_HIDDEN && !shim_borrowed()) {
		errno = EBADF;
		return -1;
	}
	to = real.dup(fd);
	if (to < 0 && descriptors_are_back())
		to = real.dup(fd);
	if (to >= 0 && s.all && !shim_borrowed())
		duplicated(s, fd, to);
	return to;
}

/* The host puts fd at number `to`, whatever is there. */
static int dup_over(int fd, int to, int flags, bool three)
{
	union slot s = slot_of(fd), old = slot_of(to);
	bool ours = (s.all || old.all) && !shim_borrowed();
	int ret;

	if (ours && s.role == ROLE_HIDDEN) {
		errno = EBADF;
		return -1;
	}
	if (ours && fd != to && old.role == ROLE_HIDDEN)
		hidden_dodge(to);
	if (ours && fd != to)
		persist_closing(to, old);
	ret = three ? real.dup3(fd, to, flags) : real.dup2(fd, to);
	if (ret == 2 && !shim_borrowed())
		shim_stderr_is_now();
	if (ret >= 0 && ours && fd != to) {
		if (slot_protected(old))
			record_end(record_begin(old, OP_CLOSE, -1, 0, (unsigned)to), 0);
		slot_clear(to);
		duplicated(s, fd, to);
		closed(old);
	}
	return ret;
}

int do_dup2(int fd, int to)
{
	return dup_over(fd, to, 0, false);
}

int do_dup3(int fd, int to, int flags)
{
	return dup_over(fd, to, flags, true);
}

static int fcntl_elsewhere(int fd, int cmd, unsigned long arg)
{
	int ret = real.fcntl(fd, cmd, arg);

	if (ret < 0 && (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) && descriptors_are_back())
		ret = real.fcntl(fd, cmd, arg);
	return ret;
}

static int duplicate_by_fcntl(int fd, int cmd, unsigned long arg, union slot s)
{
	int to = fcntl_elsewhere(fd, cmd, arg);

	if (to >= 0 && !shim_borrowed())
		duplicated(s, fd, to);
	return to;
}

static int set_status(int fd, unsigned long arg, union slot s)
{
	int ret = real.fcntl(fd, F_SETFL, arg);

	if (ret == 0) {
		s.writable =
		    (uint8_t)((s.writable & ~SLOT_APPEND) | (arg & O_APPEND ? SLOT_APPEND : 0));
		slot_set(fd, s);
	}
	return ret;
}

int do_fcntl(int fd, int cmd, unsigned long arg)
{
	union slot s = slot_of(fd);

	if (LIKELY(!s.all))
		return fcntl_elsewhere(fd, cmd, arg);
	if (s.role == ROLE_HIDDEN && !shim_borrowed()) {
		errno = EBADF;
		return -1;
	}
	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		return duplicate_by_fcntl(fd, cmd, arg, s);
	case F_SETFL:
		return set_status(fd, arg, s);
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
	case F_GETLK:
	case F_OFD_GETLK:
		return do_record_lock(fd, cmd, (struct flock *)arg);
	default:
		return real.fcntl(fd, cmd, arg);
	}
}
