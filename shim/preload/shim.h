/* SPDX-License-Identifier: MIT
 *
 * State of the shim as a whole, and small things that every room of preload/ uses.
 */
#ifndef PRELOAD_SHIM_H
#define PRELOAD_SHIM_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/sys.h"

#define SHIM_VERSION 0x000100u
#define THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))

struct settings {
	bool off;	     /* CHROMASHIM=off, or this is the command itself */
	bool log_sql;	     /* CHROMASHIM_LOG_SQL */
	bool log_reads;	     /* CHROMASHIM_LOG_READS */
	bool closed;	     /* CHROMASHIM_ON_FAILURE=closed */
	uint64_t log_size;   /* CHROMASHIM_LOG_SIZE */
	const char *dir;     /* CHROMASHIM_DIR */
	const char *store;   /* CHROMASHIM_STORE */
	const char *preload; /* LD_PRELOAD as it was at the start */
};

extern struct settings settings;
extern bool shim_live; /* the constructor has run */
extern int shim_pid;   /* the process whose memory this is; a vfork child has another */

/* True in a vfork child (or after a raw clone): the memory is the parent's, change nothing. */
static inline bool shim_borrowed(void)
{
	return sys_getpid() != shim_pid;
}

/* One line to stderr, "chromashim: " in front. Raw write, no stdio; parts end with NULL. */
void shim_say(const char *part, ...) __attribute__((sentinel));

/* Own descriptors: moved up high, close-on-exec, marked ROLE_HIDDEN. */
int hidden_adopt(int fd, int *owner); /* returns the new number, or -errno; fd is closed */
void hidden_release(int *owner);
void hidden_dodge(int fd); /* the host is about to put something at this number */
/* The lowest hidden descriptor in [first, last], or -1. */
int hidden_in_range(unsigned first, unsigned last);

#endif
