/* SPDX-License-Identifier: MIT
 *
 * Reading the op log; the format is specified in chromashim_oplog.h.
 *
 * Two levels: an image is one segment in memory, the reader is a whole oplog/ directory, merged by
 * time. Nothing read is trusted; whatever is wrong is an error of one segment or is counted, and
 * the rest is read. Both allocate, so this is not for inside the backend.
 */
#ifndef CORE_OPLOG_READ_H
#define CORE_OPLOG_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chromashim_oplog.h"

#define OPLOG_SUFFIX_PACKED ".oplog.zst"

/* The two logs of a store. */
enum oplog_log {
	OPLOG_LOG_CALLS = 0, /* oplog/: everything, for as long as there is room */
	OPLOG_LOG_ACTS = 1,  /* acts/ */
};

/* A record, ready to be shown. What is pointed to is lent until the next call of the reader. */
struct oplog_entry {
	uint64_t time; /* ns, CLOCK_REALTIME */
	uint64_t duration;
	int64_t offset;
	uint64_t length;
	int64_t result;
	uint64_t arg;
	uint32_t tid;
	uint32_t file;
	uint32_t slot;
	uint16_t op;
	uint8_t flags;
	uint8_t kind;	    /* of `name`, enum oplog_name_kind; 0 if no name was told */
	uint8_t log;	    /* enum oplog_log: where it stands */
	bool in_flight;	    /* then duration and result mean nothing */
	const char *name;   /* of `file`, or NULL */
	const char *name2;  /* of the second file, where the operation has one, or NULL */
	const char *caller; /* the line that called Chroma, or NULL: it was not told */
	const char *text;   /* its texts, NUL-terminated; "" if there are none */
	size_t text_size;
	const struct oplog_header *header; /* which process */
};

/* ---- one segment in memory ---- */

struct oplog_name_entry {
	uint32_t number;
	uint32_t slot;
	uint8_t kind;
	char *text;
};

struct oplog_order {
	uint64_t time;
	uint32_t slot;
};

struct oplog_image {
	struct oplog_header header; /* strings are NUL-terminated */
	unsigned char *own;	    /* the segment, to be freed */
	const unsigned char *data;  /* its slots */
	uint32_t slots;		    /* how many there are */
	struct oplog_order *order;  /* records by time, names and texts left out */
	uint32_t order_size;
	struct oplog_name_entry *names; /* by number */
	uint32_t names_size;
	char *text; /* of the entry given last */
	size_t text_room;
	/* counts */
	uint32_t records;
	uint32_t in_flight;
	uint32_t damaged; /* slots */
	uint32_t missing; /* slots cut off the end */
};

/*
 * Checks the first `size` bytes of a segment. header_out is filled in as far as they allow.
 * -ENODATA: empty; -EMSGSIZE: shorter than a header; -EILSEQ: no segment; -ENOTSUP: of a machine
 * with the other byte order; -EPROTONOSUPPORT: newer than this reader; -EBADMSG: the header is
 * damaged; -EINVAL: it asks for what cannot be.
 */
int oplog_header_read(const void *data, size_t size, struct oplog_header *header_out);

/* 0, -ENOMEM or as oplog_header_read(); closing is right in any case. The data, which is from
 * malloc(), is the image's then, in any case, too. */
int oplog_image_take(struct oplog_image *image, unsigned char *data, size_t size);
/* The same with a copy of it. */
int oplog_image_open(struct oplog_image *image, const void *data, size_t size);
void oplog_image_close(struct oplog_image *image);

/* Looks at the slots again, which may have changed. 0 or -ENOMEM. */
int oplog_image_index(struct oplog_image *image);

/* Record number n by time, n < order_size. 0 or -ENOMEM. */
int oplog_image_get(struct oplog_image *image, uint32_t n, struct oplog_entry *entry_out);

/* ---- an oplog/ directory ---- */

enum oplog_life {
	OPLOG_DEAD = 0,
	OPLOG_LIVE = 1,
};

