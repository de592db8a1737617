/* SPDX-License-Identifier: MIT
 *
 * Paths as texts, and what they mean in a directory that is known.
 */
#include <string.h>
#include <time.h>

#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/place/files.h"

bool path_has_dotdot(const char *path)
{
	const char *p = path;

	while ((p = strstr(p, "..")) != NULL) {
		if ((p == path || p[-1] == '/') && (p[2] == '/' || p[2] == '\0'))
			return true;
		p += 2;
	}
	return false;
}

bool place_join(char *out, const char *directory, const char *rest)
{
	size_t n = 0;

	if (!out)
		return false;
	if (strcmp(directory, ".") != 0) {
		n = strlen(directory);
		if (n >= PLACE_MAX)
			return false;
		memcpy(out, directory, n);
	}
	while (*rest) {
		const char *end = strchrnul(rest, '/');
		size_t length = (size_t)(end - rest);

		if (length && !(length == 1 && *rest == '.')) {
			if (n + length + 2 > PLACE_MAX)
				return false;
			if (n)
				out[n++] = '/';
			memcpy(out + n, rest, length);
			n += length;
		}
		rest = *end ? end + 1 : end;
	}
	if (!n)
		out[n++] = '.';
	out[n] = '\0';
	return true;
}

static bool is_below(const char *relative, const char *directory)
{
	size_t n = strlen(directory);

	return n && strncmp(relative, directory, n) == 0 &&
	       (relative[n] == '/' || relative[n] == '\0');
}

static bool in_store(const struct protection *a, const char *relative)
{
	return is_below(relative, STORE_NAME) || is_below(relative, a->store_below);
}

void place_settle(struct place *place, unsigned protection)
{
	place->slot.all = 0;
	if (in_store(&protections[protection], place->relative)) {
		place->slot.role = ROLE_STORE;
		return;
	}
	place->slot.name =
	    SLOT_NAME(name_intern(protection, place->relative, strlen(place->relative)));
	place->slot.protection = (uint8_t)protection;
	place->slot.role = place->slot.name ? name_get(place->slot.name)->role : ROLE_OTHER;
}

bool descriptor_path(int fd, char *out, size_t size)
{
	char link[SYS_FD_PATH];
	ssize_t got;

	sys_fd_path(link, fd);
	got = sys_readlinkat(AT_FDCWD, link, out, size - 1);
	if (got <= 0 || out[0] != '/')
		return false;
	out[got] = '\0';
	return true;
}

/* ---- moments ---- */

static _Atomic uint32_t strangers_generation;

uint64_t strangers_moment(void)
{
	struct timespec now = {0, 0};

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec << 32 | atomic_load(&strangers_generation);
}

void strangers_forget(void)
{
	atomic_fetch_add_explicit(&strangers_generation, 1, memory_order_relaxed);
}
