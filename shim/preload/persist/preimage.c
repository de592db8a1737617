/* SPDX-License-Identifier: MIT
 *
 * Pre-images: what a persist changes is saved first, each grain once. hnswlib writes whole elements
 * for the sake of some links in them: grains that come out as they are now cost nothing.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "preload/base/shim.h"
#include "preload/persist/state.h"
#include "preload/pin/pins.h"
#include "preload/place/faults.h"

/* ---- grains ---- */

static void mark_saved(struct group_file *f, uint64_t first, uint64_t end)
{
	for (; first < end; first++)
		f->saved[first / 64] |= UINT64_C(1) << (first % 64);
}

/* The first of [at, end) that is not saved, or end. */
static uint64_t next_unsaved(const struct group_file *f, uint64_t at, uint64_t end)
{
	while (at < end && grain_is_saved(f, at))
		at = f->saved[at / 64] == UINT64_MAX ? (at | 63) + 1 : at + 1;
	return at < end ? at : end;
}

/* All of [at, end), read and put into the undo file. */
static int save_all(struct group *g, unsigned file, uint64_t at, uint64_t end)
{
	struct group_file *f = &g->files[file];
	uint64_t size = (uint64_t)g->header.files[file].size;

	while ((at = next_unsaved(f, at, end)) < end) {
		uint64_t to = at + 1, bytes;
		int r;

		while (to < end && to - at < UNDO_LENGTH_MAX / UNDO_GRAIN && !grain_is_saved(f, to))
			to++;
		bytes = (to - at) * UNDO_GRAIN;
		if (bytes > size - at * UNDO_GRAIN)
			bytes = size - at * UNDO_GRAIN;
		r = undo_save(&g->undo, file, f->fd, at * UNDO_GRAIN, (uint32_t)bytes);
		if (r < 0)
			return r;
		mark_saved(f, at, to);
		g->undo_synced = false;
		at = to;
	}
	return 0;
}

/* Will n bytes at `offset` that are `old` now be others after the write? */
static bool alters(const struct change *c, uint64_t offset, const unsigned char *old, uint64_t n)
{
	uint64_t at = (uint64_t)c->offset; /* of the vector's element */
	int i;

	if (offset < at) {
		uint64_t before = at - offset < n ? at - offset : n;

		offset += before;
		old += before;
		n -= before;
	}
	for (i = 0; i < c->iov_count && n; i++) {
		uint64_t length = c->iov[i].iov_len;

		if (offset < at + length) {
			uint64_t in = offset - at, part = length - in < n ? length - in : n;

			if (memcmp((const char *)c->iov[i].iov_base + in, old, part) != 0)
				return true;
			offset += part;
			old += part;
			n -= part;
		}
		at += length;
	}
	return false;
}

/* Of [at, end), of which `have` bytes are in `old`, what the write alters. */
static int save_altered(struct group *g, unsigned file, uint64_t at, uint64_t end,
			const unsigned char *old, uint64_t have, const struct change *c)
{
	struct group_file *f = &g->files[file];
	uint64_t base = at * UNDO_GRAIN, to;
	int r = 0;

	for (; at < end && r == 0; at = to) {
		uint64_t from = at * UNDO_GRAIN - base, n = 0;

		for (to = at; to < end && !grain_is_saved(f, to); to++) {
			uint64_t in = to * UNDO_GRAIN - base;
			uint64_t size = in >= have		 ? 0
					: have - in < UNDO_GRAIN ? have - in
								 : UNDO_GRAIN;

			if (!alters(c, base + in, old + in, size))
				break;
			n += size;
		}
		if (n)
			r = undo_save_bytes(&g->undo, file, old + from, base + from, (uint32_t)n);
		if (r == 0 && n) {
			mark_saved(f, at, to);
			g->undo_synced = false;
		}
		to = to > at ? to : at + 1;
	}
	return r;
}

/* As save_all(), but for what the write leaves as it is. What is not saved is on the disk as it was
 * at the group's start: it may be compared there. */
