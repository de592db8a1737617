/* SPDX-License-Identifier: MIT
 *
 * Finding a Chroma near a path, and reading what migrations it carries.
 */
#include "core/chroma/installation.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "core/base/fileio.h"
#include "core/base/text.h"

#define BINARY_MAX (UINT64_C(1) << 30)
#define BINARY_MIN (UINT64_C(1) << 20) /* smaller programs are scripts and interpreters */
#define ANCESTORS 8
#define SQL_SUFFIX ".sqlite.sql"

/* Where it is, seen from a directory; the first that is there wins: native before SQL files. */
static const char *const places[] = {
#define PYTHON_PLACES(file)                                                                     \
	file, "lib/python3*/site-packages/" file, "lib64/python3*/site-packages/" file,         \
	    "local/lib/python3*/dist-packages/" file, "local/lib/python3*/site-packages/" file, \
	    "lib/python3*/dist-packages/" file, "Lib/site-packages/" file
    PYTHON_PLACES("chromadb_rust_bindings/*.so"),
    "chromadb_rust_bindings*.so", /* inside the package itself */
    "chromadb-js-bindings*.node", /* likewise */
    "chromadb-js-bindings-*/*.node",
    "node_modules/chromadb-js-bindings-*/*.node",
    "node_modules/.pnpm/chromadb-js-bindings-*/node_modules/*/*.node",
    PYTHON_PLACES("chromadb/migrations/sysdb"),
    "migrations/sysdb",
#undef PYTHON_PLACES
};

/* ---- migrations ---- */

static bool is_name_character(char c)
{
	return islower((unsigned char)c) || isdigit((unsigned char)c) || c == '-';
}

/* "00010-collection-schema.sqlite.sql": its number, 0 if it is no such name. */
static unsigned parse_name(const char *name, size_t length)
{
	size_t i, end;

	if (length < 6 + sizeof(SQL_SUFFIX) || name[5] != '-')
		return 0;
	end = length - (sizeof(SQL_SUFFIX) - 1);
	for (i = 0; i < end; i++)
		if (i < 5 ? !isdigit((unsigned char)name[i]) : !is_name_character(name[i]))
			return 0;
	return (unsigned)strtoul(name, NULL, 10);
}

static void note_name(struct installation *out, const char *name, size_t length)
{
	unsigned count, i, version = parse_name(name, length);
	const struct migration *all = migrations_all(&count);

	for (i = 0; version && i < count; i++) {
		if (strlen(all[i].filename) != length || memcmp(all[i].filename, name, length) != 0)
			continue;
		if (all[i].version > out->counts[all[i].dir])
			out->counts[all[i].dir] = all[i].version;
		return;
	}
	out->unknown += version != 0;
}

/* A binary's names stand one behind the other, with nothing between. */
static void search_names(struct installation *out, const char *data, size_t size)
{
	const char *at = data, *end = data + size, *start;

	while ((at = memmem(at, (size_t)(end - at), SQL_SUFFIX, sizeof(SQL_SUFFIX) - 1))) {
		start = at;
		at += sizeof(SQL_SUFFIX) - 1;
		while (start > data && is_name_character(start[-1]) && at - start < 128)
			start--;
		/* What is before it may end in digits and letters too. */
		while (start < at && !parse_name(start, (size_t)(at - start)))
			start++;
		note_name(out, start, (size_t)(at - start));
	}
}

static int read_binary(struct installation *out)
{
	int fd = open(out->file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	void *map;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > BINARY_MAX ||
	    st.st_size == 0) {
		close(fd);
		return -ENOENT;
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return -errno;
	search_names(out, map, (size_t)st.st_size);
	munmap(map, (size_t)st.st_size);
	return 0;
}

/* out->file is .../migrations/sysdb */
static int read_sql_files(struct installation *out)
{
	char path[PATH_MAX];
	const struct dirent *entry;
	unsigned i;
	DIR *dir;

	*strrchr(out->file, '/') = '\0';
	for (i = 0; i < MIGRATION_DIRS; i++) {
		if (snprintf(path, sizeof(path), "%s/%s", out->file, migration_dir_names[i]) >=
		    (int)sizeof(path))
			return -ENAMETOOLONG;
		dir = opendir(path);
		while (dir && (entry = readdir(dir)))
			note_name(out, entry->d_name, strlen(entry->d_name));
		if (dir)
			closedir(dir);
	}
	return 0;
}

static bool has_migrations(const struct installation *i)
{
	return i->counts[MIGRATION_QUEUE] && i->counts[MIGRATION_METADB] &&
	       i->counts[MIGRATION_SYSDB];
}

/* ---- the release ---- */

static bool take_release(struct installation *out, const char *text)
{
	size_t n = strspn(text, "0123456789.");

	if (n == 0 || n >= sizeof(out->release) || !isdigit((unsigned char)text[0]))
		return false;
	memcpy(out->release, text, n);
	while (n > 0 && out->release[n - 1] == '.') /* "1.5.9.dist-info" */
		n--;
	out->release[n] = '\0';
	return true;
}

/* The directory `levels` above out->file, with a pattern behind it. */
static bool make_pattern(char *out, size_t room, const char *file, int levels, const char *name)
{
	size_t n = strlen(file);

	for (; levels > 0; levels--) {
		while (n > 0 && file[n - 1] != '/')
			n--;
		if (n > 0)
			n--;
	}
	return snprintf(out, room, "%.*s/%s", (int)n, file, name) < (int)room;
}

static void release_of_python(struct installation *out)
{
	char pattern[PATH_MAX];
	glob_t found;

	/* .../site-packages/chromadb_rust_bindings/x.so, or .../site-packages/chromadb/migrations
	 */
	if (!make_pattern(pattern, sizeof(pattern), out->file, 2, "chromadb-[0-9]*.dist-info") ||
	    glob(pattern, 0, NULL, &found) != 0)
		return;
	take_release(out, strrchr(found.gl_pathv[0], '/') + sizeof("chromadb-"));
	globfree(&found);
}

static void release_of_node(struct installation *out)
{
	char path[PATH_MAX], *text = NULL, *at;
	size_t size;
	int fd;

	if (!make_pattern(path, sizeof(path), out->file, 1, "package.json"))
		return;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && file_read_all(fd, 1u << 20, &text, &size) == 0 &&
	    (at = strstr(text, "\"version\"")) && (at = strchr(at + 9, ':')) &&
	    (at = strchr(at, '"')))
		take_release(out, at + 1);
	free(text);
	if (fd >= 0)
		close(fd);
}

