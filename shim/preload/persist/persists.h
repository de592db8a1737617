/* SPDX-License-Identifier: MIT
 *
 * Persist groups: an HNSW segment is wholly before or wholly after its persist, whatever dies.
 *
 * The first change to a file of a segment opens its group; closing the rewritten pickle commits it.
 * In between, what is overwritten is in the group's undo file (chromashim_undo.h), from which the
 * segment is put back: by the next start if this process dies, at once if one of its writes fails.
 * After that the segment is frozen: hnswlib has forgotten what was dirty, so every later persist
 * would be incomplete; its files cannot be written any more until the process ends.
 *
 * Within a persist that runs inside a SQLite transaction of its own thread (Chroma before 1.0) the
 * commit waits for that transaction's.
 */
#ifndef PRELOAD_PERSISTS_H
#define PRELOAD_PERSISTS_H

#include "preload/place/change.h"

/*
 * Before and after a change to a file of a segment. ANSWERED: held back and as good as done, or
 * refused because the segment is frozen; c->result and errno tell.
 */
enum change_verdict persist_change_begin(struct change *c);
void persist_change_end(struct change *c, int64_t ret);
/* A write that is refused for what it would do: the persist that it is part of is undone. */
void persist_fail(const struct change *c, int error);
/* Whether it may be that nobody hears that this change fails, once the pickle is open. */
bool persist_is_unheard(const struct change *c);
/* Renames of directories, and renames onto a segment's file. */
void persist_rename_begin(struct change *c);
void persist_rename_end(struct change *c, int64_t ret);

/* A descriptor is about to be closed. */
void persist_closing_slow(int fd, union slot s);
/* A file is about to be read by the kernel, synced or mapped: what is held back of it must be
 * there. */
void persist_reading_slow(union slot s);
/* It is about to be mapped shared and writable. */
void persist_mapping(int fd, union slot s, uint64_t offset, uint64_t length);

extern _Atomic unsigned persists_holding; /* groups that hold something back */
extern _Atomic uint64_t persists_let_go;  /* how often one has let it go */

/*
 * Around a plain read of a file: what is held back of it is laid over the n bytes that were read at
 * `at`. Nothing is locked during the read, from which the thread may never come back: it may be
 * cancelled there, jump out of a signal handler, or wait for a file system that hangs.
 */
static inline uint64_t persist_read_begin(void)
{
	return atomic_load(&persists_let_go);
}

void persist_read_end(uint64_t before, int fd, union slot s, int64_t at, void *buf, size_t n);

static inline void persist_closing(int fd, union slot s)
{
	if (__builtin_expect(s.role == ROLE_PICKLE && s.writable, 0))
		persist_closing_slow(fd, s);
}

static inline bool persist_holds(union slot s)
{
	return __builtin_expect(role_in_segment(s.role), 0) &&
	       atomic_load_explicit(&persists_holding, memory_order_relaxed);
}

static inline void persist_reading(union slot s)
{
	if (persist_holds(s))
		persist_reading_slow(s);
}

/* The transaction of this thread has ended: what waited for it is final, or void. */
void persists_transaction_ended(unsigned protection, bool committed);

/* A directory comes under protection: groups of dead processes are rolled back first. */
void persists_start(unsigned protection);
/* Its log is there: what was rolled back is recorded. */
void persists_started(unsigned protection);
void persists_fork(void);
/* Nothing of the directory is in a persist, or frozen. What was only created, by a host that has no
 * descriptor there any more, stays as it is. */
bool persists_none(unsigned protection);
/* The same, and nothing is done about what was only created. */
bool persists_idle(unsigned protection);
/* It is let go. */
void persists_stop(unsigned protection);

#endif
