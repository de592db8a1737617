/* SPDX-License-Identifier: MIT
 *
 * Property: a chunk file is decoded into exactly the bytes asked for, or refused, without leaving
 * either buffer. The header's checksum is made to fit.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "core/base/checksum.h"
#include "core/snapshot/chunks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static ZSTD_DCtx *decompressor;
	struct snapshot_chunk h = {0};
	uint8_t *copy = malloc(size ? size : 1);
	size_t plain;
	char *out;
	int r;

	if (!decompressor)
		decompressor = ZSTD_createDCtx();
	if (!copy || !decompressor)
		abort();
	if (size)
		memcpy(copy, data, size);
	if (size >= sizeof(h)) {
		memcpy(&h, copy, sizeof(h));
		h.stored = (uint32_t)(size - sizeof(h));
		h.check = (uint32_t)checksum64(&h, offsetof(struct snapshot_chunk, check), 0);
		memcpy(copy, &h, sizeof(h));
	}
	plain = h.plain <= SNAPSHOT_CHUNK_SIZE ? h.plain : SNAPSHOT_CHUNK_SIZE;
	out = malloc(plain ? plain : 1); /* exactly, so that a sanitizer sees a byte too much */
	if (!out)
		abort();
	r = chunk_decode(decompressor, copy, size, out, plain);
	if (r != 0 && r != -EBADMSG && r != -ENODATA && r != -EPROTONOSUPPORT && r != -ENOMEM)
		abort();
	free(out);
	free(copy);
	return 0;
}
