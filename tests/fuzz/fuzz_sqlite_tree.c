/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are read as pages of a database with their records, or refused; chains of
 * overflow pages end, and what is handed out lies within what was read.
 */
#include <stdlib.h>

#include "core/sqlite/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t sum_of(const struct sqlite_record *record)
{
	uint64_t sum = 0, at;
	uint32_t i;

	for (i = 0; i < record->columns; i++)
		for (at = 0; record->values[i].bytes && at < record->values[i].size; at++)
			sum += record->values[i].bytes[at];
	return sum;
}

/* The first byte tells the page size, and how much the last page lacks. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t page_size = size ? 512u << (data[0] % 4) : 512, number, i;
	struct sqlite_record_reader reader;
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	struct sqlite_record record;
	struct file_source source;
	uint64_t sum = 0, at;

	if (!size)
		return 0;
	file_source_memory(&source, data + 1, --size);
	sqlite_record_reader_open(&reader, &source, page_size, page_size, 1000);
	for (number = 1, at = 0; at < size; number++, at += page_size) {
		uint32_t have = size - at < page_size ? (uint32_t)(size - at) : page_size;

		if (sqlite_tree_page_parse(&page, data + 1 + at, have, page_size, number) < 0)
			continue;
		for (i = 0; i < page.cells; i++) {
			if (sqlite_tree_cell(&page, i, &cell) < 0 || !cell.local)
				continue;
			if (cell.end > have)
				abort();
			if (sqlite_record_parse(&record, cell.local, cell.local_size, cell.size) ==
			    0)
				sum += sum_of(&record);
			if (sqlite_record_read(&reader, &cell, &record) == 0)
				sum += sum_of(&record);
		}
	}
	sqlite_record_reader_close(&reader);
	return sum == 1 ? 0 : 0;
}
