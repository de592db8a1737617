/* SPDX-License-Identifier: MIT
 *
 * The life of persist groups: which change opens one, what it saves, and what closes it.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "preload/base/shim.h"
#include "preload/persist/segment_header.h"
#include "preload/persist/state.h"
#include "preload/pin/pins.h"
#include "preload/place/loads.h"

/* ---- what a change means ---- */

enum meaning {
	NOTHING,
	WRITES, /* a range */
	CUTS,	/* from a length on */
	OPENS,	/* and creates, empties, or begins a new pickle */
	REMOVES,
};

static bool opens(const struct change *c)
{
	struct stat st;

	if (c->flags & O_TRUNC)
		return true;
	if (c->slot.role == ROLE_PICKLE && (c->flags & O_ACCMODE) != O_RDONLY)
		return true;
	return (c->flags & O_CREAT) && c->place &&
	       sys_fstatat(protections[c->slot.protection].root_fd, c->place->relative, &st, 0) ==
		   -ENOENT;
}

static enum meaning meaning_of(const struct change *c)
{
	if (change_writes(c))
		return WRITES;
	switch (c->op) {
	case OP_FTRUNCATE:
	case OP_TRUNCATE:
		return CUTS;
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
		return opens(c) ? OPENS : NOTHING;
	case OP_UNLINK:
	case OP_UNLINKAT:
		return REMOVES;
	default:
		return NOTHING;
	}
}

static enum change_verdict answer(struct change *c, int64_t result, int error)
{
	c->result = result;
	if (result < 0)
		errno = error;
	return CHANGE_ANSWERED;
}

/* After whatever was saved and let go: is the call to be made? */
static enum change_verdict go_on(struct group *g, struct change *c, int r)
{
	if (r < 0)
		group_unprotect(g, r);
	return g->state == GROUP_FROZEN ? answer(c, -1, g->error) : CHANGE_GO;
}

/* ---- writes ---- */

/* Once the pickle is open nothing waits any more: an error that came at its close would be heard by
 * nobody. */
static bool may_hold(const struct group *g, const struct change *c, int64_t size)
{
	return g->power && !g->pickle_opened && c->slot.role != ROLE_PICKLE && brings_bytes(c) &&
	       !g->files[file_index(c->slot)].cut && c->op != OP_PWRITEV &&
	       (c->slot.writable & SLOT_WRITABLE) && c->length &&
	       c->length <= (uint64_t)(size - c->offset);
}

static enum change_verdict hold(struct group *g, struct change *c, unsigned file)
{
	int r = 0;

	if (!withheld_put(g, file, c)) {
		r = withheld_release(g);
		if (r < 0 || g->state != GROUP_OPEN || !withheld_put(g, file, c))
			return go_on(g, c, r);
	}
	if (c->op != OP_PWRITE)
		sys_lseek(c->fd, (off_t)c->length, SEEK_CUR);
	return answer(c, (int64_t)c->length, 0);
}

static enum change_verdict save_write(struct group *g, struct change *c)
{
	unsigned file = file_index(c->slot);
	int64_t size = g->header.files[file].size;
	bool appends =
	    (c->slot.writable & SLOT_APPEND) && (c->op == OP_WRITE || c->op == OP_WRITEV);
	uint64_t length = c->length;
	int r;

	r = announce_reach(g, c);
	if (r < 0)
		return go_on(g, c, r);
	if (g->files[file].cut && !g->files[file].emptied) {
		r = announce_end(g, file, c);
		if (r == 0)
			r = withheld_release(g);
		if (r < 0 || g->state != GROUP_OPEN)
			return go_on(g, c, r);
	}
	if (c->op == OP_FALLOCATE) {
		if (!(c->arg & ~(uint64_t)FALLOC_FL_KEEP_SIZE))
			return CHANGE_GO;
		length = UINT64_MAX; /* what is behind may move */
	}
	if ((c->op == OP_CLONE_RANGE || c->op == OP_IOCTL) && !length)
		length = UINT64_MAX;
	if (g->files[file].emptied)
		return go_on(g, c, announce_written(g, file, c));
	if (appends || c->offset < 0 || c->offset >= size || g->files[file].moved)
		return CHANGE_GO;
	if (may_hold(g, c, size)) {
		r = preimage_save(g, file, c->fd, (uint64_t)c->offset, length, c);
		if (r == 0)
			r = announce_write(g, file, c);
		if (r == 0 && !g->files[file].foreign && !g->files[file].readonly)
			return hold(g, c, file);
		if (r == 0)
			r = withheld_release(g);
		return go_on(g, c, r);
	}
	r = preimage_save(g, file, c->fd, (uint64_t)c->offset, length, brings_bytes(c) ? c : NULL);
	/* What it leaves as it is needs no undo data, and nothing of it is held back. */
	if (r == 0 && preimage_has(g, file, (uint64_t)c->offset, length)) {
		r = brings_bytes(c) ? announce_write(g, file, c)
				    : announce_unknown(g, file, (uint64_t)c->offset, length);
		if (r == 0)
			r = withheld_release(g);
	}
	return go_on(g, c, r);
}

