/* SPDX-License-Identifier: MIT
 *
 * Durations in classes.
 */
#include "command/base/latency.h"

#include <errno.h>
#include <stdlib.h>

#define STEPS 32 /* classes from one power of two to the next */
#define CLASSES (STEPS * 60)

static unsigned class_of(uint64_t ns)
{
	unsigned power;

	if (ns < STEPS)
		return (unsigned)ns;
	power = 63u - (unsigned)__builtin_clzll(ns);
	return (power - 4) * STEPS + (unsigned)(ns >> (power - 5) & (STEPS - 1));
}

/* Gives the greatest duration that falls into a class. */
static uint64_t top_of(unsigned class)
{
	unsigned power = class / STEPS + 4;

	if (class < STEPS)
		return class;
	return ((UINT64_C(1) << 5 | class % STEPS) + 1) * (UINT64_C(1) << (power - 5)) - 1;
}

int latency_add(struct latency *l, uint64_t ns)
{
	unsigned class = class_of(ns);

	if (!l->classes)
		l->classes = calloc(CLASSES, sizeof(*l->classes));
	if (!l->classes)
		return -ENOMEM;
	l->classes[class < CLASSES ? class : CLASSES - 1]++;
	l->count++;
	l->total += ns;
	if (ns > l->max)
		l->max = ns;
	return 0;
}

uint64_t latency_percentile(const struct latency *l, unsigned percent)
{
	uint64_t rank = (l->count * percent + 99) / 100, seen = 0;
	unsigned i;

	for (i = 0; l->classes && i < CLASSES; i++) {
		seen += l->classes[i];
		if (seen >= rank && seen)
			return top_of(i) < l->max ? top_of(i) : l->max;
	}
	return l->max;
}

void latency_free(struct latency *l)
{
	free(l->classes);
	l->classes = NULL;
}
