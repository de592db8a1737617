/* SPDX-License-Identifier: MIT
 *
 * Finding the meaning of an error text.
 */
#include "core/explain.h"

#include <stdbool.h>
#include <string.h>

static const struct explain_text texts[] = {
#define TEXT(pattern, means, helps, codes) {pattern, means, helps, codes},
#include "core/explain_texts.def"
#undef TEXT
};

const struct explain_text *explain_all(size_t *count_out)
{
	*count_out = sizeof(texts) / sizeof(texts[0]);
	return texts;
}

/* The parts between the stars in their order, anywhere in the text. */
static bool fits(const char *text, const char *pattern)
{
	char part[128];

	while (*pattern) {
		size_t n = strcspn(pattern, "*");

		if (n >= sizeof(part))
			return false;
		memcpy(part, pattern, n);
		part[n] = '\0';
		text = strcasestr(text, part);
		if (!text)
			return false;
		text += n;
		pattern += n + (pattern[n] == '*');
	}
	return true;
}

const struct explain_text *explain_find(const char *text)
{
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (fits(text, texts[i].pattern))
			return &texts[i];
	return NULL;
}
