/* SPDX-License-Identifier: MIT
 *
 * From a call to its record in the op log.
 */
#ifndef PRELOAD_RECORD_H
#define PRELOAD_RECORD_H

#include <errno.h>
#include <stddef.h>

#include "core/oplog/oplog.h"
#include "preload/place/protection.h"
#include "preload/place/files.h"
#include "preload/place/guard_maps.h"

/* The number of this thread, asked of the kernel once. */
uint32_t thread_id(void);
void thread_id_forget(void);

/* Set by the gate while a call comes through syscall(), by streams while through stdio. */
extern __thread uint8_t record_flags __attribute__((tls_model("initial-exec")));

/*
 * Before the call. Its segment is told the names that it does not know yet: the slot's, and of a
 * call that has two the other one (0: none). Keeps errno.
 */
struct oplog_claim record_begin_two(union slot s, uint32_t other, enum oplog_op op, int64_t offset,
				    uint64_t length, uint64_t arg);

static inline struct oplog_claim record_begin(union slot s, enum oplog_op op, int64_t offset,
					      uint64_t length, uint64_t arg)
{
	return record_begin_two(s, 0, op, offset, length, arg);
}

/* After it: ret as the call returned it, errno if that is negative. Keeps errno. */
static inline void record_end(struct oplog_claim claim, int64_t ret)
{
	MAPS_GUARDED;
	oplog_end(claim, ret < 0 ? -(int64_t)errno : ret);
}

/* A record of its own, with an optional text; r->tid, time and name are seen to. Keeps errno. */
void record_put(unsigned protection, struct oplog_record *r, const char *text, size_t size);

/* The same, into the log of acts alone, which there has to be. */
void record_act(unsigned protection, struct oplog_record *r, const char *text, size_t size);

/* What a reader of the log should know of the process; also that it refuses writes. */
static inline void record_feature(struct protection *a, uint64_t bits, bool on)
{
	MAPS_GUARDED;
	oplog_feature(&a->log, bits, on);
	if (a->acts)
		oplog_feature(&a->acts->log, bits, on);
}

static inline void record_refused(struct protection *a)
{
	MAPS_GUARDED;
	oplog_refused(&a->log);
}

/* In every directory of the process: a limit of the library's was reached. */
void record_limit(const char *text);

/* The library that holds a code address: index for slot.object, 0 if unknown. Not for hot paths. */
uint8_t object_of(const void *address);
/* Its path, or NULL. Valid for the life of the process. */
const char *object_path(uint8_t object);

#endif
