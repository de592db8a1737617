/* SPDX-License-Identifier: MIT
 *
 * Other processes, by /proc. And what SQLite a file carries.
 */
#include "command/base/processes.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LARGEST (64 << 20)		/* of a library that is looked into */
#define MARK "chromashim_protect_begin" /* of the C API: every version exports it */

#define LINK_NAME "/libchromashim-" /* where its own path has a blank: command/run/library.c */

#define NEAR (1u << 20)

/* Asks `is` of each line of the process's maps until it says true: 1, 0, or -errno. */
static int maps_any(uint32_t pid, bool (*is)(char *line, const void *context), const void *context)
{
	char path[64], *line = NULL;
	size_t room = 0;
	int found = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/maps", pid);
	maps = fopen(path, "re");
	if (!maps)
		return -errno;
	while (!found && getline(&line, &room, maps) > 0)
		found = is(line, context);
	if (!found && ferror(maps))
		found = -EIO;
	free(line);
	fclose(maps);
	return found;
}

struct mapped_file {
	uint64_t device, inode;
	const char *name;
};

static bool maps_line_is_file(char *line, const void *context)
{
	const struct mapped_file *file = context;
	unsigned major_number, minor_number;
	uint64_t inode;
	char *at;

	if (sscanf(line, "%*s %*s %*s %x:%x %" SCNu64, &major_number, &minor_number, &inode) != 3 ||
	    inode != file->inode)
		return false;
	/* On btrfs and overlayfs stat() and maps name different devices. */
	at = strrchr(line, '/');
	return makedev(major_number, minor_number) == file->device ||
	       (at && !strncmp(at + 1, file->name, strlen(file->name)));
}

int process_maps_file(uint32_t pid, uint64_t device, uint64_t inode, const char *name)
{
	const struct mapped_file file = {device, inode, name};

	return maps_any(pid, maps_line_is_file, &file);
}

bool process_is_chroma(uint32_t pid)
{
	static const char *const parts[] = {"chromadb_rust_bindings", "chromadb-js-bindings",
					    "hnswlib"};
	char path[64], *line = NULL;
	size_t room = 0;
	bool found = false;
	unsigned i;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/maps", pid);
	maps = fopen(path, "re");
	while (maps && !found && getline(&line, &room, maps) > 0)
		for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
			found |= strstr(line, parts[i]) != NULL;
	free(line);
	if (maps)
		fclose(maps);
	return found;
}

/* False: there is no such process. */
static bool read_stat(uint32_t pid, char *state, uint32_t *parent)
{
	char path[64], text[512], *at;
	bool good;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	/* A name may have brackets and spaces in it. */
	at = fgets(text, sizeof(text), f) ? strrchr(text, ')') : NULL;
	good = at && sscanf(at + 1, " %c %" SCNu32, state, parent) == 2;
	fclose(f);
	return good;
}

uint32_t process_parent(uint32_t pid)
{
	uint32_t parent;
	char state;

	return read_stat(pid, &state, &parent) ? parent : 0;
}

bool process_is_stopped(uint32_t pid)
{
	uint32_t parent;
	char state;

	return read_stat(pid, &state, &parent) && state == 'T';
}

