/* SPDX-License-Identifier: MIT
 *
 * Which file a path means, and the names of files.
 *
 * Everything here is lock-free, allocates nothing and is async-signal-safe.
 */
#ifndef PRELOAD_FILES_H
#define PRELOAD_FILES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "preload/base/scratch.h"
#include "preload/base/slots.h"

/* ---- names: paths relative to their protected directory, interned for the process's life ---- */

struct name {
	uint32_t hash;
	uint32_t length;
	const char *text;
	/* Segment (sequence + 1) of the op log, and of the log of acts, that knows it. */
	_Atomic uint32_t told, told_act;
	uint32_t next;	    /* of those with the same bucket, 0: none */
	uint32_t directory; /* name of the directory it is in, 0 for the root's own files */
	uint8_t protection;
	uint8_t role;
	uint8_t kind;		 /* enum oplog_name_kind */
	_Atomic uint32_t group;	 /* of a segment's directory: its persist group + 1 (persists.c) */
	_Atomic uint64_t parked; /* the same: its undo file, while it needs no group (groups.c) */
	_Atomic uint32_t pin;	 /* of a file: its pre-image file that is open, + 1 (pin/pins.c) */
	/* Of a segment's directory, as hnswlib announced it, 0: not known (refuse/graphs.c) */
	_Atomic uint32_t graphs, elements, stride, list, pickle;
};

/* 0: no room any more (counted, and said once). */
uint32_t name_intern(unsigned protection, const char *text, size_t length);
/* For texts that are no file: statement texts, libraries. */
uint32_t name_intern_kind(unsigned protection, const char *text, size_t length, unsigned kind);
struct name *name_get(uint32_t number);
uint32_t names_count(void); /* numbers are below it */
const char *name_text(const struct name *n);

/* Makes the first of their room; false: no memory. Called under the lock of protection_claim(). */
bool names_setup(void);

/* The directory of a segment, by its name. */
bool name_is_segment(const struct name *n);

/* ---- places: what a path means (places.c) ---- */

/*
 * Longest path below a protected directory that is followed; Chroma's own names have about 60
 * characters.
 */
#define PLACE_MAX 2048

struct place {
	union slot slot; /* all zero: not ours */
	char *relative;	 /* normalised, "." for the directory itself; off the stack */
};

/* Declares one, which gives back what it has at the end of its block. */
#define A_PLACE(name) struct place name __attribute__((cleanup(place_end))) = {.relative = NULL}

static inline void place_end(struct place *place)
{
	scratch_give(&place->relative);
}

/* Where its path goes; NULL: there is no memory. */
static inline char *place_room(struct place *place)
{
	if (!place->relative)
		place->relative = scratch_take();
	return place->relative;
}

/* What takes a directory under protection (protection_claim()), and what looks at one before its
 * database is opened for writing: once, before the first path. */
struct protection;
void places_hand_in(struct protection *(*claim)(int dirfd), void (*look)(int dirfd));

/*
 * Whether `path`, taken relative to dirfd as openat() does, lies in a protected directory. The last
 * component is taken as it is, symbolic link or not. True: place is filled in. Keeps errno.
 *
 * thorough: ask the kernel also for absolute paths that do not begin with a known root (a path
 * through a symbolic link); costs a few hundred ns for every path that is not ours.
 */
bool place_find(struct place *place, int dirfd, const char *path, bool thorough);

/* A directory about to be renamed: if it has a store, it is taken under protection. */
bool place_discover_root(int dirfd, const char *path);

/* As place_find(), for calls that follow a symbolic link in the last component. */
bool place_find_target(struct place *place, int dirfd, const char *path, bool thorough);

/* For opens: starts to protect the directory of a chroma.sqlite3 that is about to be opened. */
bool place_find_for_open(struct place *place, int dirfd, const char *path, int flags);

/* A name was changed by this process: what led elsewhere may lead here now. */
void strangers_forget(void);

/* The same for a chroma.sqlite3 that was found to be a symbolic link: SQLite opens what it leads
 * to. */
void place_met_link(int dirfd, const char *path);

/* An open descriptor of which only the number is known (inherited, or through a link). */
bool place_of_descriptor(struct place *place, int fd, bool discover);

/* Absolute path of an open descriptor; one that is too long is cut off. */
bool descriptor_path(int fd, char *out, size_t size);

/* The role and number for place->relative. */
void place_settle(struct place *place, unsigned protection);

bool path_has_dotdot(const char *path); /* as a component */

/* Joins with single slashes and without "." components. False: too long, or out is NULL. */
bool place_join(char *out, const char *directory, const char *rest);

/* The second, and how often names were changed by this process: what is believed for a moment. */
uint64_t strangers_moment(void);

/* ---- directories by device and inode: directories.c ---- */

/* A directory was made, or opened, or is a link's target; gone ones are found out when they are met
 * again. */
void directory_learn(const struct place *place, const struct stat *st);
void directory_made(const struct place *place, int dirfd, const char *path);
void directories_read(unsigned protection, int dirfd); /* learns the directories in the root */
/* The name of the directory that `path` leads to, whose stat() is st; 0: not ours, or not known. */
uint32_t directory_find(int dirfd, const char *path, const struct stat *st);
/* What was found not to be ours is believed for a second, or each open beside us would look. */
void directory_stranger(const struct stat *st);
bool directory_is_stranger(const struct stat *st);
bool directory_is_root(const struct stat *st);
bool directory_device(dev_t dev); /* something of ours is on that device */

/* A segment's directory is named by a UUID: 8-4-4-4-12. */
bool name_is_uuid(const char *text, size_t length);

/* After a rename: what is open, and what is below a renamed directory, gets its new name. */
void files_renamed(const struct place *from, const struct place *to, bool exchanged);
/* The name that the rename of `from` to `to` gives to n, 0 if it is not concerned. */
uint32_t name_renamed(const struct name *n, const struct place *from, const struct place *to);

#endif
