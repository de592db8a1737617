/* SPDX-License-Identifier: MIT
 *
 * Smaller bounds, for tests.
 */
#include "preload/base/bounds.h"

#ifdef CHROMASHIM_FAULTS

#include <stdlib.h>
#include <string.h>

unsigned bound_of(const char *kind, unsigned bound)
{
	const char *at = getenv("CHROMASHIM_BOUNDS");
	unsigned n = 0;

	at = at ? strstr(at, kind) : NULL;
	if (!at || at[strlen(kind)] != '=')
		return bound;
	for (at += strlen(kind) + 1; *at >= '0' && *at <= '9'; at++)
		n = n * 10 + (unsigned)(*at - '0');
	return n < bound ? n : bound;
}

#endif
