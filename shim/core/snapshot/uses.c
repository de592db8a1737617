/* SPDX-License-Identifier: MIT
 *
 * A table of chunks by their names, which are sums already.
 */
#include "core/snapshot/uses.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 1024u

/* The place of a name, or the free one where it belongs. */
static struct chunk_use *place_of(const struct chunk_uses *u, const struct chunk_name *name)
{
	size_t at;

	memcpy(&at, name->bytes, sizeof(at));
	for (at &= u->room - 1; u->table[at].is_taken; at = (at + 1) & (u->room - 1))
		if (memcmp(&u->table[at].name, name, sizeof(*name)) == 0)
			break;
	return &u->table[at];
}

const struct chunk_use *chunk_uses_next(const struct chunk_uses *u, size_t *at)
{
	while (*at < u->room)
		if (u->table[(*at)++].is_taken)
			return &u->table[*at - 1];
	return NULL;
}

/* At most three quarters of it are taken. */
static int make_room(struct chunk_uses *u)
{
	struct chunk_uses more = {.room = u->room ? 2 * u->room : ROOM_FIRST, .count = u->count};
	const struct chunk_use *use;
	size_t at = 0;

	if (u->room && u->count < u->room / 4 * 3)
		return 0;
	more.table = calloc(more.room, sizeof(*more.table));
	if (!more.table)
		return -ENOMEM;
	while ((use = chunk_uses_next(u, &at)))
		*place_of(&more, &use->name) = *use;
	free(u->table);
	*u = more;
	return 0;
}

static int add(struct chunk_uses *u, const struct chunk_name *name, uint32_t owner)
{
	struct chunk_use *use;
	int r = make_room(u);

	if (r < 0)
		return r;
	use = place_of(u, name);
	if (use->is_taken) {
		if (use->owner != owner)
			use->owner = CHUNK_SHARED;
		return 0;
	}
	*use = (struct chunk_use){*name, owner, true};
	u->count++;
	return 0;
}

int chunk_uses_add(struct chunk_uses *u, const struct manifest *m, uint32_t owner)
{
	uint64_t i, n;
	uint32_t f;
	int r = 0;

	for (f = 0; f < m->file_count && r == 0; f++) {
		n = manifest_chunk_count(m->files[f].size);
		for (i = 0; i < n && r == 0; i++)
			if (!chunk_is_zero(&m->files[f].chunks[i]))
				r = add(u, &m->files[f].chunks[i], owner);
	}
	return r;
}

bool chunk_uses_has(void *uses, const struct chunk_name *name)
{
	const struct chunk_uses *u = uses;

	return u->room && place_of(u, name)->is_taken;
}

void chunk_uses_free(struct chunk_uses *u)
{
	free(u->table);
	*u = (struct chunk_uses){.room = 0};
}
