/* SPDX-License-Identifier: MIT
 *
 * Protected directories of this process: their root, their store, their log.
 */
#ifndef PRELOAD_PROTECTION_H
#define PRELOAD_PROTECTION_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/oplog/oplog.h"
#include "core/store/store.h"
#include "preload/base/shim.h"
#include "preload/place/files.h"
#include "preload/place/holds.h"

#define SPELLINGS 4

/* The second log of a directory, what each of its segments begins with. */
struct acts {
	struct oplog_writer log;
	_Atomic uint32_t told; /* by which segment, its sequence + 1 */
	uint32_t command_size;
	char command[1024]; /* the process's command line */
};

struct protection {
	/* How the host may name the root: absolute; [0] is the real path, without trailing slash.
	 */
	char (*spelling)[PATH_MAX];
	size_t spelling_length[SPELLINGS];
	_Atomic size_t spellings;
	_Atomic bool ready; /* else it is being made, or has been let go */
	_Atomic int users;  /* changes by path that are under way */
	bool undo_usable;   /* undo/ is there; else nothing of a persist can be saved */
	bool named;	    /* by CHROMASHIM_DIR: not let go */
	dev_t dev;
	ino_t ino;
	int root_fd;  /* hidden O_PATH descriptor of the directory */
	int store_fd; /* hidden descriptor of the store, -1: unprotected */
	/* lives.c */
	_Atomic uint64_t life;
	atomic_flag beginning; /* of the life */
	bool lifeless;	       /* the store's file system has no such locks */
	bool maps_hold;	       /* a map keeps a file open there, and its locks */
	struct hold alive;     /* has the lock that says that this process lives */
	struct hold use;       /* has the one that says that it has the database open */
	_Atomic uint32_t using;
	ino_t alive_ino;
	uint8_t store_id[STORE_ID_SIZE]; /* all zero: it has none yet */
	char *store_below; /* the store, when it is elsewhere below the root; relative */
	bool failed;	   /* the store or its log cannot be used */
	/* A persist was undone after the last error that Chroma heeds (persist/end.c). */
	_Atomic bool persist_lost;
	struct oplog_writer log;
	struct acts *acts;     /* NULL: there is none */
	_Atomic int ofd_locks; /* sqlite/carriers.c: 1 usable, -1 not, 0 not known yet */
	_Atomic bool wal_mode; /* a WAL was opened for writing */
	/* refuse/writer.c */
	_Atomic int writer;	       /* shim_pid when this process is the writer */
	_Atomic uint32_t writer_claim; /* the thread that is about to become it */
	_Atomic uint8_t opening;       /* refuse/opening.h: what it has done as the writer */
	struct hold first, rest;       /* have the lock: of its first byte, and of all others, */
	int lock_from;		       /* which is the first */
	ino_t writer_ino;
	bool forked;	     /* from the writer */
	bool left;	     /* to a child; until all is closed here */
	struct right *right; /* of the family, refuse/heirs.h; NULL: it was never passed on */
	bool read_beside;    /* an index was loaded while another process was the writer */
	uint64_t generation; /* what is in memory is as of it; 0: not known */
	bool guarded;	     /* there is a guardian, or one was started */
	_Atomic bool in_use; /* said to others: the database is open here */
	_Atomic bool other_openers_looked_for; /* refuse/other_openers.c */
};

extern struct protection protections[PROTECTIONS];
extern _Atomic unsigned protections_used;

static inline unsigned protection_number(const struct protection *a)
{
	return (unsigned)(a - protections);
}

/* Whether this process has the right to write there (refuse/writer.c). */
static inline bool writer_is_ours(const struct protection *a)
{
	return atomic_load_explicit(&a->writer, memory_order_relaxed) == shim_pid;
}

static inline struct protection *protection_of(union slot s)
{
	return &protections[s.protection];
}

/* A folder of its store, for a moment: the caller closes it. -errno. */
int protection_folder(const struct protection *a, const char *name);

/* Finds or makes the protection of the directory that dirfd is open on. NULL: no room for another.
 */
struct protection *protection_claim(int dirfd);
/* One that there is; NULL: none. */
struct protection *protection_find(const struct stat *directory);
void protection_add_spelling(struct protection *a, const char *directory);
/* ---- being used and let go: protection_use.c ---- */

/* Around whatever uses a directory without a descriptor in it. False: it was let go meanwhile. */
bool protection_enter(unsigned protection);
void protection_leave(unsigned protection);
/* Under the turn of protection_claim(): those that are gone, and the oldest of many that are idle,
 * give back what they have. */
void protections_tidy(void);
bool protection_release(unsigned protection); /* false: it is in use */
bool protections_release_idle(void); /* the same, all that are idle; true: there were some */
/*
 * The host is out of descriptors: whatever of ours is not in use just now gives back its own, but
 * for the one that is kept. True: there were some. Keeps errno.
 */
bool protection_descriptors_give_back(void);
bool protection_let_go(struct protection *a); /* false: it is in use, or another thread takes one */
bool protection_is_gone(const struct protection *a); /* its directory was removed */
void protection_descriptors_release(struct protection *a);

/* Something was renamed that may be, or be above, a root: roots that moved get their new path. */
void protections_moved(void);

/* In a forked child. */
void protections_fork(void);
void protections_finish(int number);

#endif
