/* SPDX-License-Identifier: MIT
 *
 * Error texts of Chroma, what they mean and what to do.
 */
#ifndef CORE_EXPLAIN_H
#define CORE_EXPLAIN_H

#include <stddef.h>

struct explain_text {
	const char *pattern;
	const char *means;
	const char *helps; /* "DIR" stands for the directory */
	const char *codes; /* of diagnose.h, that confirm it; "" if none does */
};

/* The first that fits any part of the text, NULL if none does. */
const struct explain_text *explain_find(const char *text);

/* All of them, in the order in which they are tried. */
const struct explain_text *explain_all(size_t *count_out);

#endif