struct oplog_segment_info {
	char *name;    /* of the file */
	bool packed;   /* ".zst" */
	uint8_t log;   /* enum oplog_log */
	int error;     /* why it cannot be read, -errno; see also oplog_error_text() */
	uint64_t size; /* of the file */
	uint64_t device;
	uint64_t inode;
	enum oplog_life life;
	struct oplog_header header; /* valid unless error */
	/* Counted once all of it has been read. */
	uint64_t records;
	uint64_t in_flight;
	uint64_t damaged;
	uint64_t missing;
};

struct oplog_reader;

/*
 * Opens oplog/ in the store; storefd is lent until then. -ENOENT: there is none; -ELOOP or
 * -ENOTDIR: it is something else, -ENOMEM, or what openat says. No segment at all is no error.
 */
int oplog_reader_open(int storefd, struct oplog_reader **reader_out);

enum oplog_which {
	OPLOG_CALLS, /* oplog/ */
	/*
	 * Acts alone: acts/, and those in oplog/ of processes that have none there (they were of an
	 * older version), or have them only from later on. Nothing is given twice.
	 */
	OPLOG_ACTS,
	OPLOG_BOTH, /* oplog/, and from acts/ what is not in it, or not any more */
};
/* The same; -ENOENT: neither of those that it takes is there. */
int oplog_reader_open_which(int storefd, enum oplog_which which, struct oplog_reader **reader_out);
void oplog_reader_close(struct oplog_reader *reader);

/* The next record by time: 1, 0 at the end, -ENOMEM. */
int oplog_reader_next(struct oplog_reader *reader, struct oplog_entry *entry_out);

/*
 * Before the first record. What is before `since` (ns, CLOCK_REALTIME) need not be given; most of
 * it is not even read. And: the next segment is read by another thread meanwhile.
 */
void oplog_reader_since(struct oplog_reader *reader, uint64_t since);
void oplog_reader_ahead(struct oplog_reader *reader);

/* Whether records of the process may come yet, as far as the log goes now. */
bool oplog_reader_has_more(struct oplog_reader *reader, const struct oplog_header *header);

/*
 * Before the first record: makes next() fit for being called again after the end, for what has
 * come since oplog_reader_poll(). A live process's records in flight are given when they finish.
 */
void oplog_reader_follow(struct oplog_reader *reader);
int oplog_reader_poll(struct oplog_reader *reader);

/* All segments, by name. Lent; valid until the next call of the reader. */
const struct oplog_segment_info *oplog_reader_segment(struct oplog_reader *reader, size_t n);
size_t oplog_reader_segments(struct oplog_reader *reader);

/* Records that never got into the log, over all processes. */
uint64_t oplog_reader_lost(struct oplog_reader *reader);

/* What an error of a segment means, in words. */
const char *oplog_error_text(int error);

/*
 * Whether its process lives: by its lock in the store, also in another container. Only where there
 * are no such locks by its pid, as oplog_header_is_here().
 */
enum oplog_life oplog_header_life(int storefd, const struct oplog_header *header);
/* Whether its pid is that of the living process here, not in another container. */
bool oplog_header_is_here(const struct oplog_header *header);
bool oplog_same_process(const struct oplog_header *a, const struct oplog_header *b);

/* True if the operation has a second name, whose number is in arg. */
bool oplog_op_has_two_names(unsigned op);

/*
 * The process that was refused as a writer first of all after `after` (ns, CLOCK_REALTIME), among
 * plain segments: 1, 0 none, or an error.
 */
int oplog_next_refused(int storefd, uint64_t after, struct oplog_header *header_out);
/* One that lives and says OPLOG_LIMIT: 1, 0 none, or an error. */
int oplog_at_limit(int storefd, struct oplog_header *header_out);

/* ---- compressing ---- */

struct oplog_packed {
	uint64_t files;
	uint64_t bytes_before;
	uint64_t bytes_after;
	int error;	/* the first one */
	char name[128]; /* where it happened: in oplog/ or acts/, with that before it */
};

/*
 * Replaces every segment of oplog/ and acts/ that no process writes any more by its compressed
 * form. Goes on after an error. 0 or the first error, -errno.
 */
int oplog_compress(int storefd, struct oplog_packed *packed_out);

/*
 * Of the compressed logs of short processes (one segment each) the `keep` newest are left, in
 * oplog/ and in acts/. How many were removed from the first, or -errno.
 */
int oplog_thin(int storefd, unsigned keep);

#endif
