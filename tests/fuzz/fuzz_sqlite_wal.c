/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are walked as a write-ahead log to an end, within the bytes; with the
 * header's checksum put right first, since no fuzzer finds one. What it makes of a database can be
 * read from start to end.
 */
#include <stdlib.h>
#include <string.h>

#include "core/sqlite/wal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_be32(unsigned char *p, uint32_t value)
{
	int i;

	for (i = 0; i < 4; i++)
		p[i] = (unsigned char)(value >> (24 - 8 * i));
}

static void read_together(const struct file_source *log, const unsigned char *data, size_t size)
{
	static unsigned char out[65536 + 100];
	struct sqlite_wal_database d;
	struct file_source database;

	file_source_memory(&database, data, size);
	if (sqlite_wal_database_open(&d, &database, log) == 0 && d.source.size) {
		uint64_t n = d.source.size < sizeof(out) ? d.source.size : sizeof(out);

		if (file_source_read(&d.source, out, (size_t)n, 0) < 0 ||
		    file_source_read(&d.source, out, (size_t)n, d.source.size - n) < 0)
			abort();
	}
	sqlite_wal_database_close(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file_source source;
	struct sqlite_wal w;
	struct sqlite_wal_frame frame;
	unsigned char *copy;
	uint32_t sum[2] = {0, 0};

	if (size < SQLITE_WAL_HEADER_SIZE)
		return 0;
	copy = malloc(size);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	sqlite_wal_checksum(sum, copy[3] & 1, copy, 24);
	put_be32(copy + 24, sum[0]);
	put_be32(copy + 28, sum[1]);
	file_source_memory(&source, copy, size);
	if (sqlite_wal_open(&w, &source) == 0) {
		while (sqlite_wal_next(&w, &frame) == 1)
			if (!frame.page || w.frames > size / w.header.page_size)
				abort();
		if (w.committed > w.frames)
			abort();
		sqlite_wal_close(&w);
	}
	read_together(&source, data, size);
	read_together(&source, data, size / 3);
	free(copy);
	return 0;
}
