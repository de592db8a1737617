/* SPDX-License-Identifier: MIT
 *
 * Rolling back persist groups whose process is dead.
 *
 * Runs inside the backend before Chroma has opened anything, and in the command. Idempotent: a
 * death at any step is made good by the next run. No malloc, raw system calls. It may open and
 * close chroma.sqlite3, so a process that has SQLite's locks on it must not call it.
 */
#ifndef CORE_ROLLBACK_H
#define CORE_ROLLBACK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/undo/undo.h"

enum rollback_result {
	ROLLBACK_DONE,	    /* the segment is as before the persist */
	ROLLBACK_CREATION,  /* it had never been persisted: its files are gone, which is normal */
	ROLLBACK_COMMITTED, /* the persist was final; only the undo file was left over */
	ROLLBACK_GONE,	    /* the segment's directory is no more, or nothing was changed yet */
	ROLLBACK_LIVE,	    /* its process lives: left alone */
	ROLLBACK_FOREIGN,   /* the segment is not what the persist was writing: put aside */
	ROLLBACK_DAMAGED,   /* the undo file cannot be read: put aside */
	ROLLBACK_NEWER,	    /* it is of a newer version: left alone */
	ROLLBACK_FAILED,    /* see error; left for the next try */
};

struct rollback_outcome {
	enum rollback_result result;
	int error;		   /* -errno where it failed or is damaged */
	uint64_t bytes;		   /* put back */
	uint64_t skipped;	   /* damaged records */
	struct undo_header header; /* all zero if it could not be read */
	const char *name;	   /* of the undo file; valid during the report */
};

struct rollback {
	int rootfd;  /* the data directory; O_PATH will do */
	int undofd;  /* undo/ in its store */
	bool dry;    /* only say what would be done */
	bool shared; /* there may be what is of other directories in it: that is left alone */
	/* Told of every group. */
	void (*report)(void *context, const struct rollback_outcome *outcome);
	/* Called before every step that changes something; may be NULL. For tests and progress. */
	void (*step)(void *context);
	void *context;
};

/*
 * All groups of dead processes in undo/. 0, or -errno if they could not even be looked for. Cheap
 * where there are none.
 */
int rollback_directory(const struct rollback *rb);

/* One group of this process, by the descriptor of its undo file, which is removed when done. */
int rollback_own(const struct rollback *rb, int fd, struct rollback_outcome *outcome);

/*
 * The undo file of h, of a segment that holds nothing yet, is the one that counts: those of other
 * processes that made it before, and never persisted it, go. Async-signal-safe.
 */
void rollback_supersede(int undofd, struct undo_header *h);

#endif
