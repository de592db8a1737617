/* SPDX-License-Identifier: MIT
 *
 * What an older version left elsewhere: it took a relative CHROMASHIM_STORE from the directory that
 * the backend was started in.
 */
#include "core/store/store.h"

#include <errno.h>

#include "core/base/sys.h"
#include "core/undo/undo.h"

static bool is_same(int fd, dev_t dev, ino_t ino)
{
	struct stat st;

	return fd >= 0 && sys_fstat(fd, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

/* Of the same owner, and no other directory's. */
static bool may_be_ours(int fd, int dirfd, struct store_identity *identity)
{
	struct stat store, directory;
	struct store_place here;
	int r;

	if (sys_fstat(fd, &store) < 0 || sys_fstat(dirfd, &directory) < 0 ||
	    store.st_uid != directory.st_uid)
		return false;
	r = store_identity_read(fd, identity);
	store_place_of(dirfd, &here);
	return r == -ENOENT || (r == 0 && store_place_same(&identity->directory, &here));
}

int store_stray_undo(struct store_identity *room, int dirfd, const char *named, int storefd)
{
	int fd, undofd = -ENOENT;
	struct stat st;

	if (!named || !*named || *named == '/')
		return -ENOENT;
	fd = sys_openat(AT_FDCWD, named, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	if (sys_fstat(fd, &st) == 0 && !is_same(storefd, st.st_dev, st.st_ino) &&
	    may_be_ours(fd, dirfd, room))
		undofd =
		    sys_openat(fd, UNDO_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	sys_close(fd);
	return undofd;
}
