/* SPDX-License-Identifier: MIT
 *
 * Property: a header followed by a file's bytes is read or refused without leaving the bytes,
 * in bounded time; a header that passes the checks is written back as it was.
 */
#include <stdlib.h>
#include <string.h>

#include "core/segment/hnsw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_elements(const struct hnsw_header *h, const struct file_source *source)
{
	struct hnsw_level0 l;
	struct hnsw_element e;
	float *vector;
	uint64_t i;

	if (hnsw_level0_open(&l, h, source) < 0)
		return;
	vector = malloc((size_t)hnsw_dimension(h) * sizeof(float));
	for (i = 0; vector && i < hnsw_level0_count(&l); i++) {
		if (hnsw_level0_get(&l, i, &e) < 0)
			abort();
		hnsw_vector_copy(vector, &e, hnsw_dimension(h), 2.0f);
	}
	free(vector);
	hnsw_level0_close(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char again[HNSW_HEADER_SIZE];
	struct hnsw_header h;
	struct hnsw_links links;
	struct file_source source;

	if (hnsw_header_parse(&h, data, size) < 0)
		return 0;
	hnsw_header_check(&h);
	hnsw_header_format(again, &h);
	if (memcmp(again, data, sizeof(again)) != 0)
		abort();
	file_source_memory(&source, data + HNSW_HEADER_SIZE, size - HNSW_HEADER_SIZE);
	read_elements(&h, &source);
	hnsw_links_walk(&h, &source, &links);
	if (links.bytes > source.size || links.entries > links.bytes / 4)
		abort();
	return 0;
}
