/* SPDX-License-Identifier: MIT
 *
 * A growing byte buffer for tests that build files by hand.
 */
#ifndef UNIT_BYTES_H
#define UNIT_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
	unsigned char *data;
	size_t size;
};

static inline void bytes_add(struct bytes *b, const void *data, size_t n)
{
	b->data = realloc(b->data, b->size + n + 1);
	if (!b->data)
		abort();
	if (n)
		memcpy(b->data + b->size, data, n);
	b->size += n;
}

/* n bytes of a number, little-endian */
static inline void bytes_le(struct bytes *b, uint64_t value, int n)
{
	unsigned char c;
	int i;

	for (i = 0; i < n; i++) {
		c = (unsigned char)(value >> 8 * i);
		bytes_add(b, &c, 1);
	}
}

static inline void bytes_text(struct bytes *b, const char *s)
{
	bytes_add(b, s, strlen(s));
}

static inline void bytes_free(struct bytes *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}

#endif
