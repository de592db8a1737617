/* SPDX-License-Identifier: MIT
 *
 * Durations in classes 3 percent wide, so that memory does not grow with how many there are: a
 * percentile is the upper end of its class, count, sum and maximum are exact.
 */
#ifndef COMMAND_LATENCY_H
#define COMMAND_LATENCY_H

#include <stdint.h>

/* Zeroed memory is an empty one. */
struct latency {
	uint64_t count, total, max; /* ns */
	uint32_t *classes;
};

/* 0 or -ENOMEM. */
int latency_add(struct latency *l, uint64_t ns);
/* 0 of an empty one. */
uint64_t latency_percentile(const struct latency *l, unsigned percent);
void latency_free(struct latency *l);

#endif
