/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are read or refused, in bounded time and memory; pairs handed out are
 * as many as are counted, and nothing but a STOP makes a pickle whole.
 */
#include <stdlib.h>

#include "core/segment/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count_pair(void *context, enum pickle_map map, const char *id, size_t size,
		      int64_t number)
{
	uint64_t *pairs = context;
	volatile char last = size ? id[size - 1] : 0;

	(void)last;
	(void)number;
	pairs[map]++;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t pairs[PICKLE_MAPS] = {0};
	struct file_source source;
	struct pickle_index index;
	int r, i;

	file_source_memory(&source, data, size);
	r = pickle_read_index(&source, count_pair, pairs, &index);
	for (i = 0; i < PICKLE_MAPS; i++)
		if (pairs[i] != index.pairs[i])
			abort();
	if (r > 0 || index.end > size || (r == 0 && data[index.end - 1] != '.'))
		abort();
	return 0;
}
