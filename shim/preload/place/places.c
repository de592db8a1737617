/* SPDX-License-Identifier: MIT
 *
 * From a path to a protected file.
 *
 * A path is ours if it begins with a root (or with another spelling of it that the host has used),
 * if it is relative to a directory that is ours by its inode, or if the open descriptor says so.
 */
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/base/checksum.h"
#include "core/base/names.h"
#include "preload/base/readable.h"
#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/place/files.h"
#include "preload/place/named.h"
#include "preload/place/stores.h"

static struct protection *(*claim)(int dirfd);
static void (*look)(int dirfd);

void places_hand_in(struct protection *(*claims)(int dirfd), void (*looks)(int dirfd))
{
	claim = claims;
	look = looks;
}

static bool settled(struct place *place, unsigned protection)
{
	place_settle(place, protection);
	return place->slot.all != 0;
}

/* ---- finding ---- */

static bool find_by_root(struct place *place, const char *path)
{
	unsigned i, used = atomic_load_explicit(&protections_used, memory_order_acquire);

	for (i = 0; i < used; i++) {
		struct protection *a = &protections[i];
		size_t k;

		if (!atomic_load_explicit(&a->ready, memory_order_acquire))
			continue;
		for (k = 0; k < a->spellings; k++) {
			size_t n = a->spelling_length[k];

			if (strncmp(path, a->spelling[k], n) == 0 &&
			    (path[n] == '/' || path[n] == '\0' || n == 1))
				return place_join(place_room(place), ".", path + n) &&
				       settled(place, i);
		}
	}
	return false;
}

/* A directory that is not known by inode: one that another process made lately? */
static bool learn_directory(int dirfd, const char *directory, struct place *place)
{
	SCRATCH(path);
	struct stat st;
	bool found = false;
	int fd = sys_openat(dirfd, directory, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);

	if (fd < 0)
		return false;
	if (path && descriptor_path(fd, path, SCRATCH_SIZE) && sys_fstat(fd, &st) == 0) {
		found = find_by_root(place, path);
		if (!found && store_holds(path)) {
			store_settle(place, path);
			found = true;
		}
		if (found)
			directory_learn(place, &st);
		else
			directory_stranger(&st);
	}
	sys_close(fd);
	return found;
}

/* By the inode of the directory that the last component is in. */
static bool find_by_parent(struct place *place, int dirfd, const char *path)
{
	SCRATCH(parent);
	size_t length = strlen(path), cut;
	struct stat st;
	uint32_t name;

	if (!parent || length >= PLACE_MAX)
		return false;
	memcpy(parent, path, length + 1);
	while (length > 1 && parent[length - 1] == '/')
		parent[--length] = '\0';
	for (cut = length; cut > 0 && parent[cut - 1] != '/'; cut--)
		;
	if (strcmp(parent + cut, "..") == 0 || strcmp(parent + cut, ".") == 0)
		return learn_directory(dirfd, parent, place);
	if (cut == 0)
		memcpy(parent, ".", 2);
	else
		parent[cut > 1 ? cut - 1 : 1] = '\0';
	if (sys_fstatat(dirfd, parent, &st, 0) < 0)
		return false;
	name = directory_find(dirfd, parent, &st);
	if (!name && directory_device(st.st_dev) && !directory_is_stranger(&st) &&
	    learn_directory(dirfd, parent, place)) {
		if (place->slot.role == ROLE_STORE)
			return true;
		name = place->slot.name;
	}
	if (!name) /* the root itself, named from the directory above it? */
		return directory_device(st.st_dev) &&
		       sys_fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		       S_ISDIR(st.st_mode) && directory_is_root(&st) &&
		       learn_directory(dirfd, path, place);
	return place_join(place_room(place), name_text(name_get(name)), path + cut) &&
	       settled(place, name_get(name)->protection);
}

/*
 * Names that only Chroma's files have: how far above is their data directory? 0: none of them. A
 * process that has opened no database (rm, tar, a shell) learns by them whose files it changes.
 */