/* ---- finding it ---- */

/* Reads what was found; 0 only if it is a Chroma. */
static int look_at(struct installation *out, const char *file)
{
	int r;

	*out = (struct installation){0};
	if (strlcpy(out->file, file, sizeof(out->file)) >= sizeof(out->file))
		return -ENAMETOOLONG;
	r = text_ends_with(file, "/migrations/sysdb") ? read_sql_files(out) : read_binary(out);
	if (r == 0 && !has_migrations(out))
		r = -ENOENT;
	if (r < 0)
		return r;
	if (text_ends_with(file, ".node"))
		release_of_node(out);
	else
		release_of_python(out);
	return 0;
}

static int search_directory(const char *dir, struct installation *out)
{
	char pattern[PATH_MAX];
	glob_t found;
	size_t i, k;
	int r = -ENOENT;

	if (strpbrk(dir, "*?[\\"))
		return -ENOENT;
	for (i = 0; r == -ENOENT && i < sizeof(places) / sizeof(places[0]); i++) {
		if (snprintf(pattern, sizeof(pattern), "%s/%s", dir, places[i]) >=
			(int)sizeof(pattern) ||
		    glob(pattern, 0, NULL, &found) != 0)
			continue;
		for (k = 0; r == -ENOENT && k < found.gl_pathc; k++)
			r = look_at(out, found.gl_pathv[k]);
		globfree(&found);
	}
	return r;
}

/* A program's directory and those above it, up to the root's children. */
static int search_upwards(const char *program, struct installation *out)
{
	char dir[PATH_MAX], *slash;
	int i, r = -ENOENT;

	strlcpy(dir, program, sizeof(dir));
	for (i = 0; r == -ENOENT && i < ANCESTORS; i++) {
		slash = strrchr(dir, '/');
		if (!slash || slash == dir)
			break;
		*slash = '\0';
		r = search_directory(dir, out);
	}
	return r;
}

/* Absolute, but with the program's own links left: an environment's python is one. */
static int make_absolute(const char *path, char out[PATH_MAX])
{
	char parent[PATH_MAX], whole[PATH_MAX];
	const char *name = strrchr(path, '/');

	name = name ? name + 1 : path;
	if (strlcpy(parent, path, sizeof(parent)) >= sizeof(parent))
		return -ENAMETOOLONG;
	parent[name - path] = '\0';
	if (!realpath(parent[0] ? parent : ".", whole))
		return -errno;
	if (snprintf(out, PATH_MAX, "%s/%s", strcmp(whole, "/") == 0 ? "" : whole, name) >=
	    PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

static int find_in_path(const char *word, char out[PATH_MAX])
{
	const char *at = getenv("PATH");
	size_t n;

	for (; at && *at; at += n + (at[n] == ':')) {
		n = strcspn(at, ":");
		if (n && snprintf(out, PATH_MAX, "%.*s/%s", (int)n, at, word) < PATH_MAX &&
		    access(out, X_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

static int find_by_program(const char *path, struct installation *out)
{
	char absolute[PATH_MAX], real[PATH_MAX];
	int r = make_absolute(path, absolute);

	if (r == 0)
		r = search_upwards(absolute, out);
	/* node_modules/.bin/chroma is a link to the package's script. */
	if (r == -ENOENT && realpath(path, real) && strcmp(real, absolute) != 0)
		r = search_upwards(real, out);
	return r;
}

int installation_find(const char *path, struct installation *out)
{
	char found[PATH_MAX];
	struct stat st;
	int r;

	*out = (struct installation){0};
	if (stat(path, &st) < 0) {
		if (errno != ENOENT || strchr(path, '/') || find_in_path(path, found) < 0 ||
		    stat(found, &st) < 0)
			return errno == EACCES ? -EACCES : -ENOENT;
		path = found;
	}
	if (S_ISDIR(st.st_mode)) {
		char real[PATH_MAX];

		return realpath(path, real) ? search_directory(real, out) : -errno;
	}
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	r = (uint64_t)st.st_size >= BINARY_MIN ? look_at(out, path) : -ENOENT;
	return r == -ENOENT ? find_by_program(path, out) : r;
}

enum migration_verdict installation_judge(const struct installation *i,
					  const unsigned counts[MIGRATION_DIRS])
{
	return migrations_judge_carried(counts, i->counts, i->release);
}