static int save_some(struct group *g, unsigned file, uint64_t at, uint64_t end,
		     const struct change *c)
{
	struct group_file *f = &g->files[file];
	uint64_t size = (uint64_t)g->header.files[file].size;

	while ((at = next_unsaved(f, at, end)) < end) {
		uint64_t to = end - at < UNDO_LENGTH_MAX / UNDO_GRAIN
				  ? end
				  : at + UNDO_LENGTH_MAX / UNDO_GRAIN;
		uint64_t from = at * UNDO_GRAIN;
		uint64_t last = to * UNDO_GRAIN < size ? to * UNDO_GRAIN : size;
		const unsigned char *old = NULL;
		ssize_t n = window_get(g, file, from, last, &old);
		int r = n < 0 ? (int)n : save_altered(g, file, at, to, old, (uint64_t)n, c);

		if (r < 0)
			return r;
		at = to;
	}
	return 0;
}

/* The grain behind the range, as far as the file went at the group's start. */
static uint64_t end_of(const struct group *g, unsigned file, uint64_t offset, uint64_t length)
{
	uint64_t size = (uint64_t)g->header.files[file].size;
	uint64_t end = length > size - offset ? size : offset + length;

	return (end + UNDO_GRAIN - 1) / UNDO_GRAIN;
}

int preimage_save(struct group *g, unsigned file, int hostfd, uint64_t offset, uint64_t length,
		  const struct change *write)
{
	int64_t size = g->header.files[file].size;
	struct group_file *f = &g->files[file];
	uint64_t first = offset / UNDO_GRAIN, end;
	int r;

	if (size <= 0 || f->moved || offset >= (uint64_t)size || !length)
		return 0;
	r = group_equip(g);
	if (r == 0)
		r = group_open_file(g, file, hostfd);
	if (r < 0)
		return f->foreign ? 0 : r;
	end = end_of(g, file, offset, length);
	return write ? save_some(g, file, first, end, write) : save_all(g, file, first, end);
}

bool preimage_has(const struct group *g, unsigned file, uint64_t offset, uint64_t length)
{
	uint64_t at = offset / UNDO_GRAIN, end = length ? end_of(g, file, offset, length) : at;

	while (at < end && !grain_is_saved(&g->files[file], at))
		at++;
	return at < end;
}

/* ---- whole files ---- */

/* Descriptors that the host has on the file would be left with the old inode. */
static bool is_open_elsewhere(const struct group *g, unsigned file)
{
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.protection == g->protection && role_in_segment(s.role) &&
		    file_index(s) == file && name_get(s.name)->directory == g->directory)
			return true;
	}
	return false;
}

static bool has_attributes(int fd)
{
	return SYS3(SYS_flistxattr, fd, NULL, 0) > 0;
}