static enum change_verdict write_begin(struct group *g, struct change *c)
{
	enum change_verdict verdict = save_write(g, c);

	if (verdict == CHANGE_GO)
		window_write(g, file_index(c->slot), c);
	return verdict;
}

static enum change_verdict cut_begin(struct group *g, struct change *c)
{
	unsigned file = file_index(c->slot);
	int r = preimage_save(g, file, c->fd, c->length, UINT64_MAX, NULL);

	window_drop(g, file);
	if (r == 0)
		r = announce_reach(g, c);
	if (r == 0)
		r = announce_length(g, file, c->length);
	if (r == 0)
		r = withheld_release(g);
	if (r == 0 && g->state == GROUP_OPEN) {
		g->files[file].cut |= (int64_t)c->length < g->header.files[file].size;
		g->files[file].emptied |= c->length == 0;
	}
	return go_on(g, c, r);
}

/* ---- opens ---- */

static bool opens_pickle(const struct change *c)
{
	return c->slot.role == ROLE_PICKLE && (c->flags & O_ACCMODE) != O_RDONLY;
}

static enum change_verdict open_begin(struct group *g, struct change *c)
{
	unsigned file = file_index(c->slot);
	bool exists = g->header.files[file].size >= 0;
	int r = 0;

	if (exists && (c->flags & O_EXCL) && (c->flags & O_CREAT))
		return CHANGE_GO;
	if (opens_pickle(c)) {
		if (!hold_is(&g->loads_kept_out))
			loads_keep_out(&g->loads_kept_out, g->protection, g->directory);
		r = group_expect(g);
	}
	if (r == 0 && (exists ? c->flags & O_TRUNC : opens_pickle(c))) {
		r = preimage_aside(g, file, true);
		window_drop(g, file);
		g->files[file].emptied = true;
		g->files[file].written = 0;
	}
	/* The pickle comes last: what it speaks of must be in its place. It mostly is by now, with
	 * one sync for both. And its open is the last call whose error Chroma heeds. */
	if (r == 0 && g->state == GROUP_OPEN && opens_pickle(c))
		r = withheld_release(g);
	if (r == 0 && g->state == GROUP_OPEN && opens_pickle(c))
		group_write_out(g);
	return go_on(g, c, r);
}

static void open_end(struct group *g, const struct change *c, int64_t ret)
{
	if (ret >= 0) {
		g->changed = true;
		if (opens_pickle(c))
			g->pickle_opened = true;
		return;
	}
	if (g->state != GROUP_OPEN)
		return;
	if (c->flags & O_TRUNC) {
		preimage_aside_undo(g, file_index(c->slot));
		g->files[file_index(c->slot)].emptied = false;
	}
	if (!g->creation)
		return;
	/* Without its pickle what it has made is to be undone when the process ends. */
	if (!g->changed)
		group_abandon(g);
	else if (!g->pickle_opened && opens_pickle(c))
		group_park(g);
}

/* ---- the two hooks ---- */

static enum change_verdict begin(struct group *g, struct change *c, enum meaning meaning)
{
	if (meaning == REMOVES) {
		if (g->state != GROUP_FROZEN)
			group_abandon(g);
		return CHANGE_GO;
	}
	if (g->state == GROUP_FROZEN)
		return answer(c, -1, g->error);
	if (g->state == GROUP_TENTATIVE)
		group_reopen(g);
	if (g->state == GROUP_UNPROTECTED)
		return CHANGE_GO;
	if (meaning == OPENS)
		return open_begin(g, c);
	g->changed = true;
	return meaning == CUTS ? cut_begin(g, c) : write_begin(g, c);
}

/* Its group, locked. NULL: there is none; or there need be none, as its segment is parked. */
static struct group *group_of(unsigned protection, uint32_t directory, bool only_if_any,
			      bool not_if_parked)
{
	struct group *g = group_lock(directory);
	bool parked = !g && group_is_parked(protection, directory);

	if (g || (parked && not_if_parked) || (!parked && only_if_any))
		return g;
	return group_begin(protection, directory);
}

