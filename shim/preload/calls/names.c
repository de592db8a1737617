/* SPDX-License-Identifier: MIT
 *
 * Changing names: rename, unlink, mkdir, link and their kin.
 */
#include <stdlib.h>
#include <string.h>

#include "preload/calls/call.h"
#include "preload/place/stores.h"

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

/* Open files and known directories get their new names. */
static void after_rename(struct place *from, bool from_ours, struct place *to, bool to_ours,
			 int tofd, const char *to_path, unsigned flags)
{
	if (from_ours && to_ours)
		files_renamed(from, to, flags & RENAME_EXCHANGE);
	else if (to_ours)
		directory_made(to, tofd, to_path);
}

static int rename_any(void *caller, enum oplog_op op, int fromfd, const char *from, int tofd,
		      const char *to, unsigned flags)
{
	A_PLACE(source);
	A_PLACE(target);
	bool from_ours = place_find(&source, fromfd, from, true);
	bool to_ours = place_find(&target, tofd, to, true);
	struct change c;
	int ret;

	strangers_forget();
	if (!from_ours && place_discover_root(fromfd, from))
		from_ours = place_find(&source, fromfd, from, true);
	if (LIKELY(!from_ours && !to_ours)) {
		ret = real_rename(op, fromfd, from, tofd, to, flags);
		if (ret == 0 && atomic_load(&protections_used)) {
			int saved = errno;

			protections_moved();
			errno = saved;
		}
		return ret;
	}
	c = CHANGE_PATH(op, from_ours ? &source : &target, .flags = (int)flags, .length = flags,
			.target = to_ours ? &target : NULL, .caller = caller);
	c.arg = to_ours ? target.slot.name : 0;
	ret = CHANGED(c, real_rename(op, fromfd, from, tofd, to, flags));
	if (ret == 0) {
		int saved = errno;

		after_rename(&source, from_ours, &target, to_ours, tofd, to, flags);
		errno = saved;
	}
	return ret;
}

