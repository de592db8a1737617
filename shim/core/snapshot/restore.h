/* SPDX-License-Identifier: MIT
 *
 * Snapshots back into files: into a directory, and in place of what a data directory holds.
 *
 * In place is done in two steps. restore_prepare() builds everything in <store>/restore/new, where
 * it can be checked; restore_swap() then exchanges it for what is there. For the time of the
 * exchange a placeholder that is no database stands at chroma.sqlite3, so that no backend can start
 * on half of it, and the file <store>/restore/journal says what is being done. Whoever finds one
 * ends the exchange with restore_resume(). What was there before is moved to
 * <store>/quarantine/<name>; nothing is ever removed.
 */
#ifndef CORE_RESTORE_H
#define CORE_RESTORE_H

#include <sys/stat.h>

#include "core/snapshot/snapshot.h"

#define RESTORE_DIR "restore"	    /* in the store */
#define QUARANTINE_DIR "quarantine" /* in the store */

/*
 * All files of a snapshot into the directory dirfd, which has none of them, the database last; all
 * synced unless told not to. -ENOENT, -ENODATA, -EBADMSG, -EPROTONOSUPPORT: of a chunk, *t says of
 * which file; the damaged chunk's name is in *bad_out (may be NULL). -ENOSPC without trying if room
 * lacks.
 */
struct restore_options {
	/* The data directory: whose the files shall be, where root restores, and how open their
	 * directories; may be NULL. */
	const struct stat *owner;
	bool unsynced; /* for files that are only looked at, and then removed */
	snapshot_progress_fn *progress;
	void *context;
};
int restore_build(struct snapshot_store *s, const struct manifest *m, int dirfd,
		  const struct restore_options *options, struct snapshot_trouble *t,
		  struct chunk_name *bad_out);

/* All of that but the writing: each chunk is compared with its name. */
int restore_try(struct snapshot_store *s, const struct manifest *m,
		const struct restore_options *options, struct snapshot_trouble *t,
		struct chunk_name *bad_out);

/* Opens <store>/restore/new, empty. -EINPROGRESS: a swap waits to be ended. */
int restore_prepare(int storefd);
/* Gives it up. */
void restore_abandon(int storefd);

struct restore_swap {
	int datafd, storefd;
	const char *quarantine; /* a name for what was there, as a time */
	/* A file in restore/new that goes to quarantine too, if it is there; may be NULL. */
	const char *aside;
	/* Called before the first change, while whoever starts now cannot write: < 0, and nothing
	 * is changed. May be NULL. */
	int (*check)(void *check_context);
	void *check_context;
	/* Called before every step that changes something; may be NULL. For tests. */
	void (*step)(void *context);
	void *context;
};

/*
 * Puts restore/new in place of Chroma's files in datafd, and holds the locks meanwhile that a
 * backend needs to write, with the library (writer.lock) or without (SQLite's). -EBUSY: somebody
 * has one. -EXDEV: the store is on another file
 * system; -ENOENT: no database in restore/new. An error in the middle leaves the journal, for
 * restore_resume().
 */
int restore_swap(const struct restore_swap *swap);

enum restore_resumed {
	RESTORE_ENDED = 1,    /* what somebody had begun */
	RESTORE_GIVEN_UP = 2, /* it had changed nothing yet */
};

/* 0: nothing to do; enum restore_resumed; or -errno. -EBUSY: a backend runs, or is starting.
 * `quarantine` is not used. */
int restore_resume(const struct restore_swap *swap);
bool restore_is_pending(int storefd);

/* The database, what SQLite keeps beside it, and segments: what is exchanged. */
bool restore_is_chromas(const char *name);

#endif
