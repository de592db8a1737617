/* SPDX-License-Identifier: MIT
 *
 * Property: a sealed or plain object, a control object, a key and a line of a list are read or
 * refused without leaving their bytes; an object that was written by nobody is never opened; and a
 * name that is read is written back as it was. The first byte says which of them it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "core/base/checksum.h"
#include "core/replica/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAME "chunks/00/00"

static struct replica_keys fuzz_keys(void)
{
	static struct replica_keys keys;

	memset(keys.secret_key, 2, sizeof(keys.secret_key));
	crypto_scalarmult_base(keys.public_key, keys.secret_key);
	keys.has_public = keys.has_secret = true;
	return keys;
}

static void read_object(const uint8_t *data, size_t size, bool sealed)
{
	struct replica_keys keys = fuzz_keys();
	struct file_source source;
	unsigned char *out;
	size_t n;
	int r;

	file_source_memory(&source, data, size);
	r = replica_unseal_all(sealed ? &keys : NULL, NAME, &source, 1 << 20, &out, &n);
	if (r == 0 && sealed)
		abort();
	if (r == 0 ? n > size : out != NULL)
		abort();
	free(out);
}

static void read_control(uint8_t *copy, size_t size)
{
	struct replica_control c;

	if (size == sizeof(c)) {
		memcpy(&c, copy, sizeof(c));
		replica_control_finish(&c, NAME);
		memcpy(copy, &c, sizeof(c));
	}
	if (replica_control_parse(&c, NAME, copy, size) == 0 &&
	    strnlen(c.host, sizeof(c.host)) == sizeof(c.host))
		abort();
}

static void read_line(const char *text, uint8_t which)
{
	char again[REPLICA_NAME_SIZE], once_more[REPLICA_NAME_SIZE];
	struct replica_name name, copy;
	uint64_t number;

	if (!replica_listing_parse(text, which % REPLICA_FOLDERS, which & 32, &name, &number))
		return;
	replica_name_format(again, &name);
	if (!replica_name_parse(&copy, again))
		abort();
	replica_name_format(once_more, &copy);
	if (strcmp(again, once_more) != 0)
		abort();
}

static void read_keys(const char *text, size_t size)
{
	struct replica_keys keys;

	if (replica_keys_parse(&keys, text, size) == 0 && !keys.has_public)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);

	if (!copy || !size || replica_keys_start() < 0) {
		free(copy);
		return 0;
	}
	memcpy(copy, data + 1, size - 1);
	copy[size - 1] = 0;
	switch (data[0] >> 6) {
	case 0:
		read_object(copy, size - 1, data[0] & 1);
		break;
	case 1:
		read_control(copy, size - 1);
		break;
	case 2:
		read_keys((const char *)copy, size - 1);
		break;
	default:
		read_line((const char *)copy, data[0]);
	}
	free(copy);
	return 0;
}
