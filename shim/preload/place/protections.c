/* SPDX-License-Identifier: MIT
 *
 * The table of protected directories.
 */
#include <fcntl.h>
#include <string.h>

#include "preload/base/shim.h"
#include "preload/place/protection.h"

struct protection protections[PROTECTIONS];
_Atomic unsigned protections_used;

int protection_folder(const struct protection *a, const char *name)
{
	return spare_open(a->store_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

void protection_add_spelling(struct protection *a, const char *directory)
{
	size_t i, used = atomic_load(&a->spellings), n = strlen(directory);

	for (i = 0; i < used; i++)
		if (strcmp(a->spelling[i], directory) == 0)
			return;
	if (used >= SPELLINGS || n >= PATH_MAX)
		return;
	memcpy(a->spelling[used], directory, n + 1);
	a->spelling_length[used] = n;
	atomic_store(&a->spellings, used + 1);
}
