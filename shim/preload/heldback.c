/* SPDX-License-Identifier: MIT
 *
 * Held back: with power durability no byte is overwritten in place before its pre-image is on the
 * disk, and one sync must do for many. So overwrites of a group wait in memory until their file is
 * read, the memory is full, or the pickle comes; then the undo file is synced once and they go.
 *
 * Only what lies wholly within a file as it was at the group's start is held back: sizes stay true.
 */
#include <errno.h>
#include <string.h>

#include "preload/faults.h"
#include "preload/persist_state.h"
#include "preload/shim.h"

struct held {
	uint32_t file;
	uint32_t length;
	uint64_t offset;
};

_Atomic unsigned persists_holding;

static size_t padded(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

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

bool held_put(struct group *g, unsigned file, uint64_t offset, const struct change *c)
{
	struct held h = {.file = file, .length = (uint32_t)c->length, .offset = offset};
	size_t need = sizeof(h) + padded(c->length);
	unsigned char *at = g->held + g->held_used;
	int i;

	if (c->length > HELD_BYTES / 4 || g->held_used + need > HELD_BYTES)
		return false;
	memcpy(at, &h, sizeof(h));
	at += sizeof(h);
	for (i = 0; i < c->iov_count; i++) {
		memcpy(at, c->iov[i].iov_base, c->iov[i].iov_len);
		at += c->iov[i].iov_len;
	}
	g->held_used += need;
	set_holding(g, true);
	return true;
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
	size_t at = 0;
	int r = 0;

	while (at < g->held_used && r == 0) {
		struct held h;

		memcpy(&h, g->held + at, sizeof(h));
		at += sizeof(h);
		fault_point();
		r = fault_of_held(h.file);
		if (r == 0)
			r = write_all(g->files[h.file].fd, g->held + at, h.length, h.offset);
		at += padded(h.length);
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
	g->held_used = 0;
	set_holding(g, false);
}
