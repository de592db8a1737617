/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are walked as a rollback journal to an end, within the bytes, and no more
 * records come than could fit.
 */
#include <stdlib.h>

#include "core/sqlite/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file_source source;
	struct sqlite_journal j;
	struct sqlite_journal_record record;
	char name[64];
	uint64_t start, records = 0;

	file_source_memory(&source, data, size);
	if (sqlite_journal_super(&source, name, sizeof(name), &start) == 1 && start > size)
		abort();
	if (sqlite_journal_open(&j, &source) < 0)
		return 0;
	while (sqlite_journal_next(&j, &record) == 1) {
		volatile unsigned char last = record.data[j.header.page_size - 1];

		(void)last;
		if (++records > size / j.header.page_size || !record.page)
			abort();
	}
	sqlite_journal_close(&j);
	return 0;
}
