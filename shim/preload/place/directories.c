/* SPDX-License-Identifier: MIT
 *
 * Directories by device and inode: which of them are ours, whatever path leads there.
 *
 * Inodes are given out again, so what is found is looked at once more under the name that it is
 * known by; and what was found not to be ours is believed for a second. A segment may be a symbolic
 * link to a directory elsewhere: it is known by what it leads to.
 */
#include <dirent.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "core/base/checksum.h"
#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/place/files.h"

#define DIRECTORIES (1u << 17)
#define TRIES 16
#define NAME_BITS 21 /* more than there are names */
#define STRANGER ((1u << NAME_BITS) - 1)
#define DEVICES 8

/* Number of the name, and above it a digest of device and inode; 0: free. When a row of places is
 * taken, the first is overwritten: what it was is learned again. */
static _Atomic uint64_t directories[DIRECTORIES];

/* Devices that linked segments lie on. */
static _Atomic uint64_t devices[DEVICES]; /* + 1 */
static _Atomic bool many_devices;

static uint64_t digest(const struct stat *st, uint64_t moment)
{
	const uint64_t id[2] = {(uint64_t)st->st_dev, (uint64_t)st->st_ino};

	return checksum64(id, sizeof(id), moment) & ~(uint64_t)STRANGER;
}

static _Atomic uint64_t *place_at(uint64_t key, unsigned tries)
{
	return &directories[((key >> 40) + tries) % DIRECTORIES];
}

static uint32_t get(uint64_t key)
{
	unsigned i;

	for (i = 0; i < TRIES; i++) {
		uint64_t there = atomic_load_explicit(place_at(key, i), memory_order_relaxed);

		if (!there)
			return 0;
		if ((there & ~(uint64_t)STRANGER) == key)
			return (uint32_t)(there & STRANGER);
	}
	return 0;
}

static void put(uint64_t key, uint32_t name)
{
	unsigned i;

	for (i = 0; i < TRIES; i++) {
		uint64_t there = atomic_load(place_at(key, i));

		if ((!there || (there & ~(uint64_t)STRANGER) == key) &&
		    atomic_compare_exchange_strong(place_at(key, i), &there, key | name))
			return;
	}
	atomic_store(place_at(key, 0), key | name);
}

/* ---- devices and roots ---- */

bool directory_device(dev_t dev)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++)
		if (protections[i].ready && protections[i].dev == dev)
			return true;
	for (i = 0; i < DEVICES && atomic_load(&devices[i]); i++)
		if (atomic_load(&devices[i]) == (uint64_t)dev + 1)
			return true;
	return atomic_load(&many_devices);
}

static void learn_device(dev_t dev)
{
	unsigned i;

	if (directory_device(dev))
		return;
	for (i = 0; i < DEVICES; i++) {
		uint64_t none = 0;

		if (atomic_compare_exchange_strong(&devices[i], &none, (uint64_t)dev + 1) ||
		    none == (uint64_t)dev + 1)
			return;
	}
	atomic_store(&many_devices, true);
}

bool directory_is_root(const struct stat *st)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++)
		if (protections[i].ready && protections[i].ino == st->st_ino &&
		    protections[i].dev == st->st_dev)
			return true;
	return false;
}

/* ---- strangers ---- */

void directory_stranger(const struct stat *st)
{
	put(digest(st, strangers_moment()), STRANGER);
}

bool directory_is_stranger(const struct stat *st)
{
	return get(digest(st, strangers_moment())) == STRANGER;
}

/* ---- learning ---- */

void directory_learn(const struct place *place, const struct stat *st)
{
	bool root = strcmp(place->relative, ".") == 0;

	if (!place->slot.name || (!root && directory_is_root(st)))
		return;
	learn_device(st->st_dev);
	put(digest(st, 0), place->slot.name);
}

/* Of links, only those that may be a segment are followed. */
static bool may_be_ours(int dirfd, const char *path, const struct stat *st)
{
	const char *base = strrchr(path, '/');
	struct stat itself;

	if (!S_ISDIR(st->st_mode))
		return false;
	base = base ? base + 1 : path;
	return name_is_uuid(base, strlen(base)) ||
	       (sys_fstatat(dirfd, path, &itself, AT_SYMLINK_NOFOLLOW) == 0 &&
		S_ISDIR(itself.st_mode));
}

void directory_made(const struct place *place, int dirfd, const char *path)
{
	struct stat st;

	if (sys_fstatat(dirfd, path, &st, 0) == 0 && may_be_ours(dirfd, path, &st))
		directory_learn(place, &st);
}

/* By what the kernel knows without asking the file system: what is mounted there, or where another
 * link leads, need not answer. */
