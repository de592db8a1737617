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

#include "core/base/fileio.h"
#include "core/base/sys.h"
#include "preload/base/settings.h"

#define THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))

extern bool shim_live; /* the constructor has run */
extern int shim_pid;   /* the process whose memory this is; a vfork child has another */

/* True in a vfork child (or after a raw clone): the memory is the parent's, change nothing. */
static inline bool shim_borrowed(void)
{
	return sys_getpid() != shim_pid;
}

/* This thread's signals wait from the first of these to as many of the second: see
 * sys_hold_signals(). */
void signals_hold(void);
void signals_let(void);

/* What an error (ENOSPC, not -ENOSPC) means, without strerror(). Static. */
const char *shim_error_text(int error);

/* One line to stderr, "chromashim: " in front. Raw write, no stdio; parts end with NULL. */
void shim_say(const char *part, ...) __attribute__((sentinel));

bool shim_is_heard(void); /* else a line goes nowhere */

/* At the start, and when the host puts something at descriptor 2 by dup2() or freopen(): where the
 * lines go. */
void shim_stderr_is_now(void);

/* Own descriptors: moved up high, close-on-exec, marked ROLE_HIDDEN. */
int hidden_adopt(int fd, int *owner); /* returns the new number, or -errno; fd is closed */
/* There is none for the process, or on the machine; or the shim has as many as it can (EUSERS). */
static inline bool hidden_are_out(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -EUSERS;
}
void hidden_release(int *owner);
void hidden_dodge(int fd); /* the host is about to put something at this number */
/*
 * Opens for a moment, also when the host has taken every descriptor it may have: then with one that
 * is kept for this. -errno.
 */
int spare_open(int dirfd, const char *path, int flags, mode_t mode);
/* What is open in fd, which is lent, by raw calls. */
struct file_source shim_source(int fd, uint64_t size);
/* The kept one is given for something else, true if there was one; and kept again. */
bool spare_give(void);
void spare_keep(void);
/* The lowest hidden descriptor in [first, last], or -1. */
int hidden_in_range(unsigned first, unsigned last);

#endif
