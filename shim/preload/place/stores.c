/* SPDX-License-Identifier: MIT
 *
 * Which paths lie in a store, whatever they are called by, and the refusal to change anything
 * there. In a process that has no directory under protection (a shell, rm) this has to cost next to
 * nothing: one look at the text and one fstatat() for calls that change names or open for writing.
 */
#include "preload/place/stores.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/base/checksum.h"
#include "core/store/aside.h"
#include "preload/base/shim.h"
#include "preload/place/named.h"

#define FAMILIAR 1024
#define BELIEVED 256
#define SHORT 512		    /* a parent's path that is looked up without a second thought */
#define QUIET UINT64_C(10000000000) /* ns between two lines */

/* Directories that were found to be in no store; and paths, which are believed for a second. */
static _Atomic uint64_t familiar[FAMILIAR];
static _Atomic uint64_t believed[BELIEVED];
static _Atomic uint32_t working_directory; /* which it is, by number */

static uint64_t familiar_key(const struct stat *st)
{
	return (st->st_ino * UINT64_C(0x9e3779b97f4a7c15) ^ st->st_dev) | 1;
}

/* ---- absolute paths ---- */

static bool is_there(char path[PATH_MAX], size_t length, const char *name)
{
	size_t n = strlen(name) + 1;
	char before[32];
	struct stat st;
	int r;

	if (n > sizeof(before) || length + n > PATH_MAX)
		return false;
	memcpy(before, path + length, n);
	memcpy(path + length, name, n);
	r = sys_fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW);
	memcpy(path + length, before, n);
	return r == 0 || r == -EACCES; /* it is private */
}

