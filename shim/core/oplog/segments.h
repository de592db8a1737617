/* SPDX-License-Identifier: MIT
 *
 * Segments of the op log: a place in memory and a file for each. For oplog.h, inside the backend.
 */
#ifndef CORE_OPLOG_SEGMENTS_H
#define CORE_OPLOG_SEGMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/oplog/oplog.h"

#define OPLOG_HEADER_SLOTS (OPLOG_HEADER_SIZE / OPLOG_SLOT_SIZE)
#define OPLOG_SEGMENT_SIZE(slots) (OPLOG_HEADER_SIZE + (size_t)(slots)*OPLOG_SLOT_SIZE)
#define OPLOG_CAPACITY_MIN (2048 - OPLOG_HEADER_SLOTS)	 /* 128 KiB */
#define OPLOG_CAPACITY_LAZY (16384 - OPLOG_HEADER_SLOTS) /* 1 MiB */
#define OPLOG_SHARE 8	   /* a segment is that part of the log's bound, at most */
#define OPLOG_FILE_NAME 64 /* bytes of a file's name */
#define OPLOG_NOWHERE UINT32_MAX
#define OPLOG_PIECE 2048u /* slots, 128 KiB: in such steps a segment leaves the memory */

static inline void oplog_segment_leave(struct oplog_segment *s)
{
	__atomic_fetch_sub(&s->users, 1, __ATOMIC_SEQ_CST);
}

/* Until it is left its place is not mapped over. False: it is about to be; it is not left then. */
static inline bool oplog_segment_enter(struct oplog_segment *s, uint32_t *sequence_out)
{
	__atomic_fetch_add(&s->users, 1, __ATOMIC_SEQ_CST);
	*sequence_out = __atomic_load_n(&s->sequence, __ATOMIC_SEQ_CST);
	if (*sequence_out != OPLOG_NOWHERE)
		return true;
	oplog_segment_leave(s);
	return false;
}

/* How large they may be, from the log's bound. */
void oplog_segments_bound(struct oplog_writer *w);
void oplog_segment_name(char out[OPLOG_FILE_NAME], const struct oplog_header *h,
			const char *suffix);
int oplog_folder(
    const struct oplog_writer *w); /* oplog/ or acts/, for the caller to close; -errno */

/* Makes the next segment unless someone is at it or it failed lately. */
void oplog_prepare_next(struct oplog_writer *w);

/* Goes on from the full segment `full`, entered (NULL at the start). False: there is no next one.
 */
bool oplog_advance(struct oplog_writer *w, struct oplog_segment *full);

/*
 * n slots from `index` on have been claimed in s, which is entered: what lies a piece behind leaves
 * this process's memory. It stays in the page cache, and in the file; who is still writing there
 * gets the page back.
 */
void oplog_segment_pass(const struct oplog_segment *s, uint64_t index, uint32_t n);

/* Its header says what protects the directory now, and whether the process was refused. */
void oplog_segment_tell(const struct oplog_writer *w, const struct oplog_segment *s);

/* Memory in the place of all segments: who was held up still hits something valid. */
void oplog_segments_leave(const struct oplog_writer *w);
bool oplog_segments_hold(const struct oplog_writer *w, uintptr_t at);

#endif
