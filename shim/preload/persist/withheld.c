/* SPDX-License-Identifier: MIT
 *
 * Held back: with power durability no byte is overwritten in place before its pre-image is on the
 * disk, and one sync must do for many. So overwrites of a group wait in memory until the memory is
 * full or the pickle comes; then the undo file is synced once and they go.
 *
 * Only what lies wholly within a file as it was at the group's start is held back: sizes stay true.
 * Plain reads get it laid over what is in the file (stdio reads a block at every seek); anything
 * else that looks at the bytes lets all go first.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "preload/base/shim.h"
#include "preload/persist/state.h"
#include "preload/pin/pins.h"
#include "preload/place/faults.h"

_Atomic unsigned persists_holding;
_Atomic uint64_t persists_let_go;

static void set_holding(struct group *g, bool on)
{
	if (g->holding == on)
		return;
	g->holding = on;
	if (on) {
		atomic_fetch_add(&persists_holding, 1);
		return;
	}
	atomic_fetch_add(&persists_let_go, 1);
	atomic_fetch_sub(&persists_holding, 1);
}

static bool fits(const struct group *g, uint64_t length)
{
	uint64_t pieces = length / UNDO_GRAIN / 2 + 2; /* every other grain, and both ends */

	return length <= HELD_BYTES / 4 && g->withheld_used + length <= HELD_BYTES &&
	       g->withheld_count + pieces <= HELD_PIECES;
}

/* Where the next bytes go: hnswlib goes through its files from start to end, so some lengthen the
 * piece before. */
static struct held *piece_for(struct group *g, unsigned file, uint64_t offset)
{
	struct held *last = g->withheld_count ? &g->held[g->withheld_count - 1] : NULL;

	if (last && last->file == file && last->offset + last->length == offset)
		return last;
	last = &g->held[g->withheld_count++];
	*last = (struct held){.file = file,
			      .offset = offset,
			      .at = (uint32_t)g->withheld_used,
			      .before = g->files[file].withheld_last};
	g->files[file].withheld_last = g->withheld_count;
	return last;
}

void withheld_take_bytes(const struct change *c, uint64_t skip, unsigned char *to, uint64_t n)
{
	int i;

	for (i = 0; i < c->iov_count && n; i++) {
		uint64_t length = c->iov[i].iov_len, part;

		if (skip >= length) {
			skip -= length;
			continue;
		}
		part = length - skip < n ? length - skip : n;
		memcpy(to, (const char *)c->iov[i].iov_base + skip, part);
		to += part;
		n -= part;
		skip = 0;
	}
}

static void put_run(struct group *g, unsigned file, uint64_t from, uint64_t to,
		    const struct change *c)
{
	struct group_file *f = &g->files[file];
	struct held *piece = piece_for(g, file, from);

	withheld_take_bytes(c, from - (uint64_t)c->offset, g->withheld_bytes + g->withheld_used,
			    to - from);
	piece->length += (uint32_t)(to - from);
	g->withheld_used += (uint32_t)(to - from);
	f->withheld_disorder |= from < f->withheld_end;
	f->withheld_end = to;
	set_holding(g, true);
}

bool withheld_put(struct group *g, unsigned file, const struct change *c)
{
	const struct group_file *f = &g->files[file];
	uint64_t at = (uint64_t)c->offset, end = at + c->length, to;

	if (!fits(g, c->length))
		return false;
	for (; at < end; at = to) {
		bool saved = grain_is_saved(f, at / UNDO_GRAIN);

		for (to = at; to < end && grain_is_saved(f, to / UNDO_GRAIN) == saved;)
			to = (to / UNDO_GRAIN + 1) * UNDO_GRAIN;
		to = to < end ? to : end;
		if (saved)
			put_run(g, file, at, to, c);
	}
	return true;
}

static void lay_over(const struct group *g, const struct held *h, uint64_t offset, void *buf,
		     size_t n)
{
	uint64_t from = h->offset > offset ? h->offset : offset;
	uint64_t to = h->offset + h->length < offset + n ? h->offset + h->length : offset + n;

	if (from < to)
		memcpy((char *)buf + (from - offset),
		       g->withheld_bytes + h->at + (from - h->offset), to - from);
}

void withheld_lay_over(const struct group *g, unsigned file, uint64_t offset, void *buf, size_t n)
{
	const struct held *h;
	uint32_t i;

	if (!g->files[file].withheld_disorder) {
		/* Who goes through a file from start to end reads where it writes: at the last. */
		for (i = g->files[file].withheld_last; i; i = h->before) {
			h = &g->held[i - 1];
			if (h->offset + h->length <= offset)
				break;
			lay_over(g, h, offset, buf, n);
		}
		return;
	}
	for (i = 0; i < g->withheld_count; i++)
		if (g->held[i].file == file)
			lay_over(g, &g->held[i], offset, buf, n);
}

void withheld_drop(struct group *g)
{
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++) {
		g->files[i].withheld_end = 0;
		g->files[i].withheld_last = 0;
		g->files[i].withheld_disorder = false;
	}
	g->withheld_used = g->withheld_count = 0;
	set_holding(g, false);
}
