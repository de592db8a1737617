/* SPDX-License-Identifier: MIT
 *
 * A number as text, for names and lines that are put together without stdio.
 */
#ifndef CORE_NUMBER_H
#define CORE_NUMBER_H

#include <stddef.h>
#include <stdint.h>

/*
 * In base 10 or 16, with at least `digits` digits (up to 24), as far as there is room before `end`.
 * Returns the end of what was written; no zero byte is put there.
 */
static inline char *number_put(char *at, const char *end, uint64_t n, unsigned base,
			       unsigned digits)
{
	char text[24];
	size_t k = sizeof(text);

	do {
		text[--k] = "0123456789abcdef"[n % base];
		n /= base;
	} while (k > 0 && (n || sizeof(text) - k < digits));
	while (k < sizeof(text) && at < end)
		*at++ = text[k++];
	return at;
}

#endif
