/* SPDX-License-Identifier: MIT
 *
 * Announcements: what is about to be in a segment's files is in the undo file before it is there.
 * So a roll-back tells the files that a persist was writing from those of somebody else; see
 * "Foreign files" in chromashim_undo.h.
 */
#include <string.h>

#include "core/base/checksum.h"
#include "core/base/sys.h"
#include "preload/persist/state.h"

#define PIECE 4096u /* a write that a death cuts short ends with a page */

int announce_flush(struct group *g)
{
	int r;

	if (!g->announced_count)
		return 0;
	r = undo_put_data(&g->undo, UNDO_BECOMES, g->announced_file, g->announced_from * UNDO_GRAIN,
			  g->announced, g->announced_count * (uint32_t)sizeof(*g->announced));
	g->announced_count = 0;
	return r;
}

static int announce(struct group *g, unsigned file, uint64_t grain, uint32_t check)
{
	int r = 0;

	if (g->announced_count == ANNOUNCED || g->announced_file != file ||
	    grain < g->announced_from || grain - g->announced_from > UINT32_MAX)
		r = announce_flush(g);
	if (!g->announced_count) {
		g->announced_file = file;
		g->announced_from = grain;
	}
	g->announced[g->announced_count++] =
	    (struct undo_becomes){(uint32_t)(grain - g->announced_from), check};
	g->undo_synced = false;
	return r;
}

/* ---- writes over what was there ---- */

/* The grain's checksum after the write, as far as the file went at the group's start. */
static int becomes(struct group *g, unsigned file, uint64_t grain, const struct change *c,
		   uint32_t *check)
{
	uint64_t at = grain * UNDO_GRAIN, size = (uint64_t)g->header.files[file].size;
	uint64_t end = size - at < UNDO_GRAIN ? size : at + UNDO_GRAIN;
	uint64_t from = (uint64_t)c->offset > at ? (uint64_t)c->offset : at;
	uint64_t to = (uint64_t)c->offset + c->length < end ? (uint64_t)c->offset + c->length : end;
	unsigned char bytes[UNDO_GRAIN] = {0};
	const unsigned char *old;
	ssize_t n = 0;

	if (from > at || to < end) {
		n = window_get(g, file, at, end, &old);
		if (n < 0)
			return (int)n;
		memcpy(bytes, old, (size_t)n);
		withheld_lay_over(g, file, at, bytes, (size_t)n);
	}
	withheld_take_bytes(c, from - (uint64_t)c->offset, bytes + (from - at), to - from);
	*check = checksum32_nonzero(bytes, to - at > (uint64_t)n ? to - at : (uint64_t)n, 0);
	return 0;
}

int announce_write(struct group *g, unsigned file, const struct change *c)
{
	uint64_t size = (uint64_t)g->header.files[file].size;
	uint64_t end =
	    c->length > size - (uint64_t)c->offset ? size : (uint64_t)c->offset + c->length;
	uint64_t grain = (uint64_t)c->offset / UNDO_GRAIN;
	uint32_t check = 0;
	int r = 0;

	if (g->files[file].foreign)
		return 0;
	for (; grain * UNDO_GRAIN < end && r == 0; grain++) {
		if (!grain_is_saved(&g->files[file], grain))
			continue;
		r = becomes(g, file, grain, c, &check);
		if (r == 0)
			r = announce(g, file, grain, check);
	}
	return r;
}

int announce_unknown(struct group *g, unsigned file, uint64_t offset, uint64_t length)
{
	int r = group_equip(g);

	g->undo_synced = false;
	return r < 0 ? r
		     : undo_put_data(&g->undo, UNDO_UNKNOWN, file, offset, &length, sizeof(length));
}

/* ---- lengths ---- */

int announce_length(struct group *g, unsigned file, uint64_t length)
{
	int r = group_equip(g);

	g->undo_synced = false;
	/* Of the grain in which it ends some bytes stay, and any length may follow. */
	if (r == 0 && length % UNDO_GRAIN)
		r = announce_unknown(g, file, length / UNDO_GRAIN * UNDO_GRAIN, UNDO_GRAIN);
	return r < 0 ? r : undo_put(&g->undo, UNDO_LENGTH, file, length);
}

int announce_end(struct group *g, unsigned file, const struct change *c)
{
	struct stat st;
	int r = sys_fstat(c->fd, &st);

	return r < 0 ? r : announce_unknown(g, file, (uint64_t)st.st_size, c->length);
}

int announce_reach(struct group *g, const struct change *c)
{
	uint64_t *reach = &g->page->reach[file_index(c->slot)], end = INT64_MAX;
	bool whole = !c->length && !brings_bytes(c); /* of a file that is cloned */

	if (c->op == OP_FTRUNCATE || c->op == OP_TRUNCATE)
		end = c->length;
	else if (!(c->slot.writable & SLOT_APPEND) && c->offset >= 0 && !whole &&
		 c->length < INT64_MAX - (uint64_t)c->offset)
		end = (uint64_t)c->offset + c->length;
	*reach = *reach > end ? *reach : end;
	return group_page_lost(g) ? -EIO : 0;
}

/* ---- writes to what was emptied ---- */

int announce_written(struct group *g, unsigned file, const struct change *c)
{
	struct group_file *f = &g->files[file];
	uint64_t done = 0, part;
	int r = 0;

	if (!brings_bytes(c) || c->offset < 0 || (uint64_t)c->offset != f->written) {
		f->written = UINT64_MAX;
		r = announce_unknown(g, file, 0, UINT64_MAX);
		return r < 0 ? r : undo_flush(&g->undo);
	}
	for (; done < c->length && r == 0; done += part) {
		struct undo_written w;

		part = PIECE - f->written % PIECE;
		part = part < c->length - done ? part : c->length - done;
		withheld_take_bytes(c, done, g->old, part);
		w.length = (uint32_t)part;
		w.check = checksum32_nonzero(g->old, part, 0);
		r = undo_put_data(&g->undo, UNDO_WRITTEN, file, f->written, &w, sizeof(w));
		f->written += part;
	}
	/* No sync: what a power cut leaves of it does not count. */
	return r < 0 ? r : undo_flush(&g->undo);
}