static bool find_known(int fd, const char *name, struct stat *st)
{
	struct statx x;
	int r = (int)SYS5(SYS_statx, fd, name,
			  AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
			  STATX_TYPE | STATX_INO, &x);

	if (r == -ENOSYS || r == -EPERM) /* no such call, or one that is filtered */
		return sys_fstatat(fd, name, st, AT_SYMLINK_NOFOLLOW) == 0;
	if (r < 0)
		return false;
	*st = (struct stat){.st_mode = x.stx_mode,
			    .st_ino = x.stx_ino,
			    .st_dev = makedev(x.stx_dev_major, x.stx_dev_minor)};
	return true;
}

/* A directory of a listing that may be one of ours. */
static bool find_listed(int fd, const struct linux_dirent64 *d, struct stat *st)
{
	if (strcmp(d->name, "..") == 0)
		return false;
	if (name_is_uuid(d->name, strlen(d->name)) || d->type == DT_UNKNOWN)
		return sys_fstatat(fd, d->name, st, 0) == 0 && may_be_ours(fd, d->name, st);
	return d->type == DT_DIR && find_known(fd, d->name, st) && S_ISDIR(st->st_mode);
}

void directories_read(unsigned protection, int dirfd)
{
	char buf[2048] __attribute__((aligned(8)));
	ssize_t n, at;
	int fd = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

	if (fd < 0)
		return;
	while ((n = sys_getdents(fd, buf, sizeof(buf))) > 0) {
		const struct linux_dirent64 *d;

		for (at = 0; at < n; at += d->length) {
			A_PLACE(place);
			struct stat st;

			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			if (!find_listed(fd, d, &st) ||
			    !place_join(place_room(&place), ".", d->name))
				continue;
			place_settle(&place, protection);
			directory_learn(&place, &st);
		}
	}
	sys_close(fd);
}

static void directories_renamed(const struct place *from, const struct place *to, bool exchanged)
{
	unsigned i;

	for (i = 0; i < DIRECTORIES; i++) {
		uint64_t there = atomic_load_explicit(&directories[i], memory_order_relaxed);
		uint32_t name = (uint32_t)(there & STRANGER), new;

		if (!name || name == STRANGER)
			continue;
		new = name_renamed(name_get(name), from, to);
		if (!new &&exchanged)
			new = name_renamed(name_get(name), to, from);
		if (new)
			atomic_compare_exchange_strong(&directories[i], &there,
						       (there & ~(uint64_t)STRANGER) | new);
	}
}

void files_renamed(const struct place *from, const struct place *to, bool exchanged)
{
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);
		uint32_t name;

		if (!slot_protected(s))
			continue;
		name = name_renamed(name_get(s.name), from, to);
		if (!name && exchanged)
			name = name_renamed(name_get(s.name), to, from);
		if (!name)
			continue;
		s.name = SLOT_NAME(name);
		s.protection = name_get(name)->protection;
		if (s.role != ROLE_DIRECTORY)
			s.role = name_get(name)->role;
		slot_set(fd, s);
	}
	directories_renamed(from, to, exchanged);
}

/* ---- finding ---- */

/* Whether the directory of that name is the one that was met. */
static bool is_still(uint32_t name, const struct stat *st)
{
	const struct name *n = name_get(name);
	const struct protection *a = &protections[n->protection];
	struct stat now;

	if (!atomic_load(&a->ready))
		return false;
	if (n->length == 1 && *name_text(n) == '.')
		return a->ino == st->st_ino && a->dev == st->st_dev;
	return sys_fstatat(a->root_fd, name_text(n), &now, 0) == 0 && now.st_ino == st->st_ino &&
	       now.st_dev == st->st_dev;
}

static uint32_t known(const struct stat *st)
{
	uint32_t name = get(digest(st, 0));

	return name && name != STRANGER && is_still(name, st) ? name : 0;
}

/*
 * By the directory above it, as the path has it: what a link, or another mount, leads to. On a
 * device where nothing of ours is known it can only be a segment.
 */
static uint32_t find_below(int dirfd, const char *path, const struct stat *st)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	SCRATCH(relative);
	A_PLACE(place);
	struct stat above;
	uint32_t name;

	if (!name_is_uuid(base, strlen(base)) || !relative ||
	    (size_t)(base - path) + 2 > SCRATCH_SIZE)
		return 0;
	memcpy(relative, path, (size_t)(base - path));
	strcpy(relative + (base - path), ".");
	if (sys_fstatat(dirfd, relative, &above, 0) < 0)
		return 0;
	name = known(&above);
	if (!name || !place_join(place_room(&place), name_text(name_get(name)), base))
		return 0;
	place_settle(&place, name_get(name)->protection);
	if (!place.slot.name || !is_still(place.slot.name, st))
		return 0;
	directory_learn(&place, st);
	return place.slot.name;
}

uint32_t directory_find(int dirfd, const char *path, const struct stat *st)
{
	uint32_t name = directory_device(st->st_dev) ? known(st) : 0;

	return name ? name : find_below(dirfd, path, st);
}
