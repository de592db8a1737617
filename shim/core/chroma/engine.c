/* SPDX-License-Identifier: MIT
 *
 * Which Chroma works on a directory.
 */
#include "core/chroma/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "core/base/fileio.h"
#include "core/chroma/installation.h"

#define FIRST_LINE "chromashim-engine 1"
#define FILE_MAX 16384u

/* ---- a process ---- */

/* "/srv/venv/lib/python3.11/site-packages" of the path of a native library in it. */
static bool cut_packages(const char *path, char *out, size_t room)
{
	static const char *const names[] = {"/site-packages/", "/dist-packages/", "/node_modules/"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *at = strstr(path, names[i]);
		size_t n = at ? (size_t)(at - path) + strlen(names[i]) - 1 : 0;

		if (!n || n >= room)
			continue;
		memcpy(out, path, n);
		out[n] = '\0';
		return true;
	}
	return false;
}

static bool find_packages(uint32_t pid, char *out, size_t room)
{
	static const char *const parts[] = {"chromadb_rust_bindings", "chromadb-js-bindings",
					    "hnswlib"};
	char path[64], *line = NULL;
	size_t size = 0, i;
	bool found = false;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/maps", pid);
	maps = fopen(path, "re");
	while (maps && !found && getline(&line, &size, maps) > 0) {
		const char *at = strchr(line, '/');

		for (i = 0; at && i < sizeof(parts) / sizeof(parts[0]) && !found; i++)
			found = strstr(at, parts[i]) && cut_packages(at, out, room);
	}
	free(line);
	if (maps)
		fclose(maps);
	return found;
}

/* What it runs is run again, as this user: it has to be this user's own choice. */
static bool is_ours(uint32_t pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%" PRIu32, pid);
	return stat(path, &st) == 0 && st.st_uid == geteuid();
}

bool engine_of_process(uint32_t pid, struct engine *out)
{
	struct installation *i;
	const char *name;
	char path[64];
	ssize_t n;

	memset(out, 0, sizeof(*out));
	if (!is_ours(pid) || !find_packages(pid, out->packages, sizeof(out->packages)))
		return false;
	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/exe", pid);
	n = readlink(path, out->python, sizeof(out->python) - 1);
	out->python[n > 0 ? n : 0] = '\0';
	name = strrchr(out->python, '/');
	if (!name || !strstr(name, "python") || access(out->python, X_OK) < 0)
		out->python[0] = '\0';
	i = calloc(1, sizeof(*i));
	if (i && installation_find(out->packages, i) == 0)
		strlcpy(out->release, i->release, sizeof(out->release));
	free(i);
	return true;
}

/* ---- the store ---- */

static bool take_line(char **text, const char *key, char *out, size_t room)
{
	char *line = *text, *end = line ? strchr(line, '\n') : NULL;
	size_t n = strlen(key);

	if (!end || strncmp(line, key, n) != 0)
		return false;
	*end = '\0';
	*text = end + 1;
	return strlcpy(out, line + n, room) < room;
}

bool engine_parse(char *text, struct engine *out)
{
	char first[4];

	return take_line(&text, FIRST_LINE, first, sizeof(first)) && !first[0] &&
	       take_line(&text, "release ", out->release, sizeof(out->release)) &&
	       take_line(&text, "python ", out->python, sizeof(out->python)) &&
	       take_line(&text, "packages ", out->packages, sizeof(out->packages));
}

bool engine_read(int storefd, struct engine *out)
{
	int fd = file_open_at(storefd, ENGINE_NAME);
	struct stat st;
	char *data = NULL;
	size_t size;
	bool good = false;

	memset(out, 0, sizeof(*out));
	/* It names a program that is run. */
	if (fd >= 0 && fstat(fd, &st) == 0 && (st.st_uid == geteuid() || st.st_uid == 0) &&
	    !(st.st_mode & 022) && file_read_all(fd, FILE_MAX, &data, &size) == 0)
		good = engine_parse(data, out);
	if (fd >= 0)
		close(fd);
	free(data);
	return good;
}

void engine_write(int storefd, const struct engine *e)
{
	struct file_publish p;
	char *text;
	int n;

	if (strpbrk(e->python, "\n") || strpbrk(e->packages, "\n"))
		return;
	n = asprintf(&text, FIRST_LINE "\nrelease %s\npython %s\npackages %s\n", e->release,
		     e->python, e->packages);
	if (n < 0)
		return;
	if (file_publish_begin(&p, storefd, ENGINE_NAME, 0644) == 0 &&
	    (file_write_all(p.fd, text, (size_t)n) < 0 || file_publish_commit_unsynced(&p) < 0))
		file_publish_abort(&p);
	free(text);
}
