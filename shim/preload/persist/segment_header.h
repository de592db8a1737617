/* SPDX-License-Identifier: MIT
 *
 * hnswlib's header.bin, as far as it bounds the other files and tells whether there is anything in
 * them. Offsets as in core/segment/hnsw.h, which allocates and needs libm.
 */
#ifndef PRELOAD_SEGMENT_HEADER_H
#define PRELOAD_SEGMENT_HEADER_H

#include <stdbool.h>
#include <stdint.h>

struct segment_header {
	uint64_t capacity, count, stride, links; /* count: elements, deleted ones included */
	int32_t levels;
};

/* path: of header.bin, from rootfd. False: it is none that can be read. Async-signal-safe. */
bool segment_header_read(int rootfd, const char *path, struct segment_header *h);

#endif
