/* SPDX-License-Identifier: MIT
 *
 * Whole files and directories of the store.
 */
#include "core/base/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/base/fileio.h"

#define DEPTH_MAX 16
#define COPY_SIZE (1u << 20)
#define ROOM_LEFT (UINT64_C(16) << 20) /* for the backend, whose next transaction needs some */

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int remove_below(int dirfd, const char *name, int depth);

/* Takes fd. */
static int empty_directory(int fd, int depth)
{
	DIR *dir;
	const struct dirent *entry;
	int r = file_names_of(fd, &dir);

	while (r == 0 && (entry = readdir(dir)))
		if (!is_dots(entry->d_name))
			r = remove_below(dirfd(dir), entry->d_name, depth);
	if (dir)
		closedir(dir);
	return r;
}

static int remove_below(int dirfd, const char *name, int depth)
{
	int fd, r;

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth == DEPTH_MAX)
		return -ELOOP;
	fd = file_open_directory_at(dirfd, name);
	r = fd < 0 ? fd : empty_directory(fd, depth + 1);
	if (r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
		r = -errno;
	return r;
}

int tree_remove(int dirfd, const char *name)
{
	return remove_below(dirfd, name, 0);
}

int tree_empty(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : empty_directory(fd, 0);
}

static int hollow_below(int fd, const char *name, const char *but, int depth)
{
	const struct dirent *entry;
	struct stat st;
	DIR *dir;
	int r = file_names_at(fd, name, &dir), hollow = 1;

	while (r == 0 && hollow == 1 && (entry = readdir(dir))) {
		if (is_dots(entry->d_name) || (but && strcmp(entry->d_name, but) == 0))
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			hollow = -errno;
		else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
			hollow = hollow_below(dirfd(dir), entry->d_name, NULL, depth + 1);
		else
			hollow = S_ISREG(st.st_mode) && st.st_size == 0;
	}
	if (r == 0)
		closedir(dir);
	return r < 0 ? r : hollow;
}

int tree_is_hollow(int dirfd, const char *but)
{
	return hollow_below(dirfd, NULL, but, 0);
}

int tree_make_directory(int dirfd, const char *name)
{
	if (mkdirat(dirfd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	return file_open_directory_at(dirfd, name);
}

int tree_is_empty(int dirfd)
{
	DIR *dir;
	int r = file_names_at(dirfd, NULL, &dir), empty = 1;
	const struct dirent *entry;

	if (r < 0)
		return r;
	while (empty && (entry = readdir(dir)))
		empty = is_dots(entry->d_name);
	closedir(dir);
	return empty;
}

uint64_t tree_room(int dirfd)
{
	struct statvfs v;

	if (fstatvfs(dirfd, &v) < 0 || v.f_blocks == 0)
		return UINT64_MAX;
	return (uint64_t)v.f_bavail * v.f_frsize;
}

int tree_sync(int dirfd)
{
	return fsync(dirfd) < 0 && errno != EINVAL ? -errno : 0;
}

static int copy_range(int from, int to, off_t at, off_t end, char *buf)
{
	while (at < end) {
		size_t want = end - at < COPY_SIZE ? (size_t)(end - at) : COPY_SIZE;
		ssize_t n = file_read_at(from, buf, want, (uint64_t)at);
		int r;

		if (n <= 0)
			return (int)n; /* cut meanwhile: whoever asked compares the times */
		if (lseek(to, at, SEEK_SET) < 0)
			return -errno;
		r = file_write_all(to, buf, (size_t)n);
		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

static int copy_bytes(int from, int to, off_t size)
{
	char *buf = malloc(COPY_SIZE);
	off_t at = 0, end;
	int r = buf ? 0 : -ENOMEM;

	while (r == 0 && at < size) {
		off_t data = lseek(from, at, SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			break;
		at = data < 0 ? at : data;
		end = data < 0 ? size : lseek(from, at, SEEK_HOLE);
		if (end < 0 || end > size)
			end = size;
		r = copy_range(from, to, at, end, buf);
		at = end;
	}
	free(buf);
	return r == 0 && ftruncate(to, size) < 0 ? -errno : r;
}

int tree_copy_file(int from, int dirfd, const char *name)
{
	struct stat st;
	int to, r = 0;

	if (fstat(from, &st) < 0)
		return -errno;
	to = openat(dirfd, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return -errno;
	if (ioctl(to, FICLONE, from) < 0) {
		uint64_t room = tree_room(dirfd), need = (uint64_t)st.st_blocks * 512 + ROOM_LEFT;

		r = room < need ? -ENOSPC : copy_bytes(from, to, st.st_size);
	}
	close(to);
	return r;
}
