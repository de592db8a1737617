/* SPDX-License-Identifier: MIT
 *
 * Which file a descriptor or a path means: descriptor -> slot -> protected directory, name, role.
 *
 * Everything here is lock-free, allocates nothing and is async-signal-safe. A descriptor that is
 * not ours costs one load from slots[].
 */
#ifndef PRELOAD_FILES_H
#define PRELOAD_FILES_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

enum role {
	ROLE_NONE, /* not ours */
	ROLE_HIDDEN,   /* a descriptor of the shim itself: as good as not there */
	ROLE_DIRECTORY,
	ROLE_DATABASE, /* chroma.sqlite3 */
	ROLE_JOURNAL,
	ROLE_WAL,
	ROLE_SHM,
	ROLE_HEADER,   /* <segment>/header.bin */
	ROLE_LEVEL0,   /* <segment>/data_level0.bin */
	ROLE_LENGTH,   /* <segment>/length.bin */
	ROLE_LINKS,    /* <segment>/link_lists.bin */
	ROLE_PICKLE,   /* <segment>/index_metadata.pickle */
	ROLE_OTHER,
};

/* One of the four hnswlib files or the pickle. */
static inline bool role_in_segment(unsigned role)
{
	return role >= ROLE_HEADER && role <= ROLE_PICKLE;
}

/* What a descriptor means; plain value, copied on dup, inherited by fork. */
union slot {
	uint64_t all; /* 0: not ours */
	struct {
		uint32_t name;	/* number of the name, see names below */
		uint8_t area;	/* index of the protected directory */
		uint8_t role;
		uint8_t object; /* index of the library that opened it, 0 unknown */
		uint8_t writable;
	};
};

#define SLOTS (1 << 20)
extern _Atomic uint64_t slots[SLOTS];
extern _Atomic int slots_top; /* no descriptor at or above this one is ours */

static inline union slot slot_of(int fd)
{
	union slot s = {0};

	if ((unsigned)fd < SLOTS)
		s.all = atomic_load_explicit(&slots[fd], memory_order_relaxed);
	return s;
}

/* Ours and not one of the shim's own. */
static inline bool slot_protected(union slot s)
{
	return s.role > ROLE_HIDDEN;
}

void slot_set(int fd, union slot s);
void slot_clear(int fd);

/* ---- names: paths relative to their protected directory, interned for the process's life ---- */

struct name {
	uint32_t hash;
	uint32_t length;
	uint64_t text;	       /* offset in the arena */
	_Atomic uint32_t told; /* segment (sequence + 1) of the op log that knows it */
	uint32_t directory;    /* name of the directory it is in, 0 for the root's own files */
	uint8_t area;
	uint8_t role;
	uint8_t kind; /* enum oplog_name_kind */
};

/* 0: no room any more (counted, and said once). */
uint32_t name_intern(unsigned area, const char *text, size_t length);
/* For texts that are no file: statement texts, libraries. */
uint32_t name_intern_kind(unsigned area, const char *text, size_t length, unsigned kind);
struct name *name_get(uint32_t number);
const char *name_text(const struct name *n);

/* ---- places: what a path means ---- */

struct place {
	union slot slot;	 /* all zero: not ours */
	char relative[PATH_MAX]; /* normalised, "." for the directory itself */
};

/*
 * Whether `path`, taken relative to dirfd as openat() does, lies in a protected directory. Follows
 * no symbolic link in the last component. True: place is filled in.
 */
bool place_find(struct place *place, int dirfd, const char *path);

/* The same for a database being opened: finds (and starts to protect) its directory. */
bool place_find_for_open(struct place *place, int dirfd, const char *path, int flags);

/* A directory has appeared below a protected one, or gone. */
void directory_known(const struct stat *st, unsigned area, uint32_t name);
/* As directory_known(), asking the kernel. */
void directory_made(const struct place *place, int dirfd, const char *path);
void directory_read(unsigned area, int dirfd); /* learns the directories in the root */

/* After a rename within or out of the protected directory: open descriptors get the new name. */
void files_renamed(const struct place *from, const struct place *to);

bool file_in_store(const char *relative);

#endif
