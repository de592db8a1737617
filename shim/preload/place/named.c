/* SPDX-License-Identifier: MIT
 *
 * Directories named by the setting, until they are met.
 */
#include "preload/place/named.h"

#include <string.h>

#include "core/base/text.h"
#include "core/undo/undo.h"
#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/place/files.h"

#define NAMED 32

_Atomic unsigned named_waiting;

static struct protection *(*claim)(int dirfd);
static char text[PLACE_MAX]; /* the environment is the host's to change */
static size_t text_used;
static unsigned named_used;
static struct {
	const char *path;
	_Atomic bool waits;
} named[NAMED];

/* False: it is not there, cannot be opened, or is being taken by the thread that was interrupted.
 */
static bool take(const char *path)
{
	struct protection *a;
	int fd = sys_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);

	if (fd < 0)
		return false;
	a = claim(fd);
	sys_close(fd);
	if (!a)
		return false;
	a->named = true;
	if (path[0] == '/')
		protection_add_spelling(a, path);
	return true;
}

static void take_waiting(unsigned i)
{
	if (!shim_borrowed() && take(named[i].path) && atomic_exchange(&named[i].waits, false))
		atomic_fetch_sub(&named_waiting, 1);
}

/* In what a directory has open; closed then. */
static bool has_undo_file(int fd)
{
	char buf[2048] __attribute__((aligned(8)));
	const struct linux_dirent64 *d;
	bool found = false;
	ssize_t n, at;

	while (!found && (n = sys_getdents(fd, buf, sizeof(buf))) > 0)
		for (at = 0; at < n; at += d->length) {
			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			found |= text_ends_with(d->name, UNDO_SUFFIX);
		}
	sys_close(fd);
	return found;
}

/*
 * A persist that was cut off is undone before the process can look at a file. One that is under way
 * elsewhere looks the same; and of a store elsewhere nothing is known.
 */
static bool may_wait_to_be_undone(const char *path, size_t n)
{
	static const char store[] = "/" STORE_NAME, undo[] = "/" UNDO_DIR;
	char at[PLACE_MAX + sizeof(store) + sizeof(undo)];
	struct stat st;
	int fd;

	if (settings.store)
		return true;
	memcpy(at, path, n);
	strcpy(at + n, store);
	strcat(at, undo);
	fd = sys_openat(AT_FDCWD, at, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd >= 0)
		return has_undo_file(fd);
	at[n + sizeof(store) - 1] = '\0';
	return sys_fstatat(AT_FDCWD, at, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool wait_for(const char *path, size_t n)
{
	if (path[0] != '/' || may_wait_to_be_undone(path, n) || named_used == NAMED ||
	    n + 1 > sizeof(text) - text_used)
		return false;
	memcpy(text + text_used, path, n + 1);
	named[named_used].path = text + text_used;
	named[named_used++].waits = true;
	text_used += n + 1;
	named_waiting++;
	return true;
}

void named_read(const char *dirs, bool wait, struct protection *(*handed)(int dirfd))
{
	const char *p = dirs;

	claim = handed;
	while (p && *p) {
		const char *end = strchrnul(p, ':');
		char path[PLACE_MAX];
		size_t n = (size_t)(end - p);

		if (n && n < sizeof(path)) {
			memcpy(path, p, n);
			while (n > 1 && path[n - 1] == '/')
				n--;
			path[n] = '\0';
			if (!wait || !wait_for(path, n))
				take(path);
		}
		p = *end ? end + 1 : end;
	}
}

static bool is_below(const char *path, const char *directory)
{
	size_t n = strlen(directory);

	return strncmp(path, directory, n) == 0 &&
	       (path[n] == '/' || path[n] == '\0' || directory[n - 1] == '/');
}

/* By the path that the kernel knows the directory by. */
static bool is_below_real(const char *path, const char *directory)
{
	SCRATCH(real_path);
	int fd = sys_openat(AT_FDCWD, directory, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	bool below;

	if (fd < 0)
		return false;
	below =
	    real_path && descriptor_path(fd, real_path, SCRATCH_SIZE) && is_below(path, real_path);
	sys_close(fd);
	return below;
}

static bool meet(const char *path, bool (*below)(const char *path, const char *directory))
{
	bool met = false;
	unsigned i;

	for (i = 0; i < named_used; i++)
		if (atomic_load(&named[i].waits) && below(path, named[i].path)) {
			take_waiting(i);
			met = true;
		}
	return met;
}

bool named_meet(const char *path)
{
	return meet(path, is_below);
}

bool named_meet_real(const char *path)
{
	return meet(path, is_below) || meet(path, is_below_real);
}

void named_take(void)
{
	unsigned i;

	for (i = 0; i < named_used; i++)
		if (atomic_load(&named[i].waits))
			take_waiting(i);
}
