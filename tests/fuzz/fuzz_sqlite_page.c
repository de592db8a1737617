/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are read as a database's first page or refused, and a freelist of any
 * shape, loops included, ends after as many pages as it says it has.
 */
#include <stdlib.h>

#include "core/sqlite/page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count_page(void *context, uint32_t page, bool is_trunk)
{
	(void)page;
	(void)is_trunk;
	++*(uint64_t *)context;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file_source source;
	struct sqlite_header h;
	uint64_t pages = 0;

	if (sqlite_header_parse(&h, data, size) < 0)
		return 0;
	file_source_memory(&source, data, size);
	sqlite_freelist_walk(&h, &source, count_page, &pages);
	if (pages > h.freelist_count)
		abort();
	return 0;
}
