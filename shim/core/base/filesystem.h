/* SPDX-License-Identifier: MIT
 *
 * What is known of file systems, by the number that statfs() gives.
 */
#ifndef CORE_FILESYSTEM_H
#define CORE_FILESYSTEM_H

#include <stdbool.h>
#include <stdint.h>

struct filesystem {
	uint64_t type;
	const char *name;
	bool locks;   /* OFD and POSIX locks are known to be good: the fence and lasting locks */
	bool network; /* other machines may have it too */
	bool changes; /* each change shows in the change time, to the tick of the clock */
};

/* NULL: unknown. Neither allocates nor sets errno. */
const struct filesystem *filesystem_find(uint64_t type);
/* Of what fd is open on. */
const struct filesystem *filesystem_of(int fd);

#endif
