/* SPDX-License-Identifier: MIT
 *
 * Error texts of Chroma, and of what is around it, what they mean and what to do.
 */
#ifndef CORE_EXPLAIN_H
#define CORE_EXPLAIN_H

#include <stddef.h>

/* In the order in which they are told: a later kind only where there is none of the earlier. */
enum explain_kind {
	EXPLAIN_CAUSE,
	EXPLAIN_GENERAL,  /* words around a cause that is not there */
	EXPLAIN_HARMLESS, /* no error */
};

struct explain_text {
	const char *pattern;
	const char *means;
	const char *helps; /* "DIR" stands for the directory */
	const char *codes; /* of check/diagnose.h, that confirm it; "" if none does */
	enum explain_kind kind;
};

/* Those that fit any part of the text, in its order; how many, at most `room`. */
size_t explain_find(const char *text, const struct explain_text **out, size_t room);

/* All of them; of two that fit the same words the first counts. */
const struct explain_text *explain_all(size_t *count_out);

#endif