static bool is_in(const char *path, int storefd)
{
	SCRATCH(store);
	size_t n;

	if (!store || !descriptor_path(storefd, store, SCRATCH_SIZE))
		return false;
	n = strlen(store);
	return n > 1 && strncmp(path, store, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* CHROMASHIM_STORE; elsewhere, and of any name. */
static __attribute__((noinline)) bool is_in_named_store(const char *path)
{
	unsigned i, used = atomic_load(&protections_used);
	bool found = false;
	int fd;

	for (i = 0; i < used && !found; i++)
		found = protections[i].store_fd > 0 && is_in(path, protections[i].store_fd);
	if (found || settings.store[0] != '/')
		return found;
	fd = sys_openat(AT_FDCWD, settings.store, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	found = is_in(path, fd);
	sys_close(fd);
	return found;
}

bool store_holds(char path[PATH_MAX])
{
	char *at = path;

	while ((at = strstr(at, STORE_NAME)) != NULL) {
		const char *from = at;

		at += sizeof(STORE_NAME) - 1;
		while (from > path && from[-1] != '/')
			from--;
		if (*from == '.' && (*at == '/' || *at == '\0') &&
		    (is_there(path, (size_t)(at - path), "/" OPLOG_DIR) ||
		     is_there(path, (size_t)(at - path), "/" STORE_IDENTITY)))
			return true;
	}
	return settings.store && is_in_named_store(path);
}

void store_settle(struct place *place, const char *path)
{
	size_t n = strnlen(path, PLACE_MAX - 1);

	place->slot = (union slot){.role = ROLE_STORE};
	if (!place_room(place))
		return;
	memcpy(place->relative, path, n);
	place->relative[n] = '\0';
}

/* ---- paths that are believed ---- */

void store_directory_changed(void)
{
	if (!shim_borrowed())
		atomic_fetch_add_explicit(&working_directory, 1, memory_order_relaxed);
}

/* 0: relative to a descriptor, which may be another directory at any time. */
static uint64_t belief(int dirfd, const char *path, size_t n)
{
	struct timespec now = {0, 0};
	uint32_t seed = path[0] == '/' ? 0 : atomic_load(&working_directory) * 2 + 1;

	if (seed && dirfd != AT_FDCWD)
		return 0;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return checksum64(path, n, (uint64_t)now.tv_sec << 32 | seed) | 1;
}

static bool is_believed(uint64_t key)
{
	return key && atomic_load_explicit(&believed[key % BELIEVED], memory_order_relaxed) == key;
}

static void believe(uint64_t key)
{
	if (key)
		atomic_store_explicit(&believed[key % BELIEVED], key, memory_order_relaxed);
}

bool store_is_strange(int dirfd, const char *path)
{
	return is_believed(belief(dirfd, path, strlen(path)));
}

void store_strange(int dirfd, const char *path)
{
	believe(belief(dirfd, path, strlen(path)));
}

/* ---- any path ---- */

/* Where the last component begins; the path itself if it ends in one that is not a name. */
static const char *last_component(const char *path)
{
	size_t n = strlen(path);
	const char *at;

	while (n > 1 && path[n - 1] == '/')
		n--;
	for (at = path + n; at > path && at[-1] != '/'; at--)
		;
	n -= (size_t)(at - path);
	return (n == 1 && at[0] == '.') || (n == 2 && at[0] == '.' && at[1] == '.') || *at == '/'
		   ? path + strlen(path)
		   : at;
}

/* Neither in a store nor in a directory that the setting names and that waits to be met. */
static bool leads_elsewhere(char path[PATH_MAX])
{
	return !(named_wait() && named_meet_real(path)) && !store_holds(path);
}

/* By the path that the kernel knows the directory by. */
static __attribute__((noinline)) bool look(struct place *place, int dirfd, const char *path)
{
	SCRATCH(real_path);
	char link[SYS_FD_PATH];
	const char *last = last_component(path);
	size_t cut = (size_t)(last - path);
	struct stat st;
	ssize_t n;
	bool found;
	int fd;

	if (!real_path || cut >= PATH_MAX)
		return false;
	memcpy(real_path, path, cut);
	real_path[cut] = '\0';
	fd = sys_openat(dirfd, cut ? real_path : ".", O_PATH | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	sys_fd_path(link, fd);
	n = sys_readlinkat(AT_FDCWD, link, real_path, PATH_MAX - 1);
	if (n <= 0 || real_path[0] != '/' || (size_t)n + strlen(last) + 2 > PATH_MAX) {
		sys_close(fd);
		return false;
	}
	real_path[n] = '\0';
	if (leads_elsewhere(real_path) && sys_fstat(fd, &st) == 0)
		atomic_store_explicit(&familiar[familiar_key(&st) % FAMILIAR], familiar_key(&st),
				      memory_order_relaxed);
	sys_close(fd);
	if (*last) {
		if (n > 1)
			real_path[n++] = '/';
		strcpy(real_path + n, last);
		for (n = (ssize_t)strlen(real_path); n > 1 && real_path[n - 1] == '/';)
			real_path[--n] = '\0';
	}
	found = !leads_elsewhere(real_path) && store_holds(real_path);
	if (found)
		store_settle(place, real_path);
	return found;
}

/* The directory that the path is in was looked at before, and is in no store. */
static bool is_familiar(int dirfd, const char *path)
{
	const char *last = last_component(path);
	size_t cut = (size_t)(last - path);
	char parent[SHORT];
	struct stat st;
	uint64_t key, text = belief(dirfd, path, cut);
	bool found;

	if (is_believed(text))
		return true;
	if (cut >= sizeof(parent))
		return false;
	memcpy(parent, path, cut);
	parent[cut] = '\0';
	if (sys_fstatat(dirfd, cut ? parent : ".", &st, 0) < 0)
		return true; /* there is no such file */
	key = familiar_key(&st);
	found = atomic_load_explicit(&familiar[key % FAMILIAR], memory_order_relaxed) == key;
	if (found)
		believe(text);
	return found;
}

bool store_find(struct place *place, int dirfd, const char *path, bool thorough)
{
	if (!strstr(path, STORE_NAME) && slot_of(dirfd).role != ROLE_STORE &&
	    (!thorough || is_familiar(dirfd, path)))
		return false;
	return look(place, dirfd, path);
}

/* ---- a directory that is removed ---- */

bool store_steps_aside(int dirfd, const char *path)
{
	char directory[PLACE_MAX], name[STORE_ASIDE_MAX];
	int fd, r, saved = errno;
	struct stat st;
	bool own;

	if (!shim_live || shim_borrowed())
		return false;
	fd = sys_openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	r = fd < 0 || descriptor_path(fd, directory, sizeof(directory)) ? fd : -ENOENT;
	own = r >= 0 && sys_fstatat(fd, STORE_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (r >= 0)
		r = store_aside_put(fd, directory);
	if (fd >= 0)
		sys_close(fd);
	if (r == 0 && own && store_aside_name(name, directory, 1))
		shim_say(directory, ": removed; its snapshots and its log are kept beside it, in ",
			 name, ". To have it back: chromashim restore --to latest ", directory,
			 NULL);
	errno = saved;
	return r == 0;
}

/* ---- refusing ---- */

static void say(const struct change *c)
{
	static _Atomic uint64_t last;
	const struct place *place =
	    c->target && c->target->slot.role == ROLE_STORE ? c->target : c->place;
	uint64_t before = atomic_load(&last), now = oplog_now();
	char path[PATH_MAX], link[SYS_FD_PATH];
	ssize_t n = 0;

	if ((before && now - before < QUIET) ||
	    !atomic_compare_exchange_strong(&last, &before, now))
		return;
	if (!place) {
		sys_fd_path(link, c->fd);
		n = sys_readlinkat(AT_FDCWD, link, path, sizeof(path) - 1);
		path[n > 0 ? n : 0] = '\0';
	}
	shim_say(place ? place->relative : path,
		 ": changing it is refused: it belongs to chromashim, and what a directory can be "
		 "restored from is there. To remove old snapshots: chromashim snapshot prune. To "
		 "get rid of all of it, stop the backend and remove it without LD_PRELOAD.",
		 NULL);
}

int store_refusal(const struct change *c)
{
	if (c->slot.role == ROLE_HIDDEN)
		return -EBADF; /* a descriptor of the shim's, which is not there for the host */
	say(c);
	return -EPERM;
}
