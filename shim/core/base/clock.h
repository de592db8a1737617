/* SPDX-License-Identifier: MIT
 *
 * Moments and lengths of time, in nanoseconds.
 */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define SECOND UINT64_C(1000000000)
#define CLOCK_STEP (60 * SECOND) /* by less clocks are set right all the time */

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

/*
 * A moment (CLOCK_REALTIME) that is written down somewhere and still to come: the clock was set
 * back since. Taken for one that was, it would be the newest there is, and of no age, for as long
 * as the clock was ahead.
 */
static inline bool clock_was_ahead(uint64_t time, uint64_t now)
{
	return time > now + CLOCK_STEP;
}

/* Of two that were written down: one that is still to come was before any other. */
static inline bool clock_is_later(uint64_t time, uint64_t other, uint64_t now)
{
	bool ahead = clock_was_ahead(time, now), other_ahead = clock_was_ahead(other, now);

	return ahead != other_ahead ? other_ahead : time > other;
}

#endif
