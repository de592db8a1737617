/* SPDX-License-Identifier: MIT
 *
 * Writing the op log; the format is specified in chromashim_oplog.h, read.h reads it.
 *
 * The writer runs inside the backend: lock-free, no malloc, no descriptor kept, async-signal-safe,
 * thread-safe; raw system calls only, and those only when a segment is made.
 */
#ifndef CORE_OPLOG_H
#define CORE_OPLOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "chromashim_oplog.h"

#define OPLOG_DIR "oplog"     /* in the store */
#define OPLOG_ACTS_DIR "acts" /* beside it: what oplog_is_act() is, kept for longer */
#define OPLOG_SUFFIX ".oplog"

/* ---- writing ---- */

/*
 * Segments are mapped at a few fixed places, used in turn. A place is never unmapped, only mapped
 * over, so a thread that was held up for long between claiming and finishing hits valid memory. Who
 * is in the midst of writing there keeps it from being mapped over, and is waited for by nobody:
 * the next place is taken. One that never comes back (killed by its exec, or left by a jump) costs
 * a place.
 */
#define OPLOG_PLACES 8
#define OPLOG_PLACES_MAX 64   /* of smaller segments there are more, for as many records */
#define OPLOG_CAPACITY 65536u /* slots of a full-sized segment: 4 MiB */
/* The least bound of a log. Segments are an eighth of it at most: there is always history. */
#define OPLOG_LIMIT_MIN (UINT64_C(1) << 20)

struct oplog_segment {
	struct oplog_header *header;
	struct oplog_record *slots;
	uint32_t capacity; /* copied, since the file could be damaged under us */
	uint32_t sequence; /* UINT32_MAX: none, or none for long */
	uint32_t users;	   /* that write into it just now: it is not mapped over */
	char *at;	   /* the place, of that many bytes; it grows with its segments */
	size_t room;
};

/* One per process and protected directory. Zero-initialised memory plus oplog_writer_open(). */
struct oplog_writer {
	_Atomic(struct oplog_segment *) current;
	_Atomic(struct oplog_segment *) next; /* made ahead, so that no one waits for it */
	struct oplog_segment places[OPLOG_PLACES_MAX];
	atomic_flag making;
	_Atomic uint64_t lost;
	_Atomic uint64_t retry_at; /* value of lost at which a failed making is tried again */
	_Atomic int error;     /* the last reason why a segment could not be made, -errno or 0 */
	uint32_t sequence;     /* of the segment to be made next */
	uint32_t first;	       /* of this process; a forked child counts on from its parent */
	const char *folder;    /* in the store; NULL: OPLOG_DIR. Set before opening */
	bool lazy;	       /* its segments are smaller, the first is made for a record */
	const int *storefd;    /* lent by the owner, who keeps it open and may move it */
	uint64_t size_limit;   /* bytes for the whole directory */
	uint32_t capacity_max; /* slots of a segment at most, and how many places of that size */
	uint32_t place_count;
	uint64_t dropped; /* segments removed */
	bool quiet;	  /* a forked child's: it has no segment yet, and needs none so far */
	/* The life of this process (core/base/alive.h), asked for when a segment is made; or NULL.
	 */
	uint64_t (*life)(void *context);
	void *life_context;
	struct oplog_header identity; /* what every segment's header starts from */
};

/*
 * Starts a log (or starts it again, in a directory that was made anew). identity gives program,
 * data_dir, uid and protected_since; the rest is filled in, and w->life may be set before. Returns
 * 0 or -errno (no segment could be made: records are counted as lost, and making one is tried again
 * later).
 */
int oplog_writer_open(struct oplog_writer *w, const int *storefd, uint64_t size_limit,
		      const struct oplog_header *identity);

/* The same of a log that is lazy: no segment is made yet. */
void oplog_writer_prepare(struct oplog_writer *w, const int *storefd, uint64_t size_limit,
			  const struct oplog_header *identity);

/*
 * In a forked child, while it has one thread: leave the parent's segments alone and start an own
 * one at the first record.
 */
void oplog_writer_fork(struct oplog_writer *w);