/* A segment that was only created gets elements: its undo file is on the disk before its header
 * says so. */
static void elements_come(const struct change *c, uint32_t directory)
{
	struct segment_header h;

	if (c->slot.role != ROLE_HEADER || !change_writes(c) ||
	    !group_is_parked_unsynced(c->slot.protection, directory))
		return;
	if (!brings_bytes(c) || c->offset != 0 ||
	    !segment_header_parse(c->iov[0].iov_base, c->iov[0].iov_len, &h) || h.count)
		group_sync_parked(c->slot.protection, directory);
}

enum change_verdict persist_change_begin(struct change *c)
{
	int saved = errno;
	enum change_verdict verdict;
	enum meaning meaning;
	struct group *g;

	if (!protections[c->slot.protection].undo_usable || (c->slot.writable & SLOT_INHERITED))
		return CHANGE_GO;
	meaning = meaning_of(c);
	if (meaning == NOTHING)
		return CHANGE_GO;
	elements_come(c, name_get(c->slot.name)->directory);
	g = group_of(c->slot.protection, name_get(c->slot.name)->directory, meaning == REMOVES,
		     meaning != REMOVES && !(meaning == OPENS && opens_pickle(c)));
	if (!g)
		return CHANGE_GO;
	verdict = begin(g, c, meaning);
	if (g->creation && !g->pickle_opened && g->state == GROUP_OPEN &&
	    c->slot.role != ROLE_PICKLE)
		group_park(g);
	group_unlock(g);
	if (verdict == CHANGE_GO || c->result >= 0)
		errno = saved;
	return verdict;
}

/*
 * An error of the disk, not of the caller: what hnswlib wanted in the file is not there. Whoever
 * clones, splices or allocates tries it, and writes if the file system does not know it.
 */
static bool is_failure(const struct change *c, enum meaning meaning, int error)
{
	bool plain = c->op == OP_WRITE || c->op == OP_PWRITE || c->op == OP_WRITEV ||
		     c->op == OP_PWRITEV || meaning == CUTS;

	return plain && error != EINTR && error != EAGAIN && error != EBADF && error != EFAULT &&
	       error != EINVAL && error != ESPIPE && error != EOPNOTSUPP;
}

/*
 * A buffer of Rust's that is dropped swallows the error of its last write, which has the pickle's
 * STOP at its end. Whoever has more to write hears it.
 */
bool persist_is_unheard(const struct change *c)
{
	int i = brings_bytes(c) && c->slot.role == ROLE_PICKLE ? c->iov_count : 0;

	while (--i >= 0)
		if (c->iov[i].iov_len)
			return ((const char *)c->iov[i].iov_base)[c->iov[i].iov_len - 1] == '.';
	return true;
}

static void fail(struct group *g, const struct change *c, int error)
{
	if (g->state != GROUP_OPEN && g->state != GROUP_TENTATIVE)
		return;
	g->heard = !persist_is_unheard(c);
	group_fail(g, error);
}

void persist_change_end(struct change *c, int64_t ret)
{
	int saved = errno;
	enum meaning meaning = meaning_of(c);
	bool in_part = meaning == WRITES && ret != (int64_t)c->length, failed;
	struct group *g;

	/* An open that created the file no longer looks like one. */
	if (c->op == OP_OPEN || c->op == OP_OPENAT || c->op == OP_CREAT)
		meaning = c->flags & (O_CREAT | O_TRUNC | O_ACCMODE) ? OPENS : NOTHING;
	if (meaning == NOTHING || meaning == REMOVES || (ret >= 0 && meaning != OPENS && !in_part))
		return;
	failed = ret < 0 && meaning != OPENS && is_failure(c, meaning, saved);
	g = group_of(c->slot.protection, name_get(c->slot.name)->directory, true, !failed);
	if (!g)
		return;
	if (in_part)
		window_drop(g, file_index(c->slot));
	if (meaning == OPENS)
		open_end(g, c, ret);
	else if (failed)
		fail(g, c, saved);
	group_unlock(g);
	errno = saved;
}

void persist_fail(const struct change *c, int error)
{
	struct group *g = group_lock(name_get(c->slot.name)->directory);
	MAPS_GUARDED;

	if (!g)
		return;
	fail(g, c, error);
	group_unlock(g);
}

/* ---- renames ---- */

