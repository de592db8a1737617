/* SPDX-License-Identifier: MIT
 *
 * Whether a segment still is what its last persist made of it. Raw system calls, nothing is
 * allocated.
 */
#ifndef CORE_ROLLBACK_LAST_H
#define CORE_ROLLBACK_LAST_H

#include <stdbool.h>
#include <stdint.h>

enum last_result {
	LAST_OTHERS,	     /* somebody else has persisted it, or put another state there */
	LAST_AS_LEFT,	     /* nothing of it was changed */
	LAST_MIXED,	     /* a part is as before that persist, another as after it */
	LAST_BEFORE,	     /* all of it is as before, and the database has gone on */
	LAST_WITHOUT_PICKLE, /* it was written since, but its pickle was not */
};

enum last_pickle { LAST_PICKLE_OTHERS, LAST_PICKLE_NOW, LAST_PICKLE_BEFORE };

struct rollback_last {
	enum last_result result;
	/* Grains that it altered: as it left them, as they were before it, neither. */
	uint64_t now, before, others;
	bool shorter; /* a file is shorter than it left it */
	enum last_pickle pickle;
};

/*
 * -ENOENT: nothing is known of a last persist. -EBUSY: one is under way, or waits to be undone.
 * -EBADMSG and others: what is known cannot be read.
 */
int rollback_last(int rootfd, int undofd, const char *segment, struct rollback_last *out);

/*
 * Before anything is written: removes what speaks of a segment that is gone, and of persists that
 * the database does not know any more since it was put back. It may open and close chroma.sqlite3.
 */
void rollback_forget_last(int rootfd, int undofd);

#endif
