/* SPDX-License-Identifier: MIT
 *
 * Changing names: rename, unlink, mkdir, link and their kin.
 */
#include <stdlib.h>
#include <string.h>

#include "preload/call.h"

#include "preload/transactions.h"

/* ---- rename ---- */

static int real_rename(enum oplog_op op, int fromfd, const char *from, int tofd, const char *to,
		       unsigned flags)
{
	if (op == OP_RENAME)
		return real.rename(from, to);
	if (op == OP_RENAMEAT)
		return real.renameat(fromfd, from, tofd, to);
	return real.renameat2(fromfd, from, tofd, to, flags);
}

static void after_rename(struct place *from, bool from_ours, struct place *to, bool to_ours,
			 unsigned flags)
{
	if (from_ours && to_ours) {
		if (flags & RENAME_EXCHANGE)
			return; /* both exist on; the names of open files are left as they were */
		transaction_unlinked(to->slot);
		files_renamed(from, to);
	} else if (from_ours) {
		transaction_unlinked(from->slot);
	}
}

static int rename_any(enum oplog_op op, int fromfd, const char *from, int tofd, const char *to,
		      unsigned flags)
{
	struct place source, target;
	bool from_ours = place_find(&source, fromfd, from, true);
	bool to_ours = place_find(&target, tofd, to, true);
	struct oplog_claim claim;
	int ret;

	if (LIKELY(!from_ours && !to_ours)) {
		ret = real_rename(op, fromfd, from, tofd, to, flags);
		if (ret == 0 && atomic_load(&areas_used)) {
			int saved = errno;

			areas_moved();
			errno = saved;
		}
		return ret;
	}
	if (to_ours) /* the record names it, so its segment must know it */
		record_end(record_begin(target.slot, OP_NAME, -1, 0, 0), 0);
	claim = record_begin(from_ours ? source.slot : target.slot, op, -1, flags,
			     to_ours ? target.slot.name : 0);
	ret = real_rename(op, fromfd, from, tofd, to, flags);
	record_end(claim, ret);
	if (ret == 0) {
		int saved = errno;

		after_rename(&source, from_ours, &target, to_ours, flags);
		errno = saved;
	}
	return ret;
}

