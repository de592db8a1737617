/* SPDX-License-Identifier: MIT
 *
 * Property: a manifest is read or refused without leaving its bytes, and one that is read leads
 * nowhere but into the directory and is written back as it was. The checksum is made to fit, else
 * nothing would get past it.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checksum.h"
#include "core/snapshot/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_one(char *copy, size_t size)
{
	struct manifest m;
	size_t size_again;
	uint32_t i;
	char *again;

	if (manifest_parse(&m, copy, size) == 0) {
		for (i = 0; i < m.file_count; i++)
			if (!manifest_path_is_valid(m.files[i].path))
				abort();
		memcpy(copy + offsetof(struct snapshot_header, version),
		       &(uint32_t){SNAPSHOT_VERSION}, sizeof(uint32_t));
		if (manifest_format(&m, &again, &size_again) == 0) {
			if (size_again != size || memcmp(copy, again, size - 8) != 0)
				abort();
			free(again);
		}
	}
	manifest_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t total = size, id, check;
	char *copy = malloc(size ? size : 1);

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	if (size >= sizeof(struct snapshot_header) + sizeof(check)) {
		memcpy(copy + offsetof(struct snapshot_header, size), &total, sizeof(total));
		memcpy(&id, copy + offsetof(struct snapshot_header, id), sizeof(id));
		check = checksum64(copy, size - sizeof(check), id);
		memcpy(copy + size - sizeof(check), &check, sizeof(check));
	}
	read_one(copy, size);
	free(copy);
	return 0;
}
