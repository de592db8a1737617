/* SPDX-License-Identifier: MIT
 *
 * What the bodies of the calls share.
 */
#ifndef PRELOAD_CALL_H
#define PRELOAD_CALL_H

#include <errno.h>

#include "preload/base/real.h"
#include "preload/base/shim.h"
#include "preload/calls/bodies.h"
#include "preload/calls/pipeline.h"
#include "preload/place/protection.h"
#include "preload/place/files.h"
#include "preload/place/record.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)

/* After a call that got no descriptor: true, it is worth another try. */
static inline bool descriptors_are_back(void)
{
	return (errno == EMFILE || errno == ENFILE) && protection_descriptors_give_back();
}

/* A call that changes nothing, and its record; for calls that return -1 and errno. */
#define RECORDED(slot, op, offset, length, arg, call)                        \
	({                                                                   \
		struct oplog_claim claim_ =                                  \
		    record_begin(slot, op, offset, length, (uint64_t)(arg)); \
		__typeof__(call) ret_ = (call);                              \
                                                                             \
		record_end(claim_, (int64_t)ret_);                           \
		ret_;                                                        \
	})

/* Where a write() at the file's position will go. An unseekable file has none. */
static inline int64_t position_of(int fd)
{
	off_t at = sys_lseek(fd, 0, SEEK_CUR);

	return at < 0 ? -1 : at;
}

/* open.c: a place that is ours, opened and known from now on. */
int open_place(const struct place *place, void *caller, enum oplog_op op, int dirfd,
	       const char *path, int flags, mode_t mode);
/* streams.c: standard output or error that was inherited open on a protected file. */
void streams_adopt(int fd);
/* The child has them, too. */
void streams_before_fork(void);
/* process.c: the environment as it is at the start; before a fork; in its child. */
void process_remember(void);
void process_forks(void);
void process_forked(void);

#endif
