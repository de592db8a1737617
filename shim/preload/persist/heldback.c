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

	return length <= HELD_BYTES / 4 && g->held_used + length <= HELD_BYTES &&
	       g->held_count + pieces <= HELD_PIECES;
}

/* Where the next bytes go: hnswlib goes through its files from start to end, so some lengthen the
 * piece before. */
static struct held *piece_for(struct group *g, unsigned file, uint64_t offset)
{
	struct held *last = g->held_count ? &g->held[g->held_count - 1] : NULL;

	if (last && last->file == file && last->offset + last->length == offset)
		return last;
	last = &g->held[g->held_count++];
	*last = (struct held){.file = file,
			      .offset = offset,
			      .at = (uint32_t)g->held_used,
			      .before = g->files[file].held_last};
	g->files[file].held_last = g->held_count;
	return last;
}

void held_take_bytes(const struct change *c, uint64_t skip, unsigned char *to, uint64_t n)
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

	held_take_bytes(c, from - (uint64_t)c->offset, g->held_bytes + g->held_used, to - from);
	piece->length += (uint32_t)(to - from);
	g->held_used += (uint32_t)(to - from);
	f->held_disorder |= from < f->held_end;
	f->held_end = to;
	set_holding(g, true);
}

bool held_put(struct group *g, unsigned file, const struct change *c)
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
		memcpy((char *)buf + (from - offset), g->held_bytes + h->at + (from - h->offset),
		       to - from);
}

void held_lay_over(const struct group *g, unsigned file, uint64_t offset, void *buf, size_t n)
{
	const struct held *h;
	uint32_t i;

	if (!g->files[file].held_disorder) {
		/* Who goes through a file from start to end reads where it writes: at the last. */
		for (i = g->files[file].held_last; i; i = h->before) {
			h = &g->held[i - 1];
			if (h->offset + h->length <= offset)
				break;
			lay_over(g, h, offset, buf, n);
		}
		return;
	}
	for (i = 0; i < g->held_count; i++)
		if (g->held[i].file == file)
			lay_over(g, &g->held[i], offset, buf, n);
}

static int write_all(int fd, const unsigned char *p, size_t n, uint64_t offset)
{
	while (n) {
		/* The host's write, not one of the shim's own: fault_of_held() is asked. */
		ssize_t done = SYS4(SYS_pwrite64, fd, p, n, offset);

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

/* undo/ and the store may have been made just now: their names have to reach the disk, too. */
static int sync_names(unsigned area)
{
	static const char *const above[] = {".", ".."};
	unsigned i;
	int r = 0;

	for (i = 0; i < 2 && r == 0; i++) {
		int fd = sys_openat(areas[area].store_fd, above[i],
				    O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

		if (fd < 0)
			continue; /* not ours to read */
		r = sys_fsync(fd);
		sys_close(fd);
	}
	return r;
}

static int sync_folder(const struct group *g)
{
	int r, undofd = group_undo_folder(g);

	if (undofd < 0)
		return undofd;
	r = sys_fsync(undofd);
	sys_close(undofd);
	return r;
}

int held_sync_undo(struct group *g)
{
	int r = announce_flush(g);

	if (r == 0)
		r = undo_flush(&g->undo);
	if (r < 0 || !g->power)
		return r;
	if (!g->undo_synced)
		r = sys_fdatasync(g->undo.fd);
	if (r == 0 && !g->undo_known)
		r = sync_folder(g);
	if (r == 0 && !persist_stores[g->area].known)
		r = sync_names(g->area);
	if (r == 0)
		persist_stores[g->area].known = true;
	if (r == 0)
		g->undo_synced = g->undo_known = true;
	return r;
}

static int write_held(struct group *g)
{
	struct pin_writer *writer;
	uint64_t pinned;
	uint32_t i, name;
	int r = 0;

	writer = pin_enter(g->area);
	for (i = 0; i < g->held_count && r == 0; i++) {
		const struct held *h = &g->held[i];

		name = group_file_name(g, h->file);
		pinned = pin_save(g->area, name, h->offset, h->length);
		fault_point();
		r = fault_of_held(h->file);
		window_drop(g, h->file);
		if (r == 0)
			r = write_all(g->files[h->file].fd, g->held_bytes + h->at, h->length,
				      h->offset);
		pin_saved(g->area, name, pinned);
	}
	pin_leave(writer);
	for (i = 0; i < UNDO_FILES && r == 0 && g->power; i++)
		if (g->files[i].held_last)
			sys_start_writing(g->files[i].fd, 0, 0);
	return r;
}

int held_release(struct group *g)
{
	int r;

	if (!g->power && !g->held_used)
		return g->undo.fd >= 0 ? held_sync_undo(g) : 0;
	if (g->state == GROUP_OPEN || g->state == GROUP_TENTATIVE) {
		r = group_equip(g);
		if (r == 0)
			r = held_sync_undo(g);
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
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++) {
		g->files[i].held_end = 0;
		g->files[i].held_last = 0;
		g->files[i].held_disorder = false;
	}
	g->held_used = g->held_count = 0;
	set_holding(g, false);
}
