/* SPDX-License-Identifier: MIT
 *
 * Writing a tar archive.
 */
#include "command/report/tar.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define BLOCK 512

struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], check[8], type, link[100];
	char magic[8], user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct tar_header) == BLOCK, "a header is a block");

static void put_octal(char *field, size_t size, uint64_t value)
{
	size_t i;

	field[size - 1] = '\0';
	for (i = size - 1; i-- > 0; value >>= 3)
		field[i] = (char)('0' + (value & 7));
}

static void sum_up(struct tar_header *h)
{
	const unsigned char *bytes = (const unsigned char *)h;
	unsigned sum = 0, i;

	memset(h->check, ' ', sizeof(h->check));
	for (i = 0; i < BLOCK; i++)
		sum += bytes[i];
	put_octal(h->check, 7, sum);
	h->check[7] = ' ';
}

int tar_put(FILE *out, const char *name, const void *data, size_t size, uint64_t seconds)
{
	static const char zeros[BLOCK];
	size_t rest = size % BLOCK ? BLOCK - size % BLOCK : 0;
	struct tar_header h = {.type = '0'};

	assert(strlen(name) < sizeof(h.name));
	memcpy(h.name, name, strlen(name));
	memcpy(h.magic, "ustar\00000", sizeof(h.magic));
	put_octal(h.mode, sizeof(h.mode), 0600);
	put_octal(h.uid, sizeof(h.uid), 0);
	put_octal(h.gid, sizeof(h.gid), 0);
	put_octal(h.size, sizeof(h.size), size);
	put_octal(h.mtime, sizeof(h.mtime), seconds);
	sum_up(&h);
	if (fwrite(&h, sizeof(h), 1, out) != 1 || (size && fwrite(data, size, 1, out) != 1) ||
	    (rest && fwrite(zeros, rest, 1, out) != 1))
		return errno ? -errno : -EIO;
	return 0;
}

int tar_end(FILE *out)
{
	static const char zeros[2 * BLOCK];

	return fwrite(zeros, sizeof(zeros), 1, out) == 1 ? 0 : errno ? -errno : -EIO;
}
