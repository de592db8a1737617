/* SPDX-License-Identifier: MIT
 *
 * Saving for pins: which change destroys what.
 */
#include <linux/falloc.h>
#include <string.h>

#include "core/undo/undo.h"
#include "preload/base/shim.h"
#include "preload/pin/internal.h"

#define COPY_MAX (UINT64_C(256) << 20) /* of a file that cannot be linked */

static bool is_pinned(union slot s)
{
	return s.role == ROLE_DATABASE || s.role == ROLE_WAL || role_in_segment(s.role);
}

static int save_write(struct change *c)
{
	bool appends = c->slot.writable & SLOT_APPEND;
	uint64_t length = c->length, offset = c->offset < 0 ? 0 : (uint64_t)c->offset;

	if (c->op == OP_FALLOCATE)
		length = c->arg & ~(uint64_t)FALLOC_FL_KEEP_SIZE ? UINT64_MAX : 0;
	else if (appends && (c->op == OP_WRITE || c->op == OP_WRITEV))
		length = 0; /* behind the end */
	else if (c->offset < 0 || ((c->op == OP_CLONE_RANGE || c->op == OP_IOCTL) && !length))
		length = UINT64_MAX;
	return pin_save_range(c->slot.protection, c->slot.name, c->fd, offset, length, &c->pinned);
}

/* Of a file that is there and not emptied nothing changes: what it is by then is not ours. */
static int save_open(struct change *c)
{
	struct stat st;

	if (c->flags & O_TRUNC)
		return pin_save_range(c->slot.protection, c->slot.name, -1, 0, UINT64_MAX,
				      &c->pinned);
	if (c->place && sys_fstatat(protections[c->slot.protection].root_fd, c->place->relative,
				    &st, 0) == -ENOENT)
		return pin_save_range(c->slot.protection, c->slot.name, -1, 0, 0, &c->pinned);
	pin_leave(c->writer);
	c->writer = NULL;
	return 0;
}

/* The file goes, or gets another name: it is kept by a link of our own. */
static int keep(unsigned protection, uint64_t epoch, const char *path)
{
	struct pins p;
	int r = pins_enter(protection, &p);

	if (r < 0)
		return r;
	r = pin_file_keep(&p, epoch, protections[protection].root_fd, path);
	pins_leave(protection, &p);
	return r;
}

static int save_whole(unsigned protection, uint32_t name, uint64_t *pinned)
{
	uint64_t epoch = pins_epoch(&protection_pins[protection]);
	const char *path = name_text(name_get(name));
	struct stat st;
	int r = pin_save_range(protection, name, -1, 0, 0, pinned);

	if (r < 0 || !epoch ||
	    sys_fstatat(protections[protection].root_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return r;
	r = keep(protection, epoch, path);
	if (r < 0 && r != -ENOENT && (uint64_t)st.st_size <= COPY_MAX &&
	    role_in_segment(name_get(name)->role))
		r = pin_save_range(protection, name, -1, 0, UINT64_MAX, pinned);
	return r == -ENOENT ? 0 : r;
}

/* A directory gets another name: so do all in it that may be a segment's. */
static int save_directory(unsigned protection, const char *relative)
{
	char path[PLACE_MAX];
	size_t n = strlen(relative);
	unsigned i;
	int r = 0;

	if (n + sizeof("/index_metadata.pickle") > sizeof(path))
		return 0;
	memcpy(path, relative, n);
	path[n] = '/';
	for (i = 0; i < UNDO_FILES && r == 0; i++) {
		uint64_t pinned = 0;
		uint32_t name;
		struct stat st;

		strcpy(path + n + 1, undo_file_names[i]);
		if (sys_fstatat(protections[protection].root_fd, path, &st, AT_SYMLINK_NOFOLLOW) <
		    0)
			continue;
		name = name_intern(protection, path, strlen(path));
		r = save_whole(protection, name, &pinned);
		if (pinned)
			pin_range_saved(protection, name, pinned);
	}
	return r;
}

static int save_rename(struct change *c)
{
	struct stat st;
	int r = 0;

	if (c->place &&
	    sys_fstatat(protections[c->slot.protection].root_fd, c->place->relative, &st,
			AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISDIR(st.st_mode))
		return save_directory(c->slot.protection, c->place->relative);
	if (is_pinned(c->slot))
		r = save_whole(c->slot.protection, c->slot.name, &c->pinned);
	if (r == 0 && c->target && is_pinned(c->target->slot) &&
	    c->target->slot.name != c->slot.name)
		r = save_whole(c->target->slot.protection, c->target->slot.name, &c->target_pinned);
	return r;
}

static bool removes(const struct change *c)
{
	return c->op == OP_UNLINK || c->op == OP_UNLINKAT;
}

static int save_change(struct change *c)
{
	if (change_writes(c))
		return save_write(c);
	switch (c->op) {
	case OP_FTRUNCATE:
	case OP_TRUNCATE:
		return pin_save_range(c->slot.protection, c->slot.name, c->fd, c->length,
				      UINT64_MAX, &c->pinned);
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
		return save_open(c);
	case OP_UNLINK:
	case OP_UNLINKAT:
		return c->flags & AT_REMOVEDIR
			   ? 0
			   : save_whole(c->slot.protection, c->slot.name, &c->pinned);
	default:
		return 0;
	}
}

bool pin_alters(const struct change *c)
{
	if (!is_pinned(c->slot))
		return false;
	switch (c->op) {
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
		return c->flags & (O_CREAT | O_TRUNC);
	case OP_FTRUNCATE:
	case OP_TRUNCATE:
		return true;
	default:
		return change_writes(c);
	}
}

/* Changes not a byte of the file, but its change time. */
static bool touches(const struct change *c)
{
	switch (c->op) {
	case OP_CHMOD:
	case OP_CHOWN:
	case OP_UTIME:
	case OP_SETXATTR:
	case OP_REMOVEXATTR:
	case OP_LINK:
	case OP_LINKAT:
		return is_pinned(c->slot);
	default:
		return false;
	}
}

void pin_change_slow(struct change *c)
{
	unsigned protection = c->slot.protection;
	int saved = errno;

	if (change_renames(c))
		pin_conclude(protection, save_rename(c));
	else if (pin_alters(c) || (is_pinned(c->slot) && removes(c)))
		pin_conclude(protection, save_change(c));
	else if (touches(c))
		pin_conclude(protection,
			     pin_save_range(protection, c->slot.name, -1, 0, 0, &c->pinned));
	errno = saved;
}

void pin_change_end(struct change *c)
{
	unsigned protection = c->slot.protection;
	uint64_t epoch = pins_epoch(&protection_pins[protection]);
	int saved = errno;

	if (c->pinned)
		pin_range_saved(protection, c->slot.name, c->pinned);
	if (c->target_pinned)
		pin_range_saved(c->target->slot.protection, c->target->slot.name, c->target_pinned);
	if (c->writer && epoch && epoch != c->pinned)
		pin_note_late(protection, c->slot.name, epoch);
	pin_leave(c->writer);
	errno = saved;
}
