/* SPDX-License-Identifier: MIT
 *
 * Property: any text is read as the lines of an engine within their bounds, or refused.
 */
#include <stdlib.h>
#include <string.h>

#include "core/chroma/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct engine e;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (engine_parse(text, &e) &&
	    (strlen(e.release) >= sizeof(e.release) || strlen(e.python) >= sizeof(e.python) ||
	     strlen(e.packages) >= sizeof(e.packages) || strchr(e.python, '\n')))
		abort();
	free(text);
	return 0;
}