/* Everything of a directory that changes its name: its groups know it by the old one. */
static void abandon_below(unsigned protection, uint32_t directory)
{
	struct group *g = group_of(protection, directory, true, false);

	if (!g)
		return;
	if (g->state != GROUP_FROZEN)
		group_abandon(g);
	group_unlock(g);
}

void persist_rename_begin(struct change *c)
{
	int saved = errno, r;
	struct group *g;

	if (!protections[c->slot.protection].undo_usable)
		return;
	if (role_in_segment(c->slot.role) && (!c->target || c->target->slot.name != c->slot.name))
		abandon_below(c->slot.protection, name_get(c->slot.name)->directory);
	else
		abandon_below(c->slot.protection, c->slot.name);
	if (c->target && role_in_segment(c->target->slot.role)) {
		union slot s = c->target->slot;

		g = group_of(s.protection, name_get(s.name)->directory, false, false);
		if (g) {
			r = g->state == GROUP_OPEN ? withheld_release(g) : 0;
			if (r == 0 && g->state == GROUP_OPEN)
				r = preimage_aside(g, file_index(s), false);
			if (r < 0)
				group_unprotect(g, r);
			group_unlock(g);
		}
	}
	errno = saved;
}

/* A pickle that was written elsewhere and is renamed into place is complete, too. */
void persist_rename_end(struct change *c, int64_t ret)
{
	int saved = errno;
	struct group *g;

	if (!c->target || !role_in_segment(c->target->slot.role))
		return;
	g = group_lock(name_get(c->target->slot.name)->directory);
	if (!g)
		return;
	if (ret < 0 && g->state == GROUP_OPEN)
		preimage_aside_undo(g, file_index(c->target->slot));
	else if (ret >= 0 && c->target->slot.role == ROLE_PICKLE)
		group_complete(g);
	else if (ret >= 0 && g->state == GROUP_OPEN && !g->together)
		group_let_go(g); /* it has no descriptor that could be the last to be closed */
	group_unlock(g);
	errno = saved;
}

/* ---- closes and reads ---- */

#define READ_TRIES 8 /* then with the lock held */

static bool is_last(int fd, union slot s)
{
	int other, top = atomic_load(&slots_top);

	for (other = 0; other < top; other++) {
		union slot o = slot_of(other);

		if (other != fd && o.name == s.name && o.role == ROLE_PICKLE &&
		    (o.writable & SLOT_WRITABLE))
			return false;
	}
	return true;
}

void persist_closing_slow(int fd, union slot s)
{
	int saved = errno;
	struct group *g;
	MAPS_GUARDED;

	if (!protections[s.protection].undo_usable || !(s.writable & SLOT_WRITABLE) ||
	    !is_last(fd, s))
		return;
	g = group_lock(name_get(s.name)->directory);
	if (g) {
		if (g->pickle_opened)
			group_complete(g);
		group_unlock(g);
	}
	errno = saved;
}

void persist_reading_slow(union slot s)
{
	int saved = errno, r;
	struct group *g = group_lock(name_get(s.name)->directory);
	MAPS_GUARDED;

	if (!g)
		return;
	r = g->holding ? withheld_release(g) : 0;
	if (r < 0)
		group_unprotect(g, r);
	group_unlock(g);
	errno = saved;
}

void persist_read_end(uint64_t before, int fd, union slot s, int64_t at, void *buf, size_t n)
{
	int saved = errno, tries;
	MAPS_GUARDED;

	for (tries = 0;; tries++) {
		struct group *g = group_lock(name_get(s.name)->directory);
		uint64_t now = atomic_load(&persists_let_go);

		/* What has been let go since then was read as it was before, or not. */
		if (now != before && tries >= READ_TRIES)
			sys_pread_all(fd, buf, n, (uint64_t)at);
		if (now == before || tries >= READ_TRIES) {
			if (g && g->holding)
				withheld_lay_over(g, file_index(s), (uint64_t)at, buf, n);
			if (g)
				group_unlock(g);
			break;
		}
		if (g)
			group_unlock(g);
		before = now;
		sys_pread_all(fd, buf, n, (uint64_t)at);
	}
	errno = saved;
}

void persist_mapping(int fd, union slot s, uint64_t offset, uint64_t length)
{
	struct change c = CHANGE_FD(OP_IOCTL, fd, s, (int64_t)offset, .length = length);
	MAPS_GUARDED;

	if (role_in_segment(s.role))
		persist_change_begin(&c);
	pin_change(&c);
}
