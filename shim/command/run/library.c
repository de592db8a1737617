/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: where the library is, and by which name the loader shall find it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/processes.h"
#include "command/run/run.h"
#include "core/base/checksum.h"

#define LIBRARY_NAME "libchromashim.so"
#define SEPARATORS " \t:" /* of LD_PRELOAD, which knows no quotes */

#ifndef CHROMASHIM_LIBDIR
#define CHROMASHIM_LIBDIR "/usr/local/lib"
#endif

static bool is_library(const char *path)
{
	return access(path, R_OK) == 0;
}

static bool find_library(struct run *r)
{
	static const char *const beside[] = {
		"",
		"../libexec/chromashim/", /* pip; it may drop what is in lib */
		"../lib/",
		"../lib64/",
#if defined(__x86_64__)
		"../lib/x86_64-linux-gnu/"
#else
		"../lib/aarch64-linux-gnu/"
#endif
	};
	const char *named = config_get(&r->config, CONFIG_LIBRARY);
	char self[PATH_MAX], path[PATH_MAX * 2], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	unsigned i;

	if (*named)
		return is_library(named) && realpath(named, r->library);
	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		slash[1] = '\0';
	for (i = 0; slash && i < sizeof(beside) / sizeof(beside[0]); i++) {
		snprintf(path, sizeof(path), "%s%s" LIBRARY_NAME, self, beside[i]);
		if (is_library(path))
			return realpath(path, r->library);
	}
	snprintf(path, sizeof(path), "%s/" LIBRARY_NAME, CHROMASHIM_LIBDIR);
	return is_library(path) && realpath(path, r->library);
}

static int unprotected(const struct run *r, const char *what, const char *why, const char *todo)
{
	if (run_is_set_to(r, CONFIG_ON_FAILURE, "closed"))
		return fail(EXIT_FAILED, 0, todo,
			    "not started, since nothing would be protected: "
			    "%s%s%s",
			    what, *why ? ": " : "", why);
	fail(EXIT_FAILED, 0, todo, "UNPROTECTED: %s%s%s", what, *why ? ": " : "", why);
	return 0;
}

/* ---- a name without blanks ---- */

int run_open_own(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != geteuid() || st.st_mode & 022)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static bool leads_to(int dirfd, const char *name, const char *library)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);

	target[n > 0 ? n : 0] = '\0';
	return strcmp(target, library) == 0;
}

/* A link to the library in that directory, which nobody else can write: its path in `out`. */
static bool link_in(const char *directory, mode_t mode, const char *library, char out[PATH_MAX])
{
	uint64_t sum = checksum64(library, strlen(library), 0);
	char name[64], part[96];
	bool good;
	int fd;

	snprintf(name, sizeof(name), "libchromashim-%016" PRIx64 ".so", sum);
	snprintf(part, sizeof(part), "%s.%d", name, (int)getpid());
	if (strpbrk(directory, SEPARATORS) ||
	    snprintf(out, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX)
		return false;
	mkdir(directory, mode);
	fd = run_open_own(directory);
	if (fd < 0)
		return false;
	good = leads_to(fd, name, library);
	if (!good && symlinkat(library, fd, part) == 0) {
		good = renameat(fd, part, fd, name) == 0;
		if (!good)
			unlinkat(fd, part, 0);
	}
	close(fd);
	return good;
}

/*
 * Below the user's home if that has no blank and the backend stays that user's: what is in /tmp or
 * in XDG_RUNTIME_DIR may be cleared away while a backend starts children.
 */
static bool link_somewhere(const struct run *r, char out[PATH_MAX])
{
	static const char *const below_home[] = {"/.local", "/.local/state",
						 "/.local/state/chromashim"};
	const char *home = getenv("HOME");
	char path[PATH_MAX];
	unsigned i;

	path[0] = '\0';
	for (i = 0; r->uid == geteuid() && home && *home == '/' && i < 3; i++) {
		if (snprintf(path, sizeof(path), "%s%s", home, below_home[i]) >= PATH_MAX)
			return false;
		mkdir(path, 0700);
	}
	if (*path && link_in(path, 0700, r->library, out))
		return true;
	snprintf(path, sizeof(path), RUN_TMP, (unsigned)geteuid());
	return link_in(path, 0755, r->library, out);
}

/* They are made for each other. */
static void library_tell_version(const struct run *r)
{
	char version[VERSION_TEXT];

	if (!file_library_version(r->library, version))
		warn("the library put in front, '%s', does not say which version it is; this "
		     "command is %s",
		     r->library, version_own());
	else if (strcmp(version, version_own()))
		fail(EXIT_DONE, 0, "Install both from one package.",
		     "the library put in front, '%s', is of chromashim %s, and this command is %s",
		     r->library, version, version_own());
}

/* r->preload: what LD_PRELOAD is to say. */
static bool library_name(struct run *r)
{
	if (!strpbrk(r->library, SEPARATORS))
		return strlcpy(r->preload, r->library, PATH_MAX) < PATH_MAX;
	return link_somewhere(r, r->preload);
}

int run_preload(struct run *r)
{
	char what[PATH_MAX + 64];

	if (run_is_set_to(r, CONFIG_SHIM, "off")) {
		run_say(r, "CHROMASHIM=off: nothing is protected or recorded");
		return 0;
	}
	if (r->backend.trouble[0]) {
		snprintf(what, sizeof(what), "nothing can be preloaded into '%s'",
			 r->backend.interpreter);
		return unprotected(r, what, r->backend.trouble,
				   "Use Chroma on a dynamically linked Python or Node with glibc.");
	}
	if (!find_library(r)) {
		r->library[0] = '\0';
		return unprotected(
		    r, LIBRARY_NAME " is not there", config_get(&r->config, CONFIG_LIBRARY),
		    "Install it, or name it: CHROMASHIM_LIBRARY=/path/" LIBRARY_NAME);
	}
	if (!library_name(r)) {
		snprintf(what, sizeof(what), "the loader cannot preload '%s'", r->library);
		r->library[0] = '\0';
		return unprotected(r, what,
				   "there is a space or a colon in the path, and there is no place "
				   "for a link to it",
				   "Put it into a path without, or make ~/.local/state or /tmp "
				   "writable.");
	}
	library_tell_version(r);
	return preload_set(r) < 0 ? fail(EXIT_FAILED, -ENOMEM, NULL, "LD_PRELOAD") : 0;
}
