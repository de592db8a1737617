/* SPDX-License-Identifier: MIT
 *
 * The checksum of chromashim's own formats: XXH3-64 (xxhash.com), inlined. Not cryptographic;
 * chunk names use SHA-256, compressed files zstd's own checksum.
 */
#ifndef CORE_CHECKSUM_H
#define CORE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#define XXH_INLINE_ALL
#define XXH_NO_STREAM
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include <xxhash.h>
#pragma GCC diagnostic pop

static inline uint64_t checksum64(const void *data, size_t size, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, size, seed);
}

/* For what may be many: 128 bits of it, and a seed that nobody else knows. */
struct checksum128 {
	uint64_t low, high; /* both 0: none */
};

static inline struct checksum128 checksum128(const void *data, size_t size, uint64_t seed)
{
	XXH128_hash_t h = XXH3_128bits_withSeed(data, size, seed);

	return (struct checksum128){h.low64, h.high64};
}

/* Never 0, so that 0 can mean "not written yet". */
static inline uint32_t checksum32_nonzero(const void *data, size_t size, uint64_t seed)
{
	uint32_t sum = (uint32_t)checksum64(data, size, seed);

	return sum ? sum : 1;
}

#endif
