/* SPDX-License-Identifier: MIT
 *
 * One way for every change: what is asked before a call changes a protected file, and what is
 * learned from it afterwards. The bodies of the calls describe the change; the rooms that refuse,
 * save and recognise are called from here, in one order, and from nowhere else.
 */
#ifndef PRELOAD_CHANGE_H
#define PRELOAD_CHANGE_H

#include <fcntl.h>

#include "preload/place/record.h"

struct change {
	/* Given by the body. */
	enum oplog_op op;
	union slot slot;
	int fd;			    /* -1: by path */
	const struct place *place;  /* by path, else NULL */
	const struct place *target; /* second name of a rename or link, NULL if not ours */
	void *caller;		    /* who calls, NULL where it does not matter */
	int flags;		    /* of an open, unlink or rename */
	int64_t offset;		    /* -1: has none */
	uint64_t length;
	uint64_t arg;
	const struct iovec *iov; /* the bytes of a write; NULL if the kernel copies them */
	int iov_count;
	/* Kept between begin and end. */
	struct oplog_claim claim;
	int64_t result; /* of a call that was answered without being made */
	int tries;
	struct pin_writer *writer;	/* counted in as one; NULL: not */
	uint64_t pinned, target_pinned; /* the pins that its files are changed for, 0: none */
	bool entered;			/* the directory, which it has no descriptor in */
};

enum change_verdict {
	CHANGE_GO,	/* make the call */
	CHANGE_ANSWERED /* do not: change.result is the answer, errno is set */
};

/* What puts bytes into a range of a file, or takes them out of it. */
static inline bool change_writes(const struct change *c)
{
	switch (c->op) {
	case OP_WRITE:
	case OP_PWRITE:
	case OP_WRITEV:
	case OP_PWRITEV:
	case OP_SENDFILE:
	case OP_COPY_FILE_RANGE:
	case OP_SPLICE:
	case OP_AIO_WRITE:
	case OP_CLONE_RANGE:
	case OP_IOCTL:
	case OP_FALLOCATE:
		return true;
	default:
		return false;
	}
}

static inline bool change_opens(const struct change *c)
{
	return c->op == OP_OPEN || c->op == OP_OPENAT || c->op == OP_CREAT;
}

static inline bool change_truncates(const struct change *c)
{
	if (change_opens(c))
		return (c->flags & O_TRUNC) && (c->flags & O_ACCMODE) != O_RDONLY;
	return (c->op == OP_TRUNCATE || c->op == OP_FTRUNCATE) && c->length == 0;
}

static inline bool change_renames(const struct change *c)
{
	return c->op == OP_RENAME || c->op == OP_RENAMEAT || c->op == OP_RENAMEAT2;
}

/* Descriptions: by descriptor and by path, further fields after it. */
#define CHANGE_FD(op_, fd_, slot_, offset_, ...) \
	((struct change){                        \
	    .op = (op_), .fd = (fd_), .slot = (slot_), .offset = (offset_), __VA_ARGS__})
#define CHANGE_PATH(op_, place_, ...)            \
	((struct change){.op = (op_),            \
			 .fd = -1,               \
			 .slot = (place_)->slot, \
			 .place = (place_),      \
			 .offset = -1,           \
			 __VA_ARGS__})

#endif
