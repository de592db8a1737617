/* SPDX-License-Identifier: MIT
 *
 * Whether a process lives: told by a lock, never by a pid. Pids repeat in containers that share a
 * volume, and another pid namespace cannot see them; a lock is the kernel's, and goes with the
 * process.
 *
 * The store has one file for this, "alive.lock". Each process that has something in the store which
 * others must leave alone while it lives (log segments, undo files, pins) draws a number at random,
 * its life, and holds an OFD write lock on the single byte at that offset. Whatever it makes
 * carries the number. A read lock on one byte behind all lives says that a process has the database
 * open. The file stays empty, and nothing in it has to be tidied up.
 *
 * Raw system calls only, async-signal-safe, thread-safe; for both sides. Errors are -errno.
 */
#ifndef CORE_ALIVE_H
#define CORE_ALIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ALIVE_NAME "alive.lock" /* in the store */

enum alive {
	ALIVE_DEAD,
	ALIVE_LIVES,
	ALIVE_UNKNOWN, /* no such locks on this file system, or no right to look */
};

/*
 * Opens the file, which is made if need be and given to the owner of the store. What is opened
 * carries the locks: it is kept open as long as the life lasts, and a forked child closes its copy.
 */
int alive_open(int storefd);

/* Draws a life, never 0, and locks it through fd. 0 or -errno: this file system has no such locks.
 */
int alive_begin(int fd, uint64_t *life);

/* Somebody has removed the file that had this inode, or put another in its place. */
bool alive_is_gone(int storefd, ino_t ino);
/* The same life again, through a descriptor of the new file. */
int alive_again(int fd, uint64_t life);

/* Says, or no longer says, that this process has the database open. Through fd, as a life. */
int alive_use(int fd, int on);

/* Whether any process says so; but for this one, whose descriptor is `own` (or -1). false also
 * where it cannot be told. */
bool alive_in_use(int storefd, int own);

/* How the process with that life is; 0, which nobody has, is dead. Also right for one's own. */
enum alive alive_is(int storefd, uint64_t life);

/* Whether any process lives in the store. */
enum alive alive_any(int storefd);

#endif
