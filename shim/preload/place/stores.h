/* SPDX-License-Identifier: MIT
 *
 * The store is out of bounds for the host's code, in every process that has the library: its
 * snapshots and undo data are what is left when the host destroys its own files. The library itself
 * works there with raw calls, and the command is not under the library. Reading is free.
 */
#ifndef PRELOAD_STORES_H
#define PRELOAD_STORES_H

#include "preload/place/change.h"

/*
 * Whether `path`, as given to a call with dirfd, names a store or something in one; its last
 * component is not followed. True: place is filled in, its role is ROLE_STORE, and `relative` is
 * the absolute path. Looks only where the text of the path says so or, if thorough, where the
 * directory that the path is in is not known to be elsewhere.
 */
bool store_find(struct place *place, int dirfd, const char *path, bool thorough);

/* A path that was found to lead to no store, as a whole; believed for a second. */
bool store_is_strange(int dirfd, const char *path);
void store_strange(int dirfd, const char *path);
/* Relative paths mean something else from now on. */
void store_directory_changed(void);

/* Whether an absolute path without links lies in a store. The buffer is used, and put back. */
bool store_holds(char path[PATH_MAX]);
void store_settle(struct place *place, const char *path);

/* The host removes a directory that holds nothing else: its store is moved beside it. Keeps errno.
 */
bool store_steps_aside(int dirfd, const char *path);

/* A change to something in a store, or through one of the shim's own descriptors. */
static inline bool store_concerns(const struct change *c)
{
	return c->slot.role <= ROLE_HIDDEN || (c->target && c->target->slot.role == ROLE_STORE);
}

/* Refuses it: the error for the call, which is said. */
int store_refusal(const struct change *c);

#endif