/* The whole of a library's file; MAP_FAILED: it is none. */
static char *library_map(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	char *map = MAP_FAILED;
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
	    st.st_size < LARGEST)
		map = mmap(NULL, *size = (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (fd >= 0)
		close(fd);
	if (map != MAP_FAILED && !memmem(map, *size, MARK, sizeof(MARK))) {
		munmap(map, *size);
		map = MAP_FAILED;
	}
	return map;
}

bool file_is_library(const char *path)
{
	size_t size;
	char *map = library_map(path, &size);

	if (map == MAP_FAILED)
		return false;
	munmap(map, size);
	return true;
}

bool file_library_version(const char *path, char out[VERSION_TEXT])
{
	static const size_t n = sizeof(VERSION_MARK) - 1;
	size_t size;
	char *map = library_map(path, &size), *at = map;
	uint32_t number = 0;

	if (map == MAP_FAILED)
		return false;
	while (!number && (at = memmem(at, size - (size_t)(at - map), VERSION_MARK, n))) {
		at += n;
		if (memchr(at, '\0', size - (size_t)(at - map)))
			number = version_number(at);
	}
	munmap(map, size);
	version_text(out, number);
	return number != 0;
}

struct mapped_library {
	const char *path;
	const struct stat *file;
};

/* This very file, another one that was or is at its path, or another version. */
static bool maps_line_is_library(char *line, const void *context)
{
	const struct mapped_library *library = context;
	const char *name, *wanted = strrchr(library->path, '/');
	char *at = strchr(line, '/');
	uint64_t inode;

	if (!at || sscanf(line, "%*s %*s %*s %*s %" SCNu64, &inode) != 1)
		return false;
	at[strcspn(at, "\n")] = '\0';
	name = strrchr(at, '/') + 1;
	if (!strncmp(at, library->path, strlen(library->path)))
		return true;
	if (inode == library->file->st_ino && wanted &&
	    !strncmp(name, wanted + 1, strlen(wanted + 1)))
		return true;
	return strstr(name, "chromashim") && file_is_library(at);
}

int process_has_library(uint32_t pid, const char *path, const struct stat *file)
{
	const struct mapped_library library = {path, file};

	return maps_any(pid, maps_line_is_library, &library);
}

int process_names_library(uint32_t pid, const char *path)
{
	char environment[64], *one = NULL;
	size_t room = 0;
	int found = 0;
	FILE *f;

	snprintf(environment, sizeof(environment), "/proc/%" PRIu32 "/environ", pid);
	f = fopen(environment, "re");
	if (!f)
		return -errno;
	while (!found && getdelim(&one, &room, '\0', f) > 0)
		found = !strncmp(one, "LD_PRELOAD=", strlen("LD_PRELOAD=")) &&
			(strstr(one, path) || strstr(one, LINK_NAME));
	free(one);
	fclose(f);
	return found;
}

/* ---- the library's file ---- */

struct library_look {
	enum library_file found;
	char path[PATH_MAX]; /* where it was loaded from */
};

static bool maps_line_of_library(char *line, const void *context)
{
	static const char deleted[] = " (deleted)";
	struct library_look *look = *(struct library_look *const *)context;
	char *path = strchr(line, '/'), *name = path ? strrchr(path, '/') + 1 : NULL, *end;

	if (!name || strncmp(name, "libchromashim", strlen("libchromashim")) != 0)
		return false;
	path[strcspn(path, "\n")] = '\0';
	end = path + strlen(path) - (sizeof(deleted) - 1);
	look->found = LIBRARY_LOADED;
	if (end > path && strcmp(end, deleted) == 0) {
		*end = '\0';
		look->found = LIBRARY_REMOVED;
	}
	snprintf(look->path, sizeof(look->path), "%s", path);
	return true;
}

/* As the process sees it. */
static bool library_is_at(uint32_t pid, const char *path)
{
	char inside[PATH_MAX + 32];

	snprintf(inside, sizeof(inside), "/proc/%" PRIu32 "/root%s", pid, path);
	return file_is_library(inside);
}

/* What it was started with: pip moves an old file elsewhere before it is removed. */
static bool library_is_preloaded(uint32_t pid)
{
	char environment[64], *one = NULL, *path, *rest;
	size_t room = 0;
	bool found = false;
	FILE *f;

	snprintf(environment, sizeof(environment), "/proc/%" PRIu32 "/environ", pid);
	f = fopen(environment, "re");
	while (f && !found && getdelim(&one, &room, '\0', f) > 0) {
		rest = one + strlen("LD_PRELOAD=");
		if (strncmp(one, "LD_PRELOAD=", strlen("LD_PRELOAD=")) != 0)
			continue;
		while (!found && (path = strsep(&rest, " :")))
			found = *path == '/' && library_is_at(pid, path);
	}
	free(one);
	if (f)
		fclose(f);
	return found;
}

enum library_file process_library_file(uint32_t pid)
{
	struct library_look look = {.found = LIBRARY_UNSEEN}, *context = &look;

	maps_any(pid, maps_line_of_library, &context);
	if (look.found == LIBRARY_REMOVED &&
	    (library_is_at(pid, look.path) || library_is_preloaded(pid)))
		look.found = LIBRARY_REPLACED;
	return look.found;
}

/* ---- SQLite in a file ---- */

/* 'd' a digit, 'h' a hexadecimal one, else itself. */
static bool fits(const char *text, const char *pattern)
{
	for (; *pattern; pattern++, text++) {
		if (*pattern == 'd' ? !isdigit((unsigned char)*text) : *text != *pattern)
			return false;
	}
	return true;
}

static bool is_source_id(const char *text)
{
	int i;

	if (!fits(text, "20dd-dd-dd dd:dd:dd "))
		return false;
	for (i = 20; i < 84; i++)
		if (!isxdigit((unsigned char)text[i]) || isupper((unsigned char)text[i]))
			return false;
	return true;
}

/* Length of "3.46.0" or "3.46.0.1" at text, 0 if there is none. */
static size_t version_length(const char *text, size_t size)
{
	size_t i, dots = 0;

	if (size < 8 || text[0] != '3' || text[1] != '.')
		return 0;
	for (i = 0; i < size && i < 12 && (isdigit((unsigned char)text[i]) || text[i] == '.'); i++)
		dots += text[i] == '.';
	return dots >= 2 && dots <= 3 && i < size && text[i - 1] != '.' ? i : 0;
}

/*
 * sqlite3_version[] is a constant like the source id, mostly near it. Where the linker has put it
 * far away, it is taken if nothing else in the file looks like one.
 */
static void find_version(const char *data, size_t size, size_t at, struct sqlite_build *out)
{
	const char *p = data + 1, *end = data + size, *best = NULL;
	size_t best_length = 0, nearest = SIZE_MAX;
	bool differ = false;

	while (end - p > 8 && (p = memmem(p, (size_t)(end - p), "3.", 2))) {
		size_t n = version_length(p, (size_t)(end - p));
		size_t here = (size_t)(p - data), distance = here > at ? here - at : at - here;

		if (n && n < sizeof(out->version) && p[n] == '\0' &&
		    !isalnum((unsigned char)p[-1]) && p[-1] != '.') {
			differ |= best && (n != best_length || memcmp(p, best, n) != 0);
			if (distance < nearest) {
				nearest = distance;
				best = p;
				best_length = n;
			}
		}
		p++;
	}
	if (!best || (differ && nearest > NEAR))
		return;
	memcpy(out->version, best, best_length);
	out->version[best_length] = '\0';
}

bool sqlite_build_find(const char *data, size_t size, struct sqlite_build *out)
{
	const char *p = data, *end = data + size;

	memset(out, 0, sizeof(*out));
	while (end - p > 84 && (p = memmem(p, (size_t)(end - p), "20", 2)) && end - p > 84) {
		if (is_source_id(p)) {
			memcpy(out->source_id, p, 84);
			out->source_id[84] = '\0';
			find_version(data, size, (size_t)(p - data), out);
			return true;
		}
		p++;
	}
	return false;
}

static bool search_file(const char *path, struct sqlite_build *out)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	bool found = false;
	struct stat st;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
		void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

		if (map != MAP_FAILED) {
			found = sqlite_build_find(map, (size_t)st.st_size, out);
			munmap(map, (size_t)st.st_size);
		}
	}
	close(fd);
	return found;
}

bool process_find_sqlite(uint32_t pid, const char *path, struct sqlite_build *out)
{
	char inside[4200];

	memset(out, 0, sizeof(*out));
	if (*path != '/')
		return false;
	/* In a container, the path is the container's. */
	snprintf(inside, sizeof(inside), "/proc/%" PRIu32 "/root%.4096s", pid, path);
	return search_file(inside, out) || search_file(path, out);
}

/* ---- this one ---- */

/* In a libc and a kernel that have no close_range(), too. */
static void close_from(int first)
{
	struct dirent *entry;
	DIR *all;

	if (syscall(SYS_close_range, first, ~0U, 0) == 0)
		return;
	all = opendir("/proc/self/fd");
	while (all && (entry = readdir(all))) {
		int fd = atoi(entry->d_name);

		if (fd >= first && fd != dirfd(all))
			close(fd);
	}
	if (all)
		closedir(all);
}

void process_shed_host(void)
{
	sigset_t none;
	int fd, number;

	/* What is opened later must not become a standard stream. */
	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd < 3);
	close_from(3);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (number = 1; number < NSIG; number++)
		if (number != SIGPIPE)
			signal(number, SIG_DFL);
	unsetenv("LD_PRELOAD");
}
