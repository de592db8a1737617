/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --top N`: the lines that took longest.
 */
#ifndef COMMAND_LOG_LONGEST_H
#define COMMAND_LOG_LONGEST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct longest_line;

/* Zero, and then max. */
struct longest {
	uint32_t max;
	uint32_t count;
	struct longest_line *list; /* the longest first */
	char *text;		   /* of the line that is being written */
	size_t size;
	FILE *out;
};

/* A stream for a line that belongs to them, or NULL: it does not, or there is no memory. */
FILE *longest_begin(struct longest *l, uint64_t duration);
/* The line is complete. 0 or -ENOMEM. */
int longest_end(struct longest *l, uint64_t duration);

/* Prints them; what is left is only to be freed. */
void longest_print(const struct longest *l, FILE *out);
void longest_free(struct longest *l);

#endif