int do_rename(void *caller, const char *from, const char *to)
{
	return rename_any(caller, OP_RENAME, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int do_renameat(void *caller, int fromfd, const char *from, int tofd, const char *to)
{
	return rename_any(caller, OP_RENAMEAT, fromfd, from, tofd, to, 0);
}

int do_renameat2(void *caller, int fromfd, const char *from, int tofd, const char *to,
		 unsigned int flags)
{
	return rename_any(caller, OP_RENAMEAT2, fromfd, from, tofd, to, flags);
}

/* ---- unlink ---- */

static int really_unlink(enum oplog_op op, int dirfd, const char *path, int flags)
{
	if (op == OP_UNLINK)
		return real.unlink(path);
	return op == OP_RMDIR ? real.rmdir(path) : real.unlinkat(dirfd, path, flags);
}

/* A directory that is empty but for its store goes, as it would without the library. */
static int real_unlink(enum oplog_op op, int dirfd, const char *path, int flags)
{
	int ret = really_unlink(op, dirfd, path, flags);
	bool directory = op == OP_RMDIR || (op == OP_UNLINKAT && (flags & AT_REMOVEDIR));

	if (LIKELY(ret == 0 || !directory) || (errno != ENOTEMPTY && errno != EEXIST))
		return ret;
	return store_steps_aside(dirfd, path) ? really_unlink(op, dirfd, path, flags) : ret;
}

static int unlink_any(void *caller, enum oplog_op op, int dirfd, const char *path, int flags)
{
	A_PLACE(place);

	if (LIKELY(!place_find(&place, dirfd, path, true)))
		return real_unlink(op, dirfd, path, flags);
	return CHANGED(
	    CHANGE_PATH(op, &place, .flags = flags, .length = (unsigned)flags, .caller = caller),
	    real_unlink(op, dirfd, path, flags));
}

int do_unlink(void *caller, const char *path)
{
	return unlink_any(caller, OP_UNLINK, AT_FDCWD, path, 0);
}

int do_unlinkat(void *caller, int dirfd, const char *path, int flags)
{
	return unlink_any(caller, OP_UNLINKAT, dirfd, path, flags);
}

int do_rmdir(const char *path)
{
	return unlink_any(NULL, OP_RMDIR, AT_FDCWD, path, 0);
}

/* As libc does it: unlink, and rmdir if it is a directory. */
int do_remove(void *caller, const char *path)
{
	A_PLACE(place);

	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return REAL_LATE(remove)(path);
	if (do_unlink(caller, path) == 0)
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
	A_PLACE(place);

	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return real.mkdir(path, mode);
	return made(&place, AT_FDCWD, path,
		    CHANGED(CHANGE_PATH(OP_MKDIR, &place, .length = mode), real.mkdir(path, mode)));
}

int do_mkdirat(int dirfd, const char *path, mode_t mode)
{
	A_PLACE(place);

	if (LIKELY(!place_find(&place, dirfd, path, true)))
		return real.mkdirat(dirfd, path, mode);
	return made(&place, dirfd, path,
		    CHANGED(CHANGE_PATH(OP_MKDIRAT, &place, .length = mode),
			    real.mkdirat(dirfd, path, mode)));
}

/* The name is known only afterwards. */
char *do_mkdtemp(char *path)
{
	A_PLACE(place);
	char *ret;
	int saved;

	if (place_find(&place, AT_FDCWD, path, true) && place.slot.role == ROLE_STORE) {
		(void)CHANGED(CHANGE_PATH(OP_MKDIR, &place), -1);
		return NULL;
	}
	ret = REAL_LATE(mkdtemp)(path);
	saved = errno;
	if (ret && place_find(&place, AT_FDCWD, ret, true)) {
		record_end(record_begin(place.slot, OP_MKDIR, -1, 0700, 0), 0);
		directory_made(&place, AT_FDCWD, ret);
	}
	errno = saved;
	return ret;
}

/* A second name for a file; the record tells the old one if it is ours, and arg the new one. */
static int link_any(enum oplog_op op, int fromfd, const char *from, int tofd, const char *to,
		    int flags)
{
	A_PLACE(source);
	A_PLACE(target);
	bool from_ours = place_find(&source, fromfd, from, true);
	bool to_ours = place_find(&target, tofd, to, true);
	struct change c;

	strangers_forget();
	if (LIKELY(!from_ours && !to_ours))
		return op == OP_LINK ? real.link(from, to)
				     : real.linkat(fromfd, from, tofd, to, flags);
	c = CHANGE_PATH(op, from_ours ? &source : &target, .flags = flags,
			.length = (unsigned)flags, .target = from_ours && to_ours ? &target : NULL);
	c.arg = c.target ? target.slot.name : 0;
	return CHANGED(c, op == OP_LINK ? real.link(from, to)
					: real.linkat(fromfd, from, tofd, to, flags));
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
	A_PLACE(place);

	strangers_forget();
	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return real.symlink(target, path);
	return made(&place, AT_FDCWD, path,
		    CHANGED(CHANGE_PATH(OP_SYMLINK, &place), real.symlink(target, path)));
}

int do_symlinkat(const char *target, int dirfd, const char *path)
{
	A_PLACE(place);

	strangers_forget();
	if (LIKELY(!place_find(&place, dirfd, path, true)))
		return real.symlinkat(target, dirfd, path);
	return CHANGED(CHANGE_PATH(OP_SYMLINKAT, &place), real.symlinkat(target, dirfd, path));
}

static ssize_t link_read(int dirfd, const char *path, ssize_t ret)
{
	if (ret > 0 && !shim_borrowed()) {
		int saved = errno;

		place_met_link(dirfd, path);
		errno = saved;
	}
	return ret;
}

ssize_t do_readlink(const char *path, char *buf, size_t size)
{
	return link_read(AT_FDCWD, path, real.readlink(path, buf, size));
}

ssize_t do_readlinkat(int dirfd, const char *path, char *buf, size_t size)
{
	return link_read(dirfd, path, real.readlinkat(dirfd, path, buf, size));
}

/* What glibc does when a fortified program asks for more than its buffer holds. */
static void need_room(size_t size, size_t room)
{
	if (size > room) {
		shim_say("readlink with a buffer that is smaller than said: program error", NULL);
		abort();
	}
}

ssize_t do_readlink_chk(const char *path, char *buf, size_t size, size_t room)
{
	need_room(size, room);
	return do_readlink(path, buf, size);
}

ssize_t do_readlinkat_chk(int dirfd, const char *path, char *buf, size_t size, size_t room)
{
	need_room(size, room);
	return do_readlinkat(dirfd, path, buf, size);
}

int do_mknod(const char *path, mode_t mode, dev_t dev)
{
	A_PLACE(place);

	if (LIKELY(!place_find(&place, AT_FDCWD, path, true)))
		return real.mknod(path, mode, dev);
	return CHANGED(CHANGE_PATH(OP_MKNOD, &place, .length = mode, .arg = dev),
		       real.mknod(path, mode, dev));
}

int do_mknodat(int dirfd, const char *path, mode_t mode, dev_t dev)
{
	A_PLACE(place);

	if (LIKELY(!place_find(&place, dirfd, path, true)))
		return real.mknodat(dirfd, path, mode, dev);
	return CHANGED(CHANGE_PATH(OP_MKNODAT, &place, .length = mode, .arg = dev),
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

/* ---- what relative paths are relative to ---- */

int do_chdir(const char *path)
{
	int ret = real.chdir(path);

	store_directory_changed();
	return ret;
}

int do_fchdir(int fd)
{
	int ret = real.fchdir(fd);

	store_directory_changed();
	return ret;
}
