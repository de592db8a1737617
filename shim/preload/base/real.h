/* SPDX-License-Identifier: MIT
 *
 * The next definition in line of every interposed call: libc's, or another preload's.
 */
#ifndef PRELOAD_REAL_H
#define PRELOAD_REAL_H

#include "preload/base/types.h"

/* Before the constructor has run these are raw system calls; never NULL, but for LATE ones. */
struct real {
#define CALL(ret, name, params, args, body, early) ret(*name) params;
#define LATE(ret, name, params, args, body) ret(*name) params;
#define SAME(...)
#define VARIADIC(...)
#define SQLITE(...)
#define LEFT(...)
#include "preload/base/calls.def"
#undef CALL
#undef LATE
#undef SAME
#undef VARIADIC
#undef SQLITE
#undef LEFT
	FILE *(*fopencookie)(void *, const char *, cookie_io_functions_t);
};

extern struct real real;

/* Looks all of them up. Only in the constructor or, for a LATE one that is called before, earlier.
 */
void real_bind(void);

/* A LATE one: bound now if it was not yet. */
#define REAL_LATE(name) (__builtin_expect(!real.name, 0) ? (real_bind(), real.name) : real.name)

#endif
