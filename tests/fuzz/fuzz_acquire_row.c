/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are judged, within the bytes, and what saves no page of acquire_write's is
 * never taken for one that goes nowhere.
 */
#include <stdlib.h>
#include <string.h>

#include "core/chroma/acquire_row.h"
#include "core/sqlite/page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned char room[SQLITE_PAGE_MAX];

/* There is no database: a parent has no child, a trunk is none. */
static bool read_nothing(const struct acquire_row *t, void *out, size_t n, uint64_t at)
{
	(void)t;
	(void)out;
	(void)n;
	(void)at;
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct acquire_row t = {.journal = data, .size = size, .read = read_nothing, .room = room};
	const uint8_t *last;

	if (!acquire_row_open(&t) || !acquire_row_saved(&t))
		return 0;
	last = data + size - t.page_size - 4;
	acquire_row_writes(&t, 1, last);
	acquire_row_writes(&t, 2, last);
	if (memchr(data, 0x0d, size) == NULL)
		abort();
	return 0;
}
