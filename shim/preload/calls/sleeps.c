/* SPDX-License-Identifier: MIT
 *
 * Sleeps: those between SQLite's tries for a lock that it is refused are cut short.
 */
#include "preload/calls/call.h"
#include "preload/refuse/commits.h"

int do_nanosleep(const struct timespec *time, struct timespec *left)
{
	return commits_cut_sleep() ? 0 : real.nanosleep(time, left);
}

int do_usleep(unsigned microseconds)
{
	return commits_cut_sleep() ? 0 : REAL_LATE(usleep)(microseconds);
}
