/* SPDX-License-Identifier: MIT
 *
 * The right to write in a family of processes. At fork() the writer, if it is in the midst of
 * nothing, lets go of all of its lock but the first byte: that keeps strangers out, who lock the
 * whole file. The first of parent and child that writes then has the right; a child also locks the
 * other bytes, and when it has ended its brothers and sisters may. A child that has the right and
 * forks is the first of a family of its own, behind its parent's byte.
 */
#ifndef PRELOAD_HEIRS_H
#define PRELOAD_HEIRS_H

#include "preload/place/protection.h"

#define HEIRS_BYTE 1 /* what the first of a family keeps of writer.lock */

/* In memory that the family shares. */
struct right {
	_Atomic int holder;  /* process; 0: whoever writes first */
	int first;	     /* the process that has the first byte */
	int from;	     /* which byte that is */
	struct right *outer; /* of the family that the first is a child of; NULL: of none */
};

/* 0: memory for another one cannot be had. */
struct right *right_new(struct right *outer, int from);
void heirs_fork(void);
/* The byte of the lock file from which on this process has to lock. */
int heirs_from(const struct protection *a);
/* Whether this process is the one that has the first byte. */
bool heirs_is_first(const struct protection *a);
/* What the right is taken from, before and after the lock is had. False: another was faster. */
int heirs_holder(const struct protection *a);
bool heirs_take(struct protection *a, int from);

#endif
