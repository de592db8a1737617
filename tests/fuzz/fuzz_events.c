/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes give events that are whole, numbered and in order, as many as fit.
 */
#include <stdlib.h>
#include <string.h>

#include "core/store/events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct store_event all[EVENTS_SLOTS];
	size_t n = events_read(data, size, all), i;

	if (n > EVENTS_SLOTS || n * sizeof(*all) > size)
		abort();
	for (i = 0; i < n; i++)
		if (!all[i].number || (i && all[i].number < all[i - 1].number) ||
		    strlen(all[i].name) >= sizeof(all[i].name) ||
		    strlen(all[i].text) >= sizeof(all[i].text))
			abort();
	return 0;
}
