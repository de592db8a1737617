/* SPDX-License-Identifier: MIT
 *
 * Pre-images: what a persist overwrites is saved first, each block once.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "preload/faults.h"
#include "preload/persist_state.h"
#include "preload/shim.h"

static uint64_t blocks_of(const struct group *g, unsigned file)
{
	int64_t size = g->header.files[file].size;

	return size > 0 ? ((uint64_t)size + UNDO_BLOCK - 1) / UNDO_BLOCK : 0;
}

static int make_memory(struct group *g)
{
	size_t held = g->power ? HELD_BYTES + HELD_PIECES * sizeof(struct held) : 0;
	size_t size = UNDO_BUFFER + held;
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++)
		size += (blocks_of(g, i) + 63) / 64 * 8;
	g->memory = sys_mmap(size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_map_failed(g->memory)) {
		g->memory = NULL;
		return -ENOMEM;
	}
	g->memory_size = size;
	g->undo.buffer = g->memory;
	g->held_bytes = g->memory + UNDO_BUFFER;
	g->held = (struct held *)(void *)(g->held_bytes + HELD_BYTES);
	size = UNDO_BUFFER + held;
	for (i = 0; i < UNDO_FILES; i++) {
		g->files[i].saved = (uint64_t *)(void *)(g->memory + size);
		size += (blocks_of(g, i) + 63) / 64 * 8;
	}
	return 0;
}

int group_equip(struct group *g)
{
	char name[UNDO_NAME_MAX];
	int fd;

	if (!g->memory) {
		int r = make_memory(g);

		if (r < 0)
			return r;
	}
	if (g->undo.fd >= 0)
		return 0;
	undo_name(name, &g->header, UNDO_SUFFIX);
	fd = sys_openat(persist_stores[g->area].undo_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd;
	fd = hidden_adopt(fd, &g->undo.fd);
	return fd < 0 ? fd : 0;
}

static int open_in_segment(const struct group *g, unsigned file, int flags, mode_t mode)
{
	char path[sizeof(g->header.segment) + 32];
	size_t n = strlen(g->header.segment);

	memcpy(path, g->header.segment, n);
	path[n] = '/';
	strcpy(path + n + 1, undo_file_names[file]);
	return sys_openat(areas[g->area].root_fd, path, flags | O_CLOEXEC | O_NOFOLLOW, mode);
}

int group_open_file(struct group *g, unsigned file, int hostfd)
{
	struct group_file *f = &g->files[file];
	struct stat ours, theirs;
	int fd;

	if (f->foreign)
		return -ENOENT;
	if (f->fd >= 0)
		return 0;
	fd = open_in_segment(g, file, O_RDWR, 0);
	if (fd < 0)
		return fd;
	if (hostfd >= 0 && sys_fstat(fd, &ours) == 0 && sys_fstat(hostfd, &theirs) == 0 &&
	    (ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev)) {
		f->foreign = true;
		sys_close(fd);
		return -ENOENT;
	}
	fd = hidden_adopt(fd, &f->fd);
	return fd < 0 ? fd : 0;
}

/* ---- blocks ---- */

static bool is_saved(const struct group_file *f, uint64_t block)
{
	return f->saved[block / 64] >> (block % 64) & 1;
}

static int save_blocks(struct group *g, unsigned file, uint64_t first, uint64_t last)
{
	struct group_file *f = &g->files[file];
	uint64_t size = (uint64_t)g->header.files[file].size, at = first;

	while (at <= last) {
		uint64_t end, bytes, block;
		int r;

		if (is_saved(f, at)) {
			at++;
			continue;
		}
		for (end = at + 1; end <= last && !is_saved(f, end); end++)
			if (end - at == UNDO_LENGTH_MAX / UNDO_BLOCK)
				break;
		bytes = (end - at) * UNDO_BLOCK;
		if (bytes > size - at * UNDO_BLOCK)
			bytes = size - at * UNDO_BLOCK;
		r = undo_save(&g->undo, file, f->fd, at * UNDO_BLOCK, (uint32_t)bytes);
		if (r < 0)
			return r;
		for (block = at; block < end; block++)
			f->saved[block / 64] |= UINT64_C(1) << (block % 64);
		g->undo_synced = false;
		at = end;
	}
	return 0;
}

int preimage_save(struct group *g, unsigned file, int hostfd, uint64_t offset, uint64_t length,
		  bool now)
{
	int64_t size = g->header.files[file].size;
	struct group_file *f = &g->files[file];
	uint64_t end;
	int r;

	if (size <= 0 || f->moved || offset >= (uint64_t)size || !length)
		return 0;
	end = length > (uint64_t)size - offset ? (uint64_t)size : offset + length;
	r = group_equip(g);
	if (r == 0)
		r = group_open_file(g, file, hostfd);
	if (r < 0)
		return f->foreign ? 0 : r;
	r = save_blocks(g, file, offset / UNDO_BLOCK, (end - 1) / UNDO_BLOCK);
	return r == 0 && now ? undo_flush(&g->undo) : r;
}

