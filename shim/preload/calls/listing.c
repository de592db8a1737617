/* SPDX-License-Identifier: MIT
 *
 * Listing a directory: the store in it is not shown to the host. A program that copies, counts or
 * removes what is in its directory meets what it would meet without the library. By its name the
 * store can be opened and read.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/aside.h"
#include "preload/calls/call.h"
#include "preload/place/stores.h"

static inline bool is_named_so(const char *name)
{
	return __builtin_expect(name[0] == '.', 0) && name[1] && store_aside_is(name);
}

static bool has(int dirfd, const char *name, const char *file)
{
	char path[STORE_ASIDE_MAX + 32];
	size_t n = strlen(name);
	struct stat st;
	int r;

	if (n >= STORE_ASIDE_MAX)
		return false;
	memcpy(path, name, n);
	strcpy(path + n, file);
	r = sys_fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW);
	return r == 0 || r == -EACCES; /* it is private */
}

/* Is it one, and no other thing of that name? */
static bool is_store(int dirfd, const char *name)
{
	return shim_live &&
	       (has(dirfd, name, "/" OPLOG_DIR) || has(dirfd, name, "/" STORE_IDENTITY));
}

struct dirent *do_readdir(DIR *dir)
{
	struct dirent *d;

	do
		d = REAL_LATE(readdir)(dir);
	while (d && is_named_so(d->d_name) && is_store(dirfd(dir), d->d_name));
	return d;
}

int do_readdir_r(DIR *dir, struct dirent *entry, struct dirent **result)
{
	int ret;

	do
		ret = REAL_LATE(readdir_r)(dir, entry, result);
	while (ret == 0 && *result && is_named_so(entry->d_name) &&
	       is_store(dirfd(dir), entry->d_name));
	return ret;
}

/* The kernel's entries in a buffer, without the store's. */
static ssize_t without_store(int fd, char *buf, ssize_t n)
{
	ssize_t at, length;

	for (at = 0; at < n; at += length) {
		const struct linux_dirent64 *d = (const void *)(buf + at);

		length = d->length;
		if (!is_named_so(d->name) || !is_store(fd, d->name))
			continue;
		memmove(buf + at, buf + at + length, (size_t)(n - at - length));
		n -= length;
		length = 0;
	}
	return n;
}

ssize_t do_getdents64(int fd, void *buf, size_t size)
{
	ssize_t n, left;

	do {
		n = REAL_LATE(getdents64)(fd, buf, size);
		left = n > 0 ? without_store(fd, buf, n) : n;
	} while (n > 0 && left == 0); /* nothing but the store: 0 would be the end */
	return left;
}

/* libc reads by itself here; the entry is taken out of what it found. */
static int taken_out(int dirfd, const char *path, struct dirent ***list, int n)
{
	int fd, i, kept = 0, saved = errno;

	for (i = 0; i < n && !is_named_so((*list)[i]->d_name); i++)
		;
	if (n <= 0 || i == n)
		return n;
	fd = sys_openat(dirfd, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	for (i = 0; i < n; i++) {
		struct dirent *d = (*list)[i];

		if (fd >= 0 && is_named_so(d->d_name) && is_store(fd, d->d_name))
			free(d);
		else
			(*list)[kept++] = d;
	}
	if (fd >= 0)
		sys_close(fd);
	errno = saved;
	return kept;
}

int do_scandir(const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
	       int (*compare)(const struct dirent **, const struct dirent **))
{
	return taken_out(AT_FDCWD, path, list, REAL_LATE(scandir)(path, list, filter, compare));
}

int do_scandirat(int dirfd, const char *path, struct dirent ***list,
		 int (*filter)(const struct dirent *),
		 int (*compare)(const struct dirent **, const struct dirent **))
{
	return taken_out(dirfd, path, list,
			 REAL_LATE(scandirat)(dirfd, path, list, filter, compare));
}