/* An empty file like the old one. Its descriptor or -errno. */
static int make_fresh(int undofd, const char *fresh, const struct stat *old)
{
	int fd =
	    sys_openat(undofd, fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return fd;
	r = sys_chown_like(fd, old);
	if (r == 0)
		r = (int)SYS2(SYS_fchmod, fd, old->st_mode & 07777);
	if (r < 0)
		sys_unlinkat(undofd, fresh, 0);
	sys_close(fd);
	return r;
}

/* The old inode gets a second name in undo/. */
static int link_aside(const struct group *g, unsigned file, int undofd, const char *moved)
{
	int rootfd = protections[g->protection].root_fd, r;
	char path[sizeof(g->header.segment) + 32];
	uint32_t name = group_file_name(g, file);
	uint64_t pinned = pin_save(g->protection, name, 0, 0); /* a link changes its change time */

	group_file_path(path, g, file);
	r = sys_linkat(rootfd, path, undofd, moved);
	if (r == -EEXIST) { /* of an open that failed */
		sys_unlinkat(undofd, moved, 0);
		r = sys_linkat(rootfd, path, undofd, moved);
	}
	pin_saved(g->protection, name, pinned);
	return r;
}

/*
 * The old inode is linked aside, the undo file says so, both reach the disk together with all that
 * was held back; then a new inode takes its place. 0, or -errno and all is as before.
 */
static int exchange_in(struct group *g, unsigned file, int undofd, const struct stat *old,
		       bool replace)
{
	int r;
	char moved[UNDO_NAME_MAX], fresh[UNDO_NAME_MAX], path[sizeof(g->header.segment) + 32];
	uint32_t name = group_file_name(g, file);

	undo_moved_name(moved, &g->header, file);
	strcpy(fresh, moved);
	memcpy(fresh + strlen(fresh) - 5, "fresh", 5);
	r = replace ? make_fresh(undofd, fresh, old) : 0;
	fault_point();
	if (r == 0)
		r = link_aside(g, file, undofd, moved);
	fault_point();
	if (r == 0) {
		g->undo_synced = g->undo_known = false;
		r = undo_put(&g->undo, UNDO_MOVED, file, 0);
	}
	if (r == 0)
		r = withheld_release(g);
	if (r == 0 && replace && g->state == GROUP_OPEN) {
		/* Once it is replaced, nobody finds it by its name. Whoever pins sees its second
		 * one, or has set the epoch by now. */
		uint64_t pinned = pin_save(g->protection, name, 0, UINT64_MAX);

		group_file_path(path, g, file);
		fault_point();
		r = sys_renameat(undofd, fresh, protections[g->protection].root_fd, path);
		pin_saved(g->protection, name, pinned);
	}
	if (r < 0 || g->state != GROUP_OPEN) {
		sys_unlinkat(undofd, moved, 0);
		if (replace)
			sys_unlinkat(undofd, fresh, 0);
	}
	return r;
}

static int exchange(struct group *g, unsigned file, const struct stat *old, bool replace)
{
	int r, undofd = group_undo_folder(g);

	if (undofd < 0)
		return undofd;
	r = exchange_in(g, file, undofd, old, replace);
	sys_close(undofd);
	return r;
}

/* True: it may be linked aside, as far as can be told before. */
static bool can_move(const struct group *g, unsigned file, const struct stat *st)
{
	/* A second name in pins/ is no name of the host's: that inode must not be emptied. */
	bool alone =
	    st->st_nlink == 1 || (st->st_nlink == 2 && pins_have(g->protection, st->st_ino));

	return alone && S_ISREG(st->st_mode) && !has_attributes(g->files[file].fd) &&
	       !is_open_elsewhere(g, file);
}

int preimage_aside(struct group *g, unsigned file, bool replace)
{
	struct group_file *f = &g->files[file];
	int64_t size = g->header.files[file].size;
	struct stat st;
	int r;

	r = group_equip(g);
	if (r == 0)
		r = replace ? announce_length(g, file, 0)
			    : announce_unknown(g, file, 0, UINT64_MAX);
	if (r < 0 || size <= 0 || f->moved)
		return r;
	r = group_open_file(g, file, -1);
	if (r == 0)
		r = sys_fstat(f->fd, &st);
	if (r < 0)
		return r;
	if (can_move(g, file, &st) && exchange(g, file, &st, replace) == 0) {
		if (g->state == GROUP_OPEN) {
			f->moved = true;
			hidden_release(&f->fd);
		}
		return 0;
	}
	r = preimage_save(g, file, -1, 0, (uint64_t)size, NULL);
	return r == 0 ? withheld_release(g) : r;
}

void preimage_aside_undo(struct group *g, unsigned file)
{
	char moved[UNDO_NAME_MAX], path[sizeof(g->header.segment) + 32];
	int undofd = g->files[file].moved ? group_undo_folder(g) : -1;

	if (undofd < 0)
		return;
	undo_moved_name(moved, &g->header, file);
	group_file_path(path, g, file);
	if (sys_renameat(undofd, moved, protections[g->protection].root_fd, path) == 0) {
		sys_unlinkat(undofd, moved, 0); /* it had both names */
		g->files[file].moved = false;
	}
	sys_close(undofd);
}