/* ---- whole files ---- */

/* Descriptors that the host has on the file would be left with the old inode. */
static bool is_open_elsewhere(const struct group *g, unsigned file)
{
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.area == g->area && role_in_segment(s.role) && file_index(s) == file &&
		    name_get(s.name)->directory == g->directory)
			return true;
	}
	return false;
}

static bool has_attributes(int fd)
{
	return SYS3(SYS_flistxattr, fd, NULL, 0) > 0;
}

/* An empty file like the old one. Its descriptor or -errno. */
static int make_fresh(const struct group *g, const char *fresh, const struct stat *old)
{
	int undofd = persist_stores[g->area].undo_fd, r;
	int fd =
	    sys_openat(undofd, fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;

	if (fd < 0)
		return fd;
	r = sys_fstat(fd, &st);
	if (r == 0 && (st.st_uid != old->st_uid || st.st_gid != old->st_gid))
		r = (int)SYS3(SYS_fchown, fd, old->st_uid, old->st_gid);
	if (r == 0)
		r = (int)SYS2(SYS_fchmod, fd, old->st_mode & 07777);
	if (r < 0)
		sys_unlinkat(undofd, fresh, 0);
	sys_close(fd);
	return r;
}

/* "<segment>/<file>", from the data directory. */
static void file_path(char *out, const struct group *g, unsigned file)
{
	strcpy(out, g->header.segment);
	strcat(out, "/");
	strcat(out, undo_file_names[file]);
}

/* The old inode gets a second name in undo/. */
static int link_aside(const struct group *g, unsigned file, const char *moved)
{
	int undofd = persist_stores[g->area].undo_fd, rootfd = areas[g->area].root_fd, r;
	char path[sizeof(g->header.segment) + 32];

	file_path(path, g, file);
	r = (int)SYS5(SYS_linkat, rootfd, path, undofd, moved, 0);
	if (r == -EEXIST) { /* of an open that failed */
		sys_unlinkat(undofd, moved, 0);
		r = (int)SYS5(SYS_linkat, rootfd, path, undofd, moved, 0);
	}
	return r;
}

/*
 * The old inode is linked aside, the undo file says so, both reach the disk together with all that
 * was held back; then a new inode takes its place. 0, or -errno and all is as before.
 */
static int exchange(struct group *g, unsigned file, const struct stat *old, bool replace)
{
	int undofd = persist_stores[g->area].undo_fd, r;
	char moved[UNDO_NAME_MAX], fresh[UNDO_NAME_MAX], path[sizeof(g->header.segment) + 32];

	undo_moved_name(moved, &g->header, file);
	strcpy(fresh, moved);
	memcpy(fresh + strlen(fresh) - 5, "fresh", 5);
	r = replace ? make_fresh(g, fresh, old) : 0;
	fault_point();
	if (r == 0)
		r = link_aside(g, file, moved);
	fault_point();
	if (r == 0) {
		g->undo_synced = g->undo_known = false;
		r = undo_put(&g->undo, UNDO_MOVED, file, 0);
	}
	if (r == 0)
		r = held_release(g);
	if (r == 0 && replace && g->state == GROUP_OPEN) {
		file_path(path, g, file);
		fault_point();
		r = sys_renameat(undofd, fresh, areas[g->area].root_fd, path);
	}
	if (r < 0 || g->state != GROUP_OPEN) {
		sys_unlinkat(undofd, moved, 0);
		if (replace)
			sys_unlinkat(undofd, fresh, 0);
	}
	return r;
}

/* True: it may be linked aside, as far as can be told before. */
static bool can_move(const struct group *g, unsigned file, const struct stat *st)
{
	return st->st_nlink == 1 && S_ISREG(st->st_mode) && !has_attributes(g->files[file].fd) &&
	       !is_open_elsewhere(g, file);
}

int preimage_aside(struct group *g, unsigned file, bool replace)
{
	struct group_file *f = &g->files[file];
	int64_t size = g->header.files[file].size;
	struct stat st;
	int r;

	if (size <= 0 || f->moved)
		return 0;
	r = group_equip(g);
	if (r == 0)
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
	r = preimage_save(g, file, -1, 0, (uint64_t)size, true);
	return r == 0 ? held_release(g) : r;
}

void preimage_aside_undo(struct group *g, unsigned file)
{
	char moved[UNDO_NAME_MAX], path[sizeof(g->header.segment) + 32];

	if (!g->files[file].moved)
		return;
	undo_moved_name(moved, &g->header, file);
	file_path(path, g, file);
	if (sys_renameat(persist_stores[g->area].undo_fd, moved, areas[g->area].root_fd, path) < 0)
		return;
	sys_unlinkat(persist_stores[g->area].undo_fd, moved, 0); /* it had both names */
	g->files[file].moved = false;
}
