/* SPDX-License-Identifier: MIT
 *
 * Property: chromashim.conf is read or refused, with a line that it has; what is taken from it is a
 * valid value of its setting.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/settings/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config_trouble trouble;
	struct config c = {0};
	char *copy = malloc(size ? size : 1);
	unsigned i;

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	if (config_parse(&c, copy, size, &trouble) != 0 &&
	    (trouble.line == 0 || trouble.line > size + 1 || !trouble.text[0]))
		abort();
	for (i = 0; i < CONFIG_KEYS; i++)
		if (c.values[i].text &&
		    (!config_is_valid((enum config_key)i, c.values[i].text) || !c.values[i].line))
			abort();
	config_free(&c);
	free(copy);
	return 0;
}
