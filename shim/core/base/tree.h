/* SPDX-License-Identifier: MIT
 *
 * Whole files and directories of the store: copying, removing, syncing, room.
 */
#ifndef CORE_TREE_H
#define CORE_TREE_H

#include <stdint.h>

/* Removes what `name` in dirfd is, with all below it; symbolic links are not followed. 0 also if
 * there is nothing. */
int tree_remove(int dirfd, const char *name);

/* Removes what is in the directory. */
int tree_empty(int dirfd);

/* Makes directory `name` (0700) where there is none and opens it. The descriptor or -errno. */
int tree_make_directory(int dirfd, const char *name);

/* 1: nothing but "." and ".." in it, 0: something, or -errno. */
int tree_is_empty(int dirfd);

/* 1: below it are directories and empty files alone, and in itself `but`; 0: more, or -errno. */
int tree_is_hollow(int dirfd, const char *but);

/*
 * A copy of the file that `from` is open on, as `name` in dirfd: a clone where the file system can,
 * else by bytes, holes kept. -ENOSPC without trying if room lacks. Not synced.
 */
int tree_copy_file(int from, int dirfd, const char *name);

/* Bytes that may be written there; UINT64_MAX if that is not known. */
uint64_t tree_room(int dirfd);

/* fsync of a directory; 0 where the file system has no such thing. */
int tree_sync(int dirfd);

#endif
