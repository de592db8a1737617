/* SPDX-License-Identifier: MIT
 *
 * hnswlib's header.bin, as far as it bounds the other files and tells whether there is anything in
 * them. Offsets as in core/segment/hnsw.h, which allocates and needs libm.
 */
#ifndef PRELOAD_SEGMENT_HEADER_H
#define PRELOAD_SEGMENT_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEGMENT_HEADER_PARSED 68 /* bytes of it that are looked at */

struct segment_header {
	uint64_t capacity, count, stride, links; /* count: elements, deleted ones included */
	int32_t levels;
};

/* False: it is too short, or of another version. */
bool segment_header_parse(const unsigned char *raw, size_t n, struct segment_header *h);
/* path: of header.bin, from rootfd. False: it is none that can be read. Async-signal-safe. */
bool segment_header_read(int rootfd, const char *path, struct segment_header *h);

#endif
