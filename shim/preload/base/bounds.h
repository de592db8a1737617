/* SPDX-License-Identifier: MIT
 *
 * How many of a kind a process can have. libchromashim-faults.so takes a smaller number from
 * CHROMASHIM_BOUNDS ("groups=2 locks=1"), so that a test meets it.
 */
#ifndef PRELOAD_BOUNDS_H
#define PRELOAD_BOUNDS_H

#ifdef CHROMASHIM_FAULTS
unsigned bound_of(const char *kind, unsigned bound);
#else
static inline unsigned bound_of(const char *kind, unsigned bound)
{
	(void)kind;
	return bound;
}
#endif

#endif
