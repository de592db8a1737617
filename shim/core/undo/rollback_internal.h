/* SPDX-License-Identifier: MIT
 *
 * One roll-back as its rooms share it: rollback.c (which, how), rollback_lives.c (whose
 * process is dead), rollback_judge.c (whether), rollback_last.c (the last one that was committed).
 */
#ifndef CORE_ROLLBACK_INTERNAL_H
#define CORE_ROLLBACK_INTERNAL_H

#include "core/undo/rollback.h"
#include "core/undo/rollback_last.h"

/* One roll-back under way. */
struct work {
	const struct rollback *rb;
	struct undo_reader reader;
	struct rollback_outcome *outcome;
	int segmentfd;
	int files[UNDO_FILES]; /* -1: not open yet */
	bool moved[UNDO_FILES];
	unsigned char *data; /* UNDO_LENGTH_MAX bytes */
	bool changes;	     /* it says that something was changed */
	bool tentative;
	uint32_t counter;
};

/* 0: free (and not kept), 1: somebody has it, -errno: cannot be told. */
int rollback_lock_state(int fd);
bool rollback_lives(int undofd, const struct undo_header *h);
bool rollback_same_boot(const struct undo_header *h);
/* The power may have gone, or this is a copy, or an image of the disk. */
bool rollback_power_cut(const struct work *w);
/*
 * Whether the segment is as it was saved, or on the way to what was announced. 0: yes; 1: its files
 * are somebody else's, or were written since; -errno.
 */
int rollback_judge(struct work *w);
/* The segment against what the persist left: the counts and the pickle of *out. 0 or -errno. */
int rollback_compare(struct work *w, struct rollback_last *out, uint64_t *pickle_size);

#endif