int do_rename(const char *from, const char *to)
{
	return rename_any(OP_RENAME, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int do_renameat(int fromfd, const char *from, int tofd, const char *to)
{
	return rename_any(OP_RENAMEAT, fromfd, from, tofd, to, 0);
}

int do_renameat2(int fromfd, const char *from, int tofd, const char *to, unsigned int flags)
{
	return rename_any(OP_RENAMEAT2, fromfd, from, tofd, to, flags);
}

/* ---- unlink ---- */

static int unlink_any(enum oplog_op op, int dirfd, const char *path, int flags)
{
	struct place place;
	bool ours = place_find(&place, dirfd, path, true);
	struct oplog_claim claim = {NULL, 0, 0};
	int ret;

	if (ours)
		claim =
		    record_begin(place.slot, op, -1, op == OP_UNLINKAT ? (unsigned)flags : 0, 0);
	if (op == OP_UNLINK)
		ret = real.unlink(path);
	else if (op == OP_RMDIR)
		ret = real.rmdir(path);
	else
		ret = real.unlinkat(dirfd, path, flags);
	record_end(claim, ret);
	if (ours && ret == 0)
		transaction_unlinked(place.slot);
	return ret;
}

int do_unlink(const char *path)
{
	return unlink_any(OP_UNLINK, AT_FDCWD, path, 0);
}

int do_unlinkat(int dirfd, const char *path, int flags)
{
	return unlink_any(OP_UNLINKAT, dirfd, path, flags);
}

int do_rmdir(const char *path)
{
	return unlink_any(OP_RMDIR, AT_FDCWD, path, 0);
}

/* As libc does it: unlink, and rmdir if it is a directory. */
int do_remove(const char *path)
{
	struct place place;

	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return REAL_LATE(remove)(path);
	if (do_unlink(path) == 0)
		return 0;
	return errno == EISDIR || errno == EPERM ? do_rmdir(path) : -1;
}

/* ---- new names ---- */

static int made(const struct place *place, int dirfd, const char *path, int ret)
{
	int saved = errno;

	if (ret == 0)
		directory_made(place, dirfd, path);
	errno = saved;
	return ret;
}

int do_mkdir(const char *path, mode_t mode)
{
	struct place place;

	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return real.mkdir(path, mode);
	return made(&place, AT_FDCWD, path,
		    RECORDED(place.slot, OP_MKDIR, -1, mode, 0, real.mkdir(path, mode)));
}

int do_mkdirat(int dirfd, const char *path, mode_t mode)
{
	struct place place;

	if (LIKELY(!place_find(&place, dirfd, path, true)))
		return real.mkdirat(dirfd, path, mode);
	return made(&place, dirfd, path,
		    RECORDED(place.slot, OP_MKDIRAT, -1, mode, 0, real.mkdirat(dirfd, path, mode)));
}

char *do_mkdtemp(char *path)
{
	char *ret = REAL_LATE(mkdtemp)(path);
	int saved = errno;
	struct place place;

	if (ret && place_find(&place, AT_FDCWD, ret, true)) {
		record_end(record_begin(place.slot, OP_MKDIR, -1, 0700, 0), 0);
		directory_made(&place, AT_FDCWD, ret);
	}
	errno = saved;
	return ret;
}

/* Links make a second name for a file; the record tells the new one, arg the old one if ours. */
static int link_any(enum oplog_op op, int fromfd, const char *from, int tofd, const char *to,
		    int flags)
{
	struct place source, target;
	bool from_ours = place_find(&source, fromfd, from, true);
	bool to_ours = place_find(&target, tofd, to, true);
	struct oplog_claim claim = {NULL, 0, 0};
	int ret;

	if (from_ours && to_ours)
		record_end(record_begin(target.slot, OP_NAME, -1, 0, 0), 0);
	if (from_ours || to_ours)
		claim = record_begin(from_ours ? source.slot : target.slot, op, -1, (unsigned)flags,
				     from_ours && to_ours ? target.slot.name : 0);
	ret = op == OP_LINK ? real.link(from, to) : real.linkat(fromfd, from, tofd, to, flags);
	record_end(claim, ret);
	return ret;
}

int do_link(const char *from, const char *to)
{
	return link_any(OP_LINK, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int do_linkat(int fromfd, const char *from, int tofd, const char *to, int flags)
{
	return link_any(OP_LINKAT, fromfd, from, tofd, to, flags);
}

int do_symlink(const char *target, const char *path)
{
	struct place place;

	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return real.symlink(target, path);
	return RECORDED(place.slot, OP_SYMLINK, -1, 0, 0, real.symlink(target, path));
}

int do_symlinkat(const char *target, int dirfd, const char *path)
{
	struct place place;

	if (LIKELY(!place_find(&place, dirfd, path, true)))
		return real.symlinkat(target, dirfd, path);
	return RECORDED(place.slot, OP_SYMLINKAT, -1, 0, 0, real.symlinkat(target, dirfd, path));
}

int do_mknod(const char *path, mode_t mode, dev_t dev)
{
	struct place place;

	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return real.mknod(path, mode, dev);
	return RECORDED(place.slot, OP_MKNOD, -1, mode, dev, real.mknod(path, mode, dev));
}

int do_mknodat(int dirfd, const char *path, mode_t mode, dev_t dev)
{
	struct place place;

	if (LIKELY(!place_find(&place, dirfd, path, true)))
		return real.mknodat(dirfd, path, mode, dev);
	return RECORDED(place.slot, OP_MKNODAT, -1, mode, dev,
			real.mknodat(dirfd, path, mode, dev));
}

/* The names that old programs were linked with; version 0 (_MKNOD_VER on LP64 Linux) alone is
 * known. */
int do_xmknod(int version, const char *path, mode_t mode, dev_t *dev)
{
	if (version != 0) {
		errno = EINVAL;
		return -1;
	}
	return do_mknod(path, mode, *dev);
}

int do_xmknodat(int version, int dirfd, const char *path, mode_t mode, dev_t *dev)
{
	if (version != 0) {
		errno = EINVAL;
		return -1;
	}
	return do_mknodat(dirfd, path, mode, *dev);
}

int do_mkfifo(const char *path, mode_t mode)
{
	return do_mknod(path, mode | S_IFIFO, 0);
}

int do_mkfifoat(int dirfd, const char *path, mode_t mode)
{
	return do_mknodat(dirfd, path, mode | S_IFIFO, 0);
}