static unsigned levels_above(const char *name, size_t n)
{
	static const char *const in_segment[] = {"header.bin", "data_level0.bin", "length.bin",
						 "link_lists.bin", "index_metadata.pickle"};
	size_t i, k = sizeof(CHROMA_DATABASE) - 1;

	if (n < 10 || n > 36)
		return 0;
	if (n == 36 ? name[8] == '-' && name[23] == '-'
		    : n >= k && memcmp(name, CHROMA_DATABASE, k) == 0)
		return 1;
	for (i = 0; i < sizeof(in_segment) / sizeof(in_segment[0]); i++)
		if (strlen(in_segment[i]) == n && memcmp(name, in_segment[i], n) == 0)
			return 2;
	return 0;
}

/* The directory that has a store is taken under protection. */
static bool claim_with_store(int dirfd, const char *directory)
{
	struct protection *a = NULL;
	struct stat st;
	int fd;

	if (shim_borrowed())
		return false;
	fd = sys_openat(dirfd, directory, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	if (sys_fstatat(fd, STORE_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		a = claim(fd);
	sys_close(fd);
	return a != NULL;
}

/* The data directory of a path whose last component, at `cut`, is so many levels below it. */
static bool claim_above(int dirfd, const char *path, size_t cut, unsigned levels)
{
	SCRATCH(directory);

	if (!directory)
		return false;
	if (cut == 0)
		memcpy(directory + cut++, ".", 1);
	else
		memcpy(directory, path, cut);
	memcpy(directory + cut, levels == 2 ? "/.." : "", levels == 2 ? 4 : 1);
	return claim_with_store(dirfd, directory);
}

static bool discover_by_name(int dirfd, const char *path)
{
	size_t end = strlen(path), cut;
	unsigned levels;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (cut = end; cut > 0 && path[cut - 1] != '/'; cut--)
		;
	levels = levels_above(path + cut, end - cut);
	if (__builtin_expect(!levels, 1) || cut + 4 > PLACE_MAX)
		return false;
	return claim_above(dirfd, path, cut, levels);
}

bool place_discover_root(int dirfd, const char *path)
{
	SCRATCH(store);
	size_t n = shim_live && text_is_readable(path) ? strlen(path) : 0;
	struct stat st;

	if (!n || !store || n + sizeof("/" STORE_NAME) > PLACE_MAX)
		return false;
	memcpy(store, path, n);
	memcpy(store + n, "/" STORE_NAME, sizeof("/" STORE_NAME));
	return sys_fstatat(dirfd, store, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
	       claim_with_store(dirfd, path);
}

/* Is the path in a directory that the setting names? One that is only read is so by its text. */
static __attribute__((noinline)) bool meet_named(const char *path, bool thorough)
{
	if (path[0] == '/' && (named_meet(path) || (!thorough && !path_has_dotdot(path))))
		return false;
	return named_wait();
}

/* True: it is in a store. */
static bool find_strange(struct place *place, int dirfd, const char *path, bool thorough)
{
	bool waits = named_wait() && meet_named(path, thorough);

	return store_find(place, dirfd, path,
			  waits ||
			      (thorough && (!atomic_load(&protections_used) || settings.store)));
}

bool place_find(struct place *place, int dirfd, const char *path, bool thorough)
{
	bool known;

	place->slot.all = 0;
	if (!shim_live || !text_is_readable(path) || !*path)
		return false;
	if (find_strange(place, dirfd, path, thorough))
		return true;
	known = atomic_load_explicit(&protections_used, memory_order_acquire);
	if (!known && !(thorough && discover_by_name(dirfd, path)))
		return false;
	if (path[0] == '/' && !thorough && !path_has_dotdot(path) && !find_by_root(place, path))
		return false;
	place->slot.all = 0;
	if (find_by_parent(place, dirfd, path))
		return true;
	return known && thorough && discover_by_name(dirfd, path) &&
	       find_by_parent(place, dirfd, path);
}

/* As the kernel does for calls that follow a symbolic link in the last component. */
bool place_find_target(struct place *place, int dirfd, const char *path, bool thorough)
{
	bool found = place_find(place, dirfd, path, thorough), alone;
	bool chromas = found && role_of_chroma(place->slot.role);
	struct stat st;
	int fd;

	if ((!found && !thorough) || !shim_live || !text_is_readable(path))
		return found;
	alone = !found && !atomic_load(&protections_used);
	if (alone && store_is_strange(dirfd, path))
		return false;
	if (sys_fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISLNK(st.st_mode)) {
		if (alone)
			store_strange(dirfd, path);
		return found;
	}
	fd = sys_openat(dirfd, path, O_PATH | O_CLOEXEC, 0);
	if (fd < 0)
		return found; /* it leads nowhere yet */
	found = place_of_descriptor(place, fd, false);
	sys_close(fd);
	/* One of Chroma's files that lies elsewhere, or here under a name that is none of Chroma's,
	 * is known by the name that it has here. */
	if (chromas && !(found && role_of_chroma(place->slot.role)))
		return place_find(place, dirfd, path, thorough);
	return found;
}

/* ---- strangers: absolute paths that were found not to be ours, believed for a second ---- */

#define STRANGERS 256

static _Atomic uint64_t strangers[STRANGERS];

/* Of the path, the second, and how often names were changed by this process. */
static uint64_t stranger_key(const char *path)
{
	return checksum64(path, strlen(path), strangers_moment()) | 1;
}

/* ---- opens ---- */

static bool is_database(const char *path)
{
	size_t n = strlen(path), k = sizeof(CHROMA_DATABASE) - 1;

	return n >= k && memcmp(path + n - k, CHROMA_DATABASE, k) == 0 &&
	       (n == k || path[n - k - 1] == '/');
}

/* Starts to protect the directory that the database is in, if it is not protected yet. */
static void discover(int dirfd, const char *path, int flags)
{
	SCRATCH(directory);
	size_t n = strlen(path) - (sizeof(CHROMA_DATABASE) - 1);
	struct stat st;
	int fd;

	if (!directory || n >= PLACE_MAX)
		return;
	memcpy(directory, path, n);
	while (n > 1 && directory[n - 1] == '/')
		n--;
	if (n == 0)
		directory[n++] = '.';
	directory[n] = '\0';
	fd = sys_openat(dirfd, directory, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	if ((flags & O_CREAT) || sys_fstatat(fd, CHROMA_DATABASE, &st, 0) == 0) {
		struct protection *a;

		if ((flags & (O_ACCMODE | O_TRUNC)) == O_RDWR && !shim_borrowed())
			look(fd);
		a = claim(fd);

		if (a && directory[0] == '/' && !path_has_dotdot(directory))
			protection_add_spelling(a, directory);
	}
	sys_close(fd);
}

void place_met_link(int dirfd, const char *path)
{
	if (shim_live && text_is_readable(path) && is_database(path))
		discover(dirfd, path, 0);
}

static bool find_for_open(struct place *place, int dirfd, const char *path, int flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;

	return flags & O_NOFOLLOW ? place_find(place, dirfd, path, writes)
				  : place_find_target(place, dirfd, path, writes);
}

bool place_find_for_open(struct place *place, int dirfd, const char *path, int flags)
{
	uint64_t key;

	place->slot.all = 0;
	if (!shim_live || !text_is_readable(path))
		return false;
	if (is_database(path))
		discover(dirfd, path, flags);
	if ((flags & O_ACCMODE) == O_RDONLY || path[0] != '/' || !atomic_load(&protections_used))
		return find_for_open(place, dirfd, path, flags);
	key = stranger_key(path);
	if (atomic_load_explicit(&strangers[key % STRANGERS], memory_order_relaxed) == key)
		return false;
	if (find_for_open(place, dirfd, path, flags))
		return true;
	atomic_store_explicit(&strangers[key % STRANGERS], key, memory_order_relaxed);
	return false;
}

bool place_of_descriptor(struct place *place, int fd, bool discover_too)
{
	SCRATCH(path);
	struct stat st;

	place->slot.all = 0;
	if (!shim_live || !path || sys_fstat(fd, &st) < 0 ||
	    !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return false;
	if (!descriptor_path(fd, path, SCRATCH_SIZE))
		return false;
	if (store_holds(path)) {
		store_settle(place, path);
		return true;
	}
	if (named_wait())
		named_meet_real(path);
	if (!discover_too && !directory_device(st.st_dev))
		return false;
	if (discover_too && is_database(path))
		discover(AT_FDCWD, path, 0);
	if (!find_by_root(place, path))
		return false;
	if (S_ISDIR(st.st_mode))
		place->slot.role = ROLE_DIRECTORY;
	return true;
}