/* The directory is left: what is claimed now is lost, until it is opened again. */
void oplog_writer_close(struct oplog_writer *w);

/* OPLOG_HAS_ bits, for whoever looks at the header. */
void oplog_feature(struct oplog_writer *w, uint64_t bits, bool on);

/* It was refused as a writer; the first time counts. */
void oplog_refused(struct oplog_writer *w);

/*
 * In a handler of SIGBUS: if the address is in this log's maps, memory is put there, the segment is
 * left, and the next record begins another one. True if so. What was in the file is lost.
 */
bool oplog_writer_patch(struct oplog_writer *w, void *address);

/* Nothing has been recorded that somebody could want to know (OPLOG_IDLE). */
static inline bool oplog_is_idle(const struct oplog_writer *w)
{
	return __atomic_load_n(&w->identity.features, __ATOMIC_SEQ_CST) & OPLOG_IDLE;
}

/* A process that is about to leave: marks the current segment finished; if that is idle, it goes.
 */
void oplog_writer_finish(struct oplog_writer *w);

/* A claimed record. Valid from oplog_begin() to oplog_end(); then do not touch. */
struct oplog_claim {
	struct oplog_record *record; /* NULL: lost */
	uint32_t index;
	uint32_t sequence; /* of its segment */
	struct oplog_segment *segment;
};

/*
 * What a record mentions by its number. Its segment tells it before the record, unless it has told
 * it already: each segment can be read without the others.
 */
struct oplog_name {
	uint32_t number; /* 0: none, unless op says what it is */
	uint32_t length;
	uint16_t op;  /* 0: OP_NAME; or another record that each segment has once */
	uint8_t kind; /* enum oplog_name_kind, or what else goes into record.arg */
	const char *text;
	_Atomic uint32_t
	    *told; /* by which segment of this log, its sequence + 1; NULL: not known */
};

/*
 * Claims a record and fills in what is known before the call (op, flags, tid, file, offset, length,
 * arg of *known); time is now. The reader sees it as "in flight".
 */
struct oplog_claim oplog_begin(struct oplog_writer *w, const struct oplog_record *known,
			       const struct oplog_name *names, unsigned count);

/* Its offset was found out later. Keeps errno. */
void oplog_moved(struct oplog_claim claim, int64_t offset);

/* Finishes it: result, duration, checksum. Keeps errno. */
void oplog_end(struct oplog_claim claim, int64_t result);

/*
 * A whole record at once, with its texts. check, texts, and time if it is 0 are filled in here.
 * Returns the sequence of the segment it went to plus 1, or 0 if it was lost.
 */
uint32_t oplog_put(struct oplog_writer *w, const struct oplog_record *r, const char *text,
		   size_t size, const struct oplog_name *names, unsigned count);

/* The same with the line that called Chroma (OPLOG_F_CALLER), unless there is no room for it. */
uint32_t oplog_put_caller(struct oplog_writer *w, const struct oplog_record *r, const char *text,
			  size_t size, const char *caller, size_t caller_size,
			  const struct oplog_name *names, unsigned count);

/* Checksum of a record or text slot in place `slot`, over all but the field itself; never 0. */
uint32_t oplog_slot_check(const void *slot, uint32_t index);
uint64_t oplog_header_check(const struct oplog_header *header);
const char *oplog_op_name(unsigned op); /* NULL if unknown */

/* What names a process beyond its pid: from /proc/<pid>/stat, 0 if it is gone; and the boot. */
uint64_t oplog_start_ticks(const char *stat_path);
void oplog_boot_id(uint8_t out[16]);

#define OPLOG_NAME_TIME 17 /* what the name of a segment begins with, and the end of a text */
/*
 * Names by the age of what they name. They begin with the clock's time: what is of one that is
 * still to come is older than all that came after the clock was set back, and would stay for ever
 * as the newest. `soon`: what a name begins with from where on its time is still to come.
 */
void oplog_name_soon(char soon[OPLOG_NAME_TIME]);
int oplog_name_compare(const char *a, const char *b, const char *soon);

/* CLOCK_MONOTONIC in ns. */
uint64_t oplog_now(void);

#endif
