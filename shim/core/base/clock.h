/* SPDX-License-Identifier: MIT
 *
 * Moments and lengths of time, in nanoseconds.
 */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define SECOND UINT64_C(1000000000)

static inline uint64_t nanoseconds(struct timespec t)
{
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_read(clockid_t clock)
{
	struct timespec t = {0, 0};

	clock_gettime(clock, &t);
	return nanoseconds(t);
}

#endif
