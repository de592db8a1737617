/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: LD_PRELOAD, with our library in front and no other one of its kind.
 */
#include "command/base/processes.h"
#include "command/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

/* As the loader reads it: $LIB is one of these, by machine and distribution. */
static bool expand(const char *entry, const char *lib, char out[PATH_MAX])
{
	static const char *const forms[] = {"${LIB}", "$LIB"};
	const char *at = NULL;
	size_t n = 0;
	unsigned i;

	for (i = 0; !at && i < 2; i++) {
		at = strstr(entry, forms[i]);
		n = strlen(forms[i]);
	}
	if (!at)
		return strlcpy(out, entry, PATH_MAX) < PATH_MAX;
	return snprintf(out, PATH_MAX, "%.*s%s%s", (int)(at - entry), entry, lib, at + n) <
	       PATH_MAX;
}

enum entry { ENTRY_FOREIGN, ENTRY_OURS, ENTRY_ANOTHER, ENTRY_GONE };

/* A program is judged by what it is, and by its name only where there is no file. */
static enum entry preload_judge(const char *entry, const char *library)
{
	static const char *const libs[] = {
		"lib",
		"lib64",
#if defined(__x86_64__)
		"lib/x86_64-linux-gnu"
#else
		"lib/aarch64-linux-gnu"
#endif
	};
	char path[PATH_MAX];
	struct stat ours, st;
	const char *name = strrchr(entry, '/');
	unsigned i;

	if (stat(library, &ours) < 0)
		return ENTRY_FOREIGN;
	for (i = 0; strchr(entry, '/') && i < sizeof(libs) / sizeof(libs[0]); i++) {
		if (!expand(entry, libs[i], path) || stat(path, &st) < 0)
			continue;
		if (st.st_dev == ours.st_dev && st.st_ino == ours.st_ino)
			return ENTRY_OURS;
		return file_is_library(path) ? ENTRY_ANOTHER : ENTRY_FOREIGN;
	}
	return strncmp(name ? name + 1 : entry, "libchromashim", strlen("libchromashim")) == 0
		   ? ENTRY_GONE
		   : ENTRY_FOREIGN;
}

static void say_dropped(const struct run *r, enum entry kind, const char *entry)
{
	if (kind == ENTRY_ANOTHER)
		run_say(r, "LD_PRELOAD named another version of the library, '%s': '%s' is taken",
			entry, r->library);
	else if (kind == ENTRY_GONE)
		run_say(r, "LD_PRELOAD named '%s', which is not there: '%s' is taken", entry,
			r->library);
}

int preload_set(const struct run *r)
{
	const char *before = getenv("LD_PRELOAD");
	char *list = strdup(before ? before : ""), *rest = list, *entry, *value;
	size_t n = strlen(r->preload) + (before ? strlen(before) : 0) + 2;
	int e;

	value = malloc(n);
	if (!list || !value) {
		free(list);
		free(value);
		return -ENOMEM;
	}
	strlcpy(value, r->preload, n);
	while ((entry = strsep(&rest, ": "))) {
		enum entry kind = *entry ? preload_judge(entry, r->library) : ENTRY_OURS;

		if (kind == ENTRY_FOREIGN) {
			strlcat(value, ":", n);
			strlcat(value, entry, n);
		} else {
			say_dropped(r, kind, entry);
		}
	}
	e = setenv("LD_PRELOAD", value, 1) < 0 ? -errno : 0;
	free(value);
	free(list);
	return e;
}
