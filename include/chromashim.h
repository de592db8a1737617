/* SPDX-License-Identifier: MIT
 *
 * The C API of libchromashim.so, for programs that run under it. Look the functions up with dlsym()
 * (RTLD_DEFAULT) or ctypes: where the library is not preloaded they are not there, and a program
 * does without.
 *
 * All are thread-safe and keep errno. None takes over memory; texts are copied (and cut to 191
 * bytes of UTF-8).
 */
#ifndef CHROMASHIM_H
#define CHROMASHIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "1.2.3", static. */
const char *chromashim_version(void);

/*
 * Number of data directories that this process protects now; 0 also when the library is switched
 * off. < 0: -errno, it could not protect one.
 */
int chromashim_active(void);

/* Pin a snapshot of each protected directory first (unless one was pinned a moment ago). */
#define CHROMASHIM_SNAPSHOT 0x1u
/* Also if one was pinned a moment ago. */
#define CHROMASHIM_SNAPSHOT_ALWAYS 0x2u

/*
 * A protected operation begins: recorded in the op log under `name`, with a snapshot before it if
 * `flags` say so. Waits up to 10 s for a transaction under way to end. Returns a token, not 0; 0 if
 * nothing is protected. A snapshot that could not be pinned does not stop the operation:
 * chromashim_protect_snapshot() tells.
 */
uint64_t chromashim_protect_begin(const char *name, unsigned flags);
/* Number of the snapshot pinned at its begin; 0: none was asked for; < 0: -errno. */
int64_t chromashim_protect_snapshot(uint64_t token);
/* It ended; outcome 0 is success, anything else is recorded as it is. 0, or -EINVAL: no such token.
 */
int chromashim_protect_end(uint64_t token, int outcome);

#ifdef __cplusplus
}
#endif

#endif
