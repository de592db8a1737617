/* SPDX-License-Identifier: MIT
 *
 * The C API of libchromashim.so, for programs that run under it. Look the functions up with dlsym()
 * (RTLD_DEFAULT) or ctypes: where the library is not preloaded they are not there, and a program
 * does without. Nothing is to be linked with.
 *
 * Threads: all functions may be called by any thread at any time, except in a signal handler and
 * in a child of vfork(). Errors: they are returned as -errno; errno itself is left as it is.
 * Ownership: none takes over memory. Texts that are given are copied before the function returns;
 * texts that are returned are static.
 *
 * ABI: a function that stands here keeps its name, parameters, units and meaning in all later
 * versions. New ones are added beside it, and so are new bits of `flags`; bits that a version does
 * not know are ignored by it. A function may return errors that it did not return before.
 */
#ifndef CHROMASHIM_H
#define CHROMASHIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version that this header is of; chromashim_version() tells that of the library. */
#define CHROMASHIM_VERSION "0.1.0"

/* "1.2.3": major, minor and patch. Never NULL. */
const char *chromashim_version(void);

/*
 * The number of data directories that this process protects now; 0 also when the library is
 * switched off. < 0: -errno, the reason why it could not protect one.
 */
int chromashim_active(void);

/* Bits of `flags`. Pin a snapshot of each protected directory first, unless one was pinned within
 * CHROMASHIM_BURST (60 s) before and nothing else was written since. */
#define CHROMASHIM_SNAPSHOT 0x1u
/* Pin one in any case. */
#define CHROMASHIM_SNAPSHOT_ALWAYS 0x2u

/*
 * A protected operation begins. It is recorded in the op log of each protected directory.
 *
 * name:  UTF-8, what the operation is called in the log; more than 191 bytes of it are cut off.
 *        NULL counts as "".
 * flags: 0, or the bits above.
 *
 * With a snapshot it waits up to 10 s for a transaction of this process to end; without one it does
 * not wait. Returns a token that chromashim_protect_end() takes, never 0 while something is
 * protected; 0: nothing is protected, and there is nothing to end. A snapshot that could not be
 * pinned does not stop the operation: chromashim_protect_snapshot() tells.
 */
uint64_t chromashim_protect_begin(const char *name, unsigned flags);

/*
 * The number of the snapshot that was pinned at the begin of `token`, as `chromashim snapshot list`
 * shows it; of the first directory where there are several. 0: none was asked for. < 0: -errno, the
 * reason why none could be pinned; -EINVAL: no operation of this process that is under way has this
 * token. (Of more than 256 at once the oldest are forgotten.)
 */
int64_t chromashim_protect_snapshot(uint64_t token);

/*
 * The same in this one of several directories, each of which has numbers of its own. -ENOENT: it is
 * not protected in this process, and no snapshot of it was pinned.
 */
int64_t chromashim_protect_snapshot_in(uint64_t token, const char *directory);

/*
 * The operation ended. outcome: 0 is success; anything else is a number of the program's own, which
 * is recorded as it is. May be called by another thread than the one that began it. Returns 0, or
 * -EINVAL: no operation of this process that is under way has this token.
 */
int chromashim_protect_end(uint64_t token, int outcome);

#ifdef __cplusplus
}
#endif

#endif
