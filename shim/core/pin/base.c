/* SPDX-License-Identifier: MIT
 *
 * A pin that is held on to, to know what changes after it.
 */
#include "core/pin/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/pin/groups.h"

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)

/* ---- holding on ---- */

struct pin_slot *pins_find_base(struct pins *p)
{
	unsigned i;

	for (i = 0; p->state && i < PIN_SLOTS; i++)
		if (LOAD(p->slots[i].state) == PIN_HELD && pin_is_base(&p->slots[i]))
			return &p->slots[i];
	return NULL;
}

void pins_drop_base(struct pins *p)
{
	struct pin_slot *s = pins_find_base(p);

	if (s)
		pin_drop(p, s);
}

void pin_become_base(struct pins *p, struct pin_slot *s, uint64_t id)
{
	if (LOAD(s->id) != id || LOAD(s->state) != PIN_HELD)
		return;
	pins_drop_base(p);
	memset(s->description, 0, sizeof(s->description));
	snprintf(s->reason, sizeof(s->reason), "%s", PIN_BASE_REASON);
}

/* ---- comparing ---- */

bool pin_base_open(struct pin_base *b, struct pins *pins, int rootfd, uint64_t newer)
{
	struct pin_slot *s = pins_find_base(pins);

	*b = (struct pin_base){.newer = newer};
	b->is_open = s && s->id < newer && !s->wal &&
		     pin_view_open(&b->view, pins, s, rootfd, &b->trouble) == 0;
	return b->is_open;
}

static void close_file(struct pin_base *b)
{
	if (b->has_file)
		pin_reader_close(&b->reader);
	b->has_file = false;
}

void pin_base_close(struct pin_base *b)
{
	close_file(b);
	if (b->is_open)
		pin_view_close(&b->view);
	b->is_open = false;
}

/* Removed or replaced between the two. */
static bool was_moved(const struct pin_base *b)
{
	size_t i;

	for (i = 0; i < b->reader.layer_count; i++)
		if (b->reader.layers[i].whole >= 0 && b->reader.layers[i].id < b->newer)
			return true;
	return false;
}

/* What a persist under way has written is in its undo file alone. */
static bool was_persisting(const struct pin_base *b, const struct pin_view *newer)
{
	return b->reader.segment >= 0 && (pin_groups_header(&b->view, b->reader.id) ||
					  pin_groups_header(newer, b->reader.id));
}

bool pin_base_find(struct pin_base *b, const struct pin_view *newer, const char *path,
		   uint64_t *size_out)
{
	close_file(b);
	if (!b->is_open || newer->wal)
		return false;
	b->has_file = true; /* to be closed also after an error */
	if (pin_reader_open(&b->reader, &b->view, path) < 0 || b->reader.moved >= 0 ||
	    was_moved(b) || was_persisting(b, newer) || pin_reader_judge(&b->reader) < 0)
		return false;
	*size_out = b->reader.source.size;
	return true;
}

bool pin_base_same(const struct pin_base *b, uint64_t offset, uint64_t length)
{
	uint64_t block, end = (offset + length + PIN_BLOCK - 1) / PIN_BLOCK;
	size_t i;

	for (i = 0; i < b->reader.layer_count && b->reader.layers[i].id < b->newer; i++) {
		const struct pin_file *pre = &b->reader.layers[i].pre;

		for (block = offset / PIN_BLOCK; pre->header && block < end; block++)
			if (pin_file_has(pre, block))
				return false;
	}
	return true;
}
