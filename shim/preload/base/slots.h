/* SPDX-License-Identifier: MIT
 *
 * What a descriptor means: descriptor -> slot -> protected directory, name, role.
 *
 * Everything here is lock-free, allocates nothing and is async-signal-safe. A descriptor that is
 * not ours costs two loads.
 */
#ifndef PRELOAD_SLOTS_H
#define PRELOAD_SLOTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/sys.h"

#define PROTECTIONS 255 /* directories that one process can have protected */

enum role {
	ROLE_NONE,   /* not ours */
	ROLE_STORE,  /* something in a store: stores.h */
	ROLE_HIDDEN, /* a descriptor of the shim itself: as good as not there */
	ROLE_DIRECTORY,
	ROLE_DATABASE, /* chroma.sqlite3 */
	ROLE_JOURNAL,
	ROLE_WAL,
	ROLE_SHM,
	ROLE_HEADER, /* <segment>/header.bin */
	ROLE_LEVEL0, /* <segment>/data_level0.bin */
	ROLE_LENGTH, /* <segment>/length.bin */
	ROLE_LINKS,  /* <segment>/link_lists.bin */
	ROLE_PICKLE, /* <segment>/index_metadata.pickle */
	ROLE_OTHER,
};

/* One of the four hnswlib files or the pickle. */
static inline bool role_in_segment(unsigned role)
{
	return role >= ROLE_HEADER && role <= ROLE_PICKLE;
}

static inline bool role_of_chroma(unsigned role)
{
	return role >= ROLE_DATABASE && role <= ROLE_PICKLE;
}

/* What a descriptor means; plain value, copied on dup, inherited by fork. */
union slot {
	uint64_t all; /* 0: not ours */
	struct {
		uint32_t name : 24;   /* number of the name, see names below */
		uint32_t touched : 8; /* of a database: which tables, refuse/touched.h */
		uint8_t protection;   /* index of the protected directory */
		uint8_t role;
		uint8_t object;	  /* index of the library that opened it; of an index's file: its
				     graph; 0 unknown */
		uint8_t writable; /* SLOT_ flags */
	};
};

#define SLOT_NAME(number) ((number)&0xffffffu) /* there are fewer, place/files.c */

#define SLOT_WRITABLE 1u
#define SLOT_APPEND 2u
#define SLOT_INHERITED 64u /* by exec(): of a shell's redirection, and no SQLite's or Chroma's */
/* Of a database: */
#define SLOT_VOID 4u	 /* of a client whose graph is old, refuse/destroyers.c */
#define SLOT_NOWHERE 8u	 /* in a transaction that goes nowhere, refuse/readers.c */
#define SLOT_STALE 16u	 /* what SQLite remembers of it is on no disk */
#define SLOT_CARRIED 32u /* it has had a carrier since it was opened, sqlite/carriers.c */

#define SLOTS (1 << 20)
#define SLOT_PAGE 4096 /* made when a descriptor of it is ours; the first is always there */
extern _Atomic uint64_t *_Atomic slot_pages[SLOTS / SLOT_PAGE];
extern _Atomic int slots_top; /* no descriptor at or above this one is ours */

static inline union slot slot_of(int fd)
{
	union slot s = {0};

	if ((unsigned)fd < SLOTS) {
		_Atomic uint64_t *page =
		    atomic_load_explicit(&slot_pages[fd / SLOT_PAGE], memory_order_relaxed);

		if (page)
			s.all = atomic_load_explicit(&page[fd % SLOT_PAGE], memory_order_relaxed);
	}
	return s;
}

void *memory_make(size_t size); /* zeros, for good; NULL: there is none */

/* The memory that `place` leads to, made if it is not there yet; NULL: there is none. */
#define MADE(place, size)                                                                     \
	({                                                                                    \
		__typeof__(atomic_load(&(place))) there_ = atomic_load(&(place)), new_;       \
                                                                                              \
		if (!there_) {                                                                \
			new_ = memory_make(size);                                             \
			if (!new_ || atomic_compare_exchange_strong(&(place), &there_, new_)) \
				there_ = new_;                                                \
			else                                                                  \
				sys_munmap((void *)new_, size);                               \
		}                                                                             \
		there_;                                                                       \
	})

/* Ours and not one of the shim's own. */
static inline bool slot_protected(union slot s)
{
	return s.role > ROLE_HIDDEN;
}

void slot_set(int fd, union slot s);
void slot_clear(int fd);

/* How a protected directory is used: descriptors of the host's that are in it, and since when (by
 * oplog_now(), ns) there is none. */
struct slots_use {
	_Atomic int open;
	_Atomic uint64_t idle_since;
};

extern struct slots_use slots_use[PROTECTIONS];

#endif
