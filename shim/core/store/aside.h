/* SPDX-License-Identifier: MIT
 *
 * A store beside its directory. When a program removes a data directory as a whole, the store in it
 * is not removed with it: it is moved from DIR/.chromashim to .NAME.chromashim beside DIR, and back
 * when a database is made in a directory of that name. Meanwhile the command finds it there. If the
 * directory around it is removed as well, it moves on: OUTER/.NAME.chromashim becomes
 * .OUTER.NAME.chromashim.
 *
 * Raw system calls only, async-signal-safe; for both sides. Errors are -errno.
 */
#ifndef CORE_STORE_ASIDE_H
#define CORE_STORE_ASIDE_H

#include <stdbool.h>

#define STORE_ASIDE_MAX 256
#define STORE_ASIDE_LEVELS 4 /* how far up a store is looked for */

/* Whether a file name is one that stores have, in their directory or aside. */
bool store_aside_is(const char *name);

/*
 * Where the store of the directory is if it was put aside: at `level` (1: beside the directory) the
 * number of ".." to go up from it, and the name there. False: there is no such name.
 */
bool store_aside_name(char out[STORE_ASIDE_MAX], const char *directory, unsigned level);

/* A directory that holds stores and nothing else gives them away. -ENOTEMPTY: it holds more. */
int store_aside_put(int dirfd, const char *directory);

/* A directory without a store takes it back. -ENOENT: there is none. */
int store_aside_take(int dirfd, const char *directory);

#endif
