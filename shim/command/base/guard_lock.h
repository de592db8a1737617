/* SPDX-License-Identifier: MIT
 *
 * guard.lock in a store: who is the guardian of a directory, and who waits to become it. The locks
 * count; the text in the file is for people, and tells a guardian that did not end by itself.
 */
#ifndef COMMAND_BASE_GUARD_LOCK_H
#define COMMAND_BASE_GUARD_LOCK_H

#include <stdbool.h>
#include <sys/types.h>

#include "command/base/command.h"

/* Bytes of it. */
enum guard_lock_byte { GUARD_LOCK_GUARDIAN, GUARD_LOCK_WAITING };

/* The descriptor, or -errno. */
int guard_lock_open(int storefd);
/* type: F_WRLCK or F_UNLCK. 0, -EAGAIN: somebody else has it, or -errno. */
int guard_lock_set(int fd, enum guard_lock_byte byte, short type);
/* By somebody else. */
bool guard_lock_is_held(int fd, enum guard_lock_byte byte);

/* follow: the process that it was started for, 0: none. ends: by itself, when nobody has the
 * directory open any more. */
void guard_lock_write(int fd, pid_t follow, bool ends);
/* What stays there without the lock is of a guardian that did not end by itself. */
void guard_lock_clear(int fd);
/* The pid that is in it; 0: none, -1: it cannot be read. */
pid_t guard_lock_owner(int fd);
/* Whether whose it is was in another container, or on this machine before it was started anew. */
bool guard_lock_is_of_another_place(int fd);

/* The pid of a store's guardian, 0: none, -1: one that does not say yet, or waits for the last. */
int guard_is_running(int storefd);
/* The last one did not end by itself. */
bool guard_has_died(int storefd);
/* The one that is there was stopped by a signal. False of one in another container. */
bool guard_is_stopped(int storefd);

/*
 * Nobody has the directory open any more, and its guardian is about to end: it takes a last
 * snapshot. Waits for that, and says so, up to half a minute. Without such a guardian it returns at
 * once.
 */
void guard_wait_for_last(const struct data_directory *data);

#endif
