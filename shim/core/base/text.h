/* SPDX-License-Identifier: MIT
 *
 * Texts and bytes, without memory and stdio.
 */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Whether it ends with the suffix, and is longer. */
static inline bool text_ends_with(const char *text, const char *suffix)
{
	size_t n = strlen(text), k = strlen(suffix);

	return n > k && strcmp(text + n - k, suffix) == 0;
}

/* Of none: true. */
static inline bool bytes_are_zero(const void *data, size_t n)
{
	const unsigned char *p = data;

	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

#endif
