/* SPDX-License-Identifier: MIT
 *
 * Whose the files of a store are.
 */
#include "core/store/foreign.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fileio.h"

#define LEVELS 8
#define ENTRIES 50000u

struct walk {
	struct store_foreign *out;
	unsigned left; /* entries to look at */
};

static void foreign_note(struct walk *w, const char *path, const struct stat *st)
{
	if (st->st_uid == w->out->owner)
		return;
	if (w->out->count++ == 0) {
		snprintf(w->out->path, sizeof(w->out->path), "%s", path);
		w->out->user = st->st_uid;
	}
}

/* The descriptor is closed. What vanishes meanwhile is nobody's. */
static void walk_directory(struct walk *w, int fd, const char *prefix, unsigned level)
{
	DIR *dir = NULL;
	const struct dirent *entry;

	if (fd >= 0)
		file_names_of(fd, &dir);
	while (dir && w->left && (entry = readdir(dir))) {
		char path[PATH_MAX];
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		w->left--;
		if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    snprintf(path, sizeof(path), "%s%s", prefix, entry->d_name) >=
			(int)sizeof(path) - 1)
			continue;
		foreign_note(w, path, &st);
		if (!S_ISDIR(st.st_mode) || level == LEVELS)
			continue;
		strcat(path, "/");
		walk_directory(
		    w, openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
		    path, level + 1);
	}
	if (dir)
		closedir(dir);
}

int64_t store_find_foreign(int storefd, struct store_foreign *out)
{
	struct walk w = {.out = out, .left = ENTRIES};
	struct stat st;

	memset(out, 0, sizeof(*out));
	if (fstat(storefd, &st) < 0)
		return -errno;
	out->owner = st.st_uid;
	out->group = st.st_gid;
	walk_directory(&w, openat(storefd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "", 0);
	return (int64_t)out->count;
}
