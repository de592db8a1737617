/* SPDX-License-Identifier: MIT
 *
 * What a group has: memory, its undo file, descriptors of its segment's files, and pages of them
 * that were read lately.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "preload/base/shim.h"
#include "preload/persist/segment_header.h"
#include "preload/persist/state.h"

#define PAGE 4096u
#define WINDOW (UNDO_LENGTH_MAX + 2 * PAGE)

static uint64_t grains_of(const struct group *g, unsigned file)
{
	int64_t size = g->header.files[file].size;

	return size > 0 ? ((uint64_t)size + UNDO_GRAIN - 1) / UNDO_GRAIN : 0;
}

int group_make_memory(struct group *g)
{
	size_t held = g->power ? HELD_BYTES + HELD_PIECES * sizeof(struct held) : 0;
	const size_t announced = ANNOUNCED * sizeof(struct undo_becomes);
	const size_t windows = UNDO_FILES * WINDOW;
	size_t size = UNDO_BUFFER + UNDO_LENGTH_MAX + announced + windows + held;
	unsigned i;

	if (g->memory)
		return 0;
	for (i = 0; i < UNDO_FILES; i++)
		size += (grains_of(g, i) + 63) / 64 * 8;
	g->memory = sys_mmap(size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_map_failed(g->memory)) {
		g->memory = NULL;
		return -ENOMEM;
	}
	g->memory_size = size;
	g->undo.buffer = g->memory;
	g->old = g->memory + UNDO_BUFFER;
	g->announced = (struct undo_becomes *)(void *)(g->old + UNDO_LENGTH_MAX);
	for (i = 0; i < UNDO_FILES; i++)
		g->files[i].window = g->old + UNDO_LENGTH_MAX + announced + i * WINDOW;
	g->withheld_bytes = g->old + UNDO_LENGTH_MAX + announced + windows;
	g->held = (struct held *)(void *)(g->withheld_bytes + HELD_BYTES);
	size = UNDO_BUFFER + UNDO_LENGTH_MAX + announced + windows + held;
	for (i = 0; i < UNDO_FILES; i++) {
		g->files[i].saved = (uint64_t *)(void *)(g->memory + size);
		size += (grains_of(g, i) + 63) / 64 * 8;
	}
	return 0;
}

int group_undo_folder(const struct group *g)
{
	return protection_folder(&protections[g->protection], UNDO_DIR);
}

int group_open_undo(const struct group *g)
{
	int fd, undofd = group_undo_folder(g);
	char name[UNDO_NAME_MAX];

	if (undofd < 0)
		return undofd;
	undo_name(name, &g->header, UNDO_SUFFIX);
	fd = sys_openat(undofd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	sys_close(undofd);
	return fd;
}

int group_equip(struct group *g)
{
	int fd, r = group_make_memory(g);

	if (r < 0 || g->undo.fd >= 0)
		return r;
	fd = group_open_undo(g);
	if (fd < 0)
		return fd;
	fd = hidden_adopt(fd, &g->undo.fd);
	return fd < 0 ? fd : 0;
}

/* "<segment>/<file>", from the data directory. */
void group_file_path(char *out, const struct group *g, unsigned file)
{
	strcpy(out, g->header.segment);
	strcat(out, "/");
	strcat(out, undo_file_names[file]);
}

bool group_elements(const struct group *g, uint64_t *elements)
{
	char path[sizeof(g->header.segment) + 32];
	struct segment_header h;

	group_file_path(path, g, 0); /* header.bin */
	if (!segment_header_read(protections[g->protection].root_fd, path, &h))
		return false;
	*elements = h.count;
	return true;
}

uint32_t group_file_name(const struct group *g, unsigned file)
{
	char path[sizeof(g->header.segment) + 32];

	group_file_path(path, g, file);
	return name_intern(g->protection, path, strlen(path));
}

int group_open_in(const struct group *g, unsigned file, int flags)
{
	char path[sizeof(g->header.segment) + 32];

	group_file_path(path, g, file);
	return sys_openat(protections[g->protection].root_fd, path, flags | O_CLOEXEC | O_NOFOLLOW,
			  0);
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
	fd = group_open_in(g, file, O_RDWR);
	f->readonly = fd == -EACCES || fd == -EPERM;
	if (f->readonly) /* made immutable, or given to somebody else: saving needs no more */
		fd = group_open_in(g, file, O_RDONLY);
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

/* ---- what is in the files ---- */

ssize_t window_get(struct group *g, unsigned file, uint64_t from, uint64_t to,
		   const unsigned char **out)
{
	uint64_t size = (uint64_t)g->header.files[file].size, end, have;
	struct group_file *f = &g->files[file];

	if (from < f->window_at || to > f->window_at + f->window_length) {
		ssize_t got;

		f->window_at = from / PAGE * PAGE;
		end = (to + PAGE - 1) / PAGE * PAGE;
		end = end < size ? end : size;
		got = sys_pread_all(f->fd, f->window, end - f->window_at, f->window_at);
		f->window_length = got < 0 ? 0 : (uint64_t)got;
		if (got < 0)
			return got;
	}
	*out = f->window + (from - f->window_at);
	end = f->window_at + f->window_length;
	have = end > from ? end - from : 0;
	return (ssize_t)(have < to - from ? have : to - from);
}

void window_drop(struct group *g, unsigned file)
{
	g->files[file].window_length = 0;
}

void window_write(struct group *g, unsigned file, const struct change *c)
{
	struct group_file *f = &g->files[file];
	bool plain =
	    c->op == OP_WRITE || c->op == OP_PWRITE || c->op == OP_WRITEV || c->op == OP_PWRITEV;
	uint64_t at = (uint64_t)c->offset, end = f->window_at + f->window_length, from, to;

	if (!f->window_length)
		return;
	if (!plain || !brings_bytes(c) || c->offset < 0 || f->cut ||
	    (c->slot.writable & SLOT_APPEND)) {
		window_drop(g, file);
		return;
	}
	from = at > f->window_at ? at : f->window_at;
	to = c->length < end && at < end - c->length ? at + c->length : end;
	if (from < to && at < end)
		withheld_take_bytes(c, from - at, f->window + (from - f->window_at), to - from);
}
