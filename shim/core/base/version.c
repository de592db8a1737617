/* SPDX-License-Identifier: MIT
 *
 * The version: include/chromashim.h has it.
 */
#include "core/base/version.h"

#include "chromashim.h"
#include "core/base/number.h"

#define MOST 255u

static const char mark[] = VERSION_MARK CHROMASHIM_VERSION;

const char *version_own(void)
{
	const char *text = mark + sizeof(VERSION_MARK) - 1;

	/* What the file says counts, not what the compiler knows of it: so tests can be older. */
	__asm__("" : "+r"(text));
	return text;
}

uint32_t version_number(const char *text)
{
	uint32_t number = 0, part;
	unsigned i;

	for (i = 0; i < 3; i++) {
		if (*text < '0' || *text > '9')
			return 0;
		for (part = 0; *text >= '0' && *text <= '9'; text++)
			part = part > MOST ? part : part * 10 + (uint32_t)(*text - '0');
		number = number << 8 | (part > MOST ? MOST : part);
		if (i < 2 && *text++ != '.')
			return 0;
	}
	return number;
}

uint32_t version_own_number(void)
{
	return version_number(version_own());
}

void version_text(char out[VERSION_TEXT], uint32_t number)
{
	char *at = out, *end = out + VERSION_TEXT - 1;
	int shift;

	for (shift = 16; shift >= 0; shift -= 8) {
		at = number_put(at, end, number >> shift & MOST, 10, 1);
		if (shift && at < end)
			*at++ = '.';
	}
	*at = '\0';
}
