/* SPDX-License-Identifier: MIT
 *
 * Locks that last. POSIX record locks vanish when any descriptor of the file is closed in the
 * process, and two copies of SQLite in one process do not see each other's. So SQLite's locks are
 * carried by OFD locks on a hidden descriptor, one for each (file, library that opened it), made
 * before any lock exists and kept as long as that library has a descriptor of the file: a lock that
 * outlives the last close, as SQLite's on byte 128 of a -shm, tells others that it is still in use.
 */
#ifndef PRELOAD_CARRIERS_H
#define PRELOAD_CARRIERS_H

#include <fcntl.h>

#include "preload/place/files.h"

/* Whether locks that last can be had for a file of the protection that fd is open on; found out
 * once. */
bool carriers_usable(unsigned protection, int fd);

/* A database or its -shm was opened: makes its carrier. Whether it has one by this name. */
bool carrier_make(union slot s, int fd);

/* A descriptor of one was closed, or replaced by another file. Keeps errno. */
void carriers_closed_slow(void);

static inline void carriers_closed(union slot s)
{
	if (__builtin_expect(s.role == ROLE_DATABASE || s.role == ROLE_SHM, 0))
		carriers_closed_slow();
}

/*
 * The lock call on the carrier of fd's file. False: there is none (a file system that is not known
 * to be good at OFD locks), the call is to be made as it is. True: *ret is 0 or -errno.
 */
bool carrier_lock(union slot s, int fd, int cmd, struct flock *lock, int *ret);

/* The same, unless a transaction goes on with it. */
void fence_rest(unsigned protection);
/* The database is in WAL mode now, or the process no longer the writer: no fence. */
void fence_drop(unsigned protection);

/* In a forked child, first of all: a descriptor kept here would keep the parent's locks alive. */
void carriers_fork(void);

#endif
