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
#include <string.h>

#include "preload/faults.h"
#include "preload/persist_state.h"
#include "preload/shim.h"

_Atomic unsigned persists_holding;

static void set_holding(struct group *g, bool on)
{
	if (g->holding == on)
		return;
	g->holding = on;
	if (on)
		atomic_fetch_add(&persists_holding, 1);
	else
		atomic_fetch_sub(&persists_holding, 1);
}

/* Where the next bytes go: hnswlib goes through its files from start to end, so most lengthen the
 * piece before. NULL: full. */
static struct held *piece_for(struct group *g, unsigned file, uint64_t offset)
{
	struct held *last = g->held_count ? &g->held[g->held_count - 1] : NULL;

	if (last && last->file == file && last->offset + last->length == offset)
		return last;
	if (g->held_count == HELD_PIECES)
		return NULL;
	last = &g->held[g->held_count++];
	*last = (struct held){.file = file, .offset = offset, .at = (uint32_t)g->held_used};
	return last;
}

bool held_put(struct group *g, unsigned file, uint64_t offset, const struct change *c)
{
	struct held *piece;
	int i;

	if (c->length > HELD_BYTES / 4 || g->held_used + c->length > HELD_BYTES)
		return false;
	piece = piece_for(g, file, offset);
	if (!piece)
		return false;
	for (i = 0; i < c->iov_count; i++) {
		memcpy(g->held_bytes + g->held_used, c->iov[i].iov_base, c->iov[i].iov_len);
		g->held_used += (uint32_t)c->iov[i].iov_len;
	}
	piece->length += (uint32_t)c->length;
	set_holding(g, true);
	return true;
}

void held_lay_over(const struct group *g, unsigned file, uint64_t offset, void *buf, size_t n)
{
	uint32_t i;

	for (i = 0; i < g->held_count; i++) {
		const struct held *h = &g->held[i];
		uint64_t from = h->offset > offset ? h->offset : offset;
		uint64_t to =
		    h->offset + h->length < offset + n ? h->offset + h->length : offset + n;

		if (h->file == file && from < to)
			memcpy((char *)buf + (from - offset),
			       g->held_bytes + h->at + (from - h->offset), to - from);
	}
}

static int write_all(int fd, const unsigned char *p, size_t n, uint64_t offset)
{
	while (n) {
		ssize_t done = sys_pwrite(fd, p, n, (off_t)offset);

		if (done == -EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? (int)done : -EIO;
		p += done;
		offset += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

static int sync_undo(struct group *g)
{
	int r = undo_flush(&g->undo);

	if (r < 0 || !g->power)
		return r;
	if (!g->undo_synced)
		r = sys_fdatasync(g->undo.fd);
	if (r == 0 && !g->undo_known)
		r = sys_fsync(persist_stores[g->area].undo_fd);
	if (r == 0)
		g->undo_synced = g->undo_known = true;
	return r;
}

static int write_held(struct group *g)
{
	uint32_t i;
	int r = 0;

	for (i = 0; i < g->held_count && r == 0; i++) {
		const struct held *h = &g->held[i];

		fault_point();
		r = fault_of_held(h->file);
		if (r == 0)
			r = write_all(g->files[h->file].fd, g->held_bytes + h->at, h->length,
				      h->offset);
	}
	return r;
}

int held_release(struct group *g)
{
	int r;

	if (!g->power && !g->held_used)
		return g->undo.fd >= 0 ? undo_flush(&g->undo) : 0;
	if (g->state == GROUP_OPEN || g->state == GROUP_TENTATIVE) {
		r = group_equip(g);
		if (r == 0)
			r = sync_undo(g);
		if (r < 0)
			return r;
	}
	r = write_held(g);
	held_drop(g);
	if (r < 0)
		group_fail(g, r);
	return 0;
}

void held_drop(struct group *g)
{
	g->held_used = g->held_count = 0;
	set_holding(g, false);
}
