/* SPDX-License-Identifier: MIT */
#include "preload/refuse/intent.h"

#include <string.h>

#include "core/sqlite/wal.h"
#include "preload/base/shim.h"

static enum intent intent_of_open(const struct change *c)
{
	struct stat st;

	if (c->slot.role == ROLE_SHM || c->slot.role == ROLE_DIRECTORY)
		return READS; /* readers in WAL mode share their index through -shm */
	if (c->flags & O_TRUNC)
		return WRITES;
	if ((c->flags & O_CREAT) &&
	    sys_fstatat(protections[c->slot.protection].root_fd, c->place->relative, &st,
			AT_SYMLINK_NOFOLLOW) == -ENOENT)
		return WRITES;
	return (c->flags & O_ACCMODE) == O_RDONLY ? READS : MAY_WRITE;
}

static enum intent intent_of_lock(const struct change *c)
{
	bool exclusive = (c->arg & 0xff) == OPLOG_LOCK_WRITE;

	if (c->slot.role == ROLE_DATABASE)
		return exclusive ? WRITES : READS;
	return c->slot.role == ROLE_SHM && exclusive && c->offset == SQLITE_WAL_WRITE_BYTE ? WRITES
											   : READS;
}

bool intent_opens(enum oplog_op op)
{
	return op == OP_OPEN || op == OP_OPENAT || op == OP_CREAT;
}

/* Chroma's own, or something that takes them away; and not a neighbour's file. */
static bool concerns_chroma(const struct change *c, union slot s)
{
	const struct name *n = name_get(s.name);

	return (s.role != ROLE_OTHER && s.role != ROLE_DIRECTORY) || name_is_segment(n) ||
	       (change_renames(c) && strcmp(name_text(n), ".") == 0);
}

enum intent intent_of(const struct change *c)
{
	if (!concerns_chroma(c, c->slot) && !(c->target && concerns_chroma(c, c->target->slot)))
		return READS;
	switch (c->op) {
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
		return intent_of_open(c);
	case OP_LOCK:
		return intent_of_lock(c);
	case OP_CHMOD:
	case OP_CHOWN:
	case OP_UTIME:
	case OP_SETXATTR:
	case OP_REMOVEXATTR:
	case OP_IOCTL:
		return READS; /* no bytes, no names */
	default:
		return c->slot.role == ROLE_SHM ? READS : WRITES;
	}
}
