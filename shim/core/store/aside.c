/* SPDX-License-Identifier: MIT
 *
 * Moving a store out of its directory, and back.
 */
#include "core/store/aside.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/sys.h"
#include "core/store/store.h"

#define NO_REPLACE 1 /* RENAME_NOREPLACE */

bool store_aside_is(const char *name)
{
	size_t n = strlen(name), k = sizeof(STORE_NAME) - 1;

	return name[0] == '.' && n >= k && memcmp(name + n - k, STORE_NAME, k + 1) == 0;
}

/* Puts `.` and n bytes in front. False: too long. */
static bool prepend(char name[STORE_ASIDE_MAX], const char *text, size_t n)
{
	size_t length = strlen(name);

	if (!n || n + 1 + length >= STORE_ASIDE_MAX)
		return false;
	memmove(name + n + 1, name, length + 1);
	name[0] = '.';
	memcpy(name + 1, text, n);
	return true;
}

bool store_aside_name(char out[STORE_ASIDE_MAX], const char *directory, unsigned level)
{
	const char *end = directory + strlen(directory), *from;

	memcpy(out, STORE_NAME, sizeof(STORE_NAME));
	for (; level; level--) {
		while (end > directory && end[-1] == '/')
			end--;
		for (from = end; from > directory && from[-1] != '/'; from--)
			;
		if (!prepend(out, from, (size_t)(end - from)))
			return false;
		end = from;
	}
	return true;
}

/* The first store in a directory. -ENOTEMPTY: there is something else; 0: there is nothing. */
static int first_store(int dirfd, char name[STORE_ASIDE_MAX])
{
	char buf[2048] __attribute__((aligned(8)));
	int fd = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), found = 0;
	ssize_t n = fd, at;

	while (fd >= 0 && found >= 0 && (n = sys_getdents(fd, buf, sizeof(buf))) > 0)
		for (at = 0; at < n;) {
			const struct linux_dirent64 *d = (const void *)(buf + at);
			size_t length = strlen(d->name);

			at += d->length;
			if (strcmp(d->name, ".") == 0 || strcmp(d->name, "..") == 0)
				continue;
			if (!store_aside_is(d->name) || length >= STORE_ASIDE_MAX) {
				found = -ENOTEMPTY;
				break;
			}
			memcpy(name, d->name, length + 1);
			found = 1;
		}
	if (fd >= 0)
		sys_close(fd);
	return n < 0 ? (int)n : found;
}

static int move(int from, const char *old, int to, const char *name)
{
	int r = (int)SYS5(SYS_renameat2, from, old, to, name, NO_REPLACE);

	return r == -EINVAL || r == -ENOSYS ? sys_renameat(from, old, to, name) : r;
}

/* The room that it keeps for a backend is of no use there. */
static void give_up_ballast(int dirfd, const char *store)
{
	int fd = sys_openat(dirfd, store, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);

	if (fd < 0)
		return;
	sys_unlinkat(fd, "ballast", 0);
	sys_close(fd);
}

int store_aside_put(int dirfd, const char *directory)
{
	const char *slash = strrchr(directory, '/'), *own = slash ? slash + 1 : directory;
	char old[STORE_ASIDE_MAX], name[STORE_ASIDE_MAX];
	int parent = -1, r;

	while ((r = first_store(dirfd, old)) == 1) {
		memcpy(name, old, sizeof(name));
		if (!prepend(name, own, strlen(own)))
			r = -ENAMETOOLONG;
		else if (parent < 0)
			r = parent = sys_openat(dirfd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
		if (r >= 0) {
			give_up_ballast(dirfd, old);
			r = move(dirfd, old, parent, name);
		}
		if (r < 0)
			break;
	}
	if (parent >= 0)
		sys_close(parent);
	return r;
}

int store_aside_take(int dirfd, const char *directory)
{
	char name[STORE_ASIDE_MAX], up[3 * STORE_ASIDE_LEVELS + 1] = "";
	struct stat st;
	int parent, r = -ENOENT;
	unsigned level;

	for (level = 1; level <= STORE_ASIDE_LEVELS && r == -ENOENT; level++) {
		memcpy(up + 3 * (level - 1), "../", 4);
		if (!store_aside_name(name, directory, level))
			break;
		parent = sys_openat(dirfd, up, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
		if (parent < 0)
			return parent;
		r = sys_fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW);
		if (r == 0)
			r = S_ISDIR(st.st_mode) ? move(parent, name, dirfd, STORE_NAME) : -ENOENT;
		sys_close(parent);
	}
	return r;
}
