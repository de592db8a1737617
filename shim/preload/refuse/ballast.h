/* SPDX-License-Identifier: MIT
 *
 * The ballast: a file in the store that takes space while there is plenty. It is given up when the
 * disk is full, so that what has begun can end.
 */
#ifndef PRELOAD_REFUSE_BALLAST_H
#define PRELOAD_REFUSE_BALLAST_H

#include "preload/place/protection.h"

/* What one should have on a disk of that size: a twentieth of a small one. */
uint64_t ballast_size(uint64_t total);
/* Looks for one that an earlier process has left, and whether it is there still. */
void ballast_find(const struct protection *a);
/* Makes one of `size` bytes, if that leaves as much again of the `spare` ones. */
void ballast_make(struct protection *a, uint64_t size, uint64_t spare);
/* Bytes of the directory's own, or of another's on the same disk. */
uint64_t ballast_at_hand(unsigned protection);
/* Gives up that one, and says so. False: there is none. */
bool ballast_give_up(unsigned protection);
/* Takes the directory's own away. False: it has none. */
bool ballast_remove(struct protection *a);
/* The directory is let go: its number is another's next. */
void ballast_forget(unsigned protection);

#endif
