/* SPDX-License-Identifier: MIT
 *
 * A replica in a directory: another disk, or a share that is mounted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "command/replica/link.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/text.h"
#include "core/base/tree.h"

static int fail_object(struct replica_link *l, int r, const char *what, const char *name)
{
	return link_fail(l, r, "cannot %s '%s/%s': %s", what, l->target.path, name, strerror(-r));
}

/* ---- listing ---- */

static int list_one(int dirfd, const char *path, link_object_fn *fn, void *context)
{
	struct replica_name name;
	const char *end = strrchr(path, '/');
	struct stat st;

	if (!replica_name_parse(&name, path) ||
	    fstatat(dirfd, end + 1, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return 0;
	return fn(context, &name, (uint64_t)st.st_size);
}

static int list_directory(struct replica_link *l, const char *folder, link_object_fn *fn,
			  void *context)
{
	char path[REPLICA_NAME_SIZE + 256];
	const struct dirent *entry;
	DIR *dir;
	int fd = openat(l->rootfd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;

	if (fd < 0)
		return errno == ENOENT ? 0 : fail_object(l, -errno, "list", folder);
	r = file_names_of(fd, &dir);
	if (r < 0)
		return fail_object(l, r, "list", folder);
	while (r == 0 && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		r = list_one(dirfd(dir), path, fn, context);
	}
	closedir(dir);
	return r;
}

static int list_chunks(struct replica_link *l, link_object_fn *fn, void *context)
{
	char folder[24];
	unsigned i;
	int r = 0;

	for (i = 0; i < 256 && r == 0; i++) {
		snprintf(folder, sizeof(folder), "chunks/%02x", i);
		r = list_directory(l, folder, fn, context);
	}
	return r;
}

static int directory_list(struct replica_link *l, enum replica_folder folder, link_object_fn *fn,
			  void *context)
{
	return folder == REPLICA_CHUNKS
		   ? list_chunks(l, fn, context)
		   : list_directory(l, replica_folder_name(folder), fn, context);
}

/* ---- sending ---- */

/* The directory that an object is in, made if need be. */
static int open_parent(struct replica_link *l, const char *name, bool make)
{
	char path[REPLICA_NAME_SIZE], *slash;
	int fd;

	snprintf(path, sizeof(path), "%s", name);
	for (slash = strchr(path, '/'); slash && make; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdirat(l->rootfd, path, 0700) == 0)
			tree_sync(l->rootfd);
		else if (errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	*strrchr(path, '/') = '\0';
	fd = openat(l->rootfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void keep_rate(const struct replica_link *l, uint64_t bytes, uint64_t began)
{
	uint64_t should = l->rate ? bytes * SECOND / l->rate : 0;
	uint64_t took = clock_read(CLOCK_MONOTONIC) - began;
	struct timespec pause = {(time_t)((should - took) / SECOND),
				 (long)((should - took) % SECOND)};

	if (should > took)
		nanosleep(&pause, NULL);
}

/* Only where there is nothing; not every file system knows how in one step, and some directories
 * let nothing be renamed or removed: then the other name stays as well. */
static int name_it(int dirfd, const char *temporary, const char *name)
{
	struct stat st;

	if (renameat2(dirfd, temporary, dirfd, name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != EPERM)
		return -errno;
	if (linkat(dirfd, temporary, dirfd, name, 0) == 0) {
		unlinkat(dirfd, temporary, 0);
		return 0;
	}
	if (errno != EPERM && errno != EOPNOTSUPP)
		return -errno;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(dirfd, temporary, dirfd, name) < 0 ? -errno : 0;
}

static int copy_content(int from, int to)
{
	char buffer[65536];
	ssize_t n = 0;
	int r = 0;

	while (r == 0 && (n = read(from, buffer, sizeof(buffer))) != 0)
		r = n < 0 ? -errno : file_write_all(to, buffer, (size_t)n);
	return r;
}

/* Without a name until it is whole, where the file system can do that: nothing is left of what is
 * cut off, and nothing has to be renamed or removed. */
static int open_new(int dirfd, const char *temporary, bool *is_named)
{
	int fd = *is_named ? -1 : openat(dirfd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);

	*is_named = fd < 0;
	if (fd < 0)
		fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
	return fd < 0 ? -errno : fd;
}

static int name_unnamed(int fd, int dirfd, const char *name)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, dirfd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int make_object_as(int from, int dirfd, const char *name, bool is_named)
{
	uint64_t random = 0;
	char temporary[32];
	int fd, r;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		random = clock_read(CLOCK_MONOTONIC);
	snprintf(temporary, sizeof(temporary), ".%016llx.part", (unsigned long long)random);
	fd = open_new(dirfd, temporary, &is_named);
	if (fd < 0)
		return fd;
	r = copy_content(from, fd);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0)
		r = is_named ? name_it(dirfd, temporary, name) : name_unnamed(fd, dirfd, name);
	if (r < 0 && is_named)
		unlinkat(dirfd, temporary, 0);
	close(fd);
	return r;
}

/* Some can make what has no name, and not name it. */
static int make_object(int from, int dirfd, const char *name)
{
	int r = make_object_as(from, dirfd, name, false);

	if (r != -ENOENT && r != -EPERM && r != -EXDEV && r != -EOPNOTSUPP && r != -EINVAL)
		return r;
	return lseek(from, 0, SEEK_SET) < 0 ? -errno : make_object_as(from, dirfd, name, true);
}

/* As large as this one, with this name: it was sent before, and not noted. */
static bool is_same_size(int dirfd, const char *name, uint64_t size)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       (uint64_t)st.st_size == size;
}

static int send_one(struct replica_link *l, const struct replica_name *name)
{
	char text[REPLICA_NAME_SIZE];
	uint64_t size, began = clock_read(CLOCK_MONOTONIC);
	int from = link_fetched(l, name), dirfd, r;
	struct stat st;

	replica_name_format(text, name);
	if (from < 0)
		return fail_object(l, from, "read", text);
	size = fstat(from, &st) == 0 ? (uint64_t)st.st_size : 0;
	dirfd = open_parent(l, text, true);
	r = dirfd < 0 ? dirfd : make_object(from, dirfd, strrchr(text, '/') + 1);
	if (r == -EEXIST && name->folder == REPLICA_CHUNKS &&
	    is_same_size(dirfd, strrchr(text, '/') + 1, size))
		r = 0;
	if (r == 0)
		r = tree_sync(dirfd);
	close(from);
	if (dirfd >= 0)
		close(dirfd);
	keep_rate(l, size, began);
	return r < 0 ? fail_object(l, r, "write", text) : 0;
}

static int directory_send(struct replica_link *l, const struct replica_name *names, size_t count)
{
	size_t i;
	int r = 0;

	for (i = 0; i < count && r == 0; i++)
		r = send_one(l, &names[i]);
	return r;
}

/* ---- fetching and removing ---- */

static int fetch_one(struct replica_link *l, const struct replica_name *name)
{
	char text[REPLICA_NAME_SIZE];
	int dirfd, from, to, r;

	replica_name_format(text, name);
	dirfd = open_parent(l, text, false);
	from = dirfd < 0 ? dirfd : file_open_at(dirfd, strrchr(text, '/') + 1);
	if (dirfd >= 0)
		close(dirfd);
	if (from < 0)
		return from == -ENOENT || from == -ENOTDIR ? 0 : fail_object(l, from, "open", text);
	to = link_stage(l, name);
	r = to < 0 ? to : copy_content(from, to);
	if (to >= 0)
		close(to);
	close(from);
	return r < 0 ? fail_object(l, r, "read", text) : 0;
}

static int directory_fetch(struct replica_link *l, const struct replica_name *names, size_t count)
{
	size_t i;
	int r = 0;

	for (i = 0; i < count && r == 0; i++)
		r = fetch_one(l, &names[i]);
	return r;
}

static int directory_remove(struct replica_link *l, const struct replica_name *names, size_t count)
{
	char text[REPLICA_NAME_SIZE];
	size_t i;

	for (i = 0; i < count; i++) {
		replica_name_format(text, &names[i]);
		if (unlinkat(l->rootfd, text, 0) < 0 && errno != ENOENT)
			return fail_object(l, -errno, "remove", text);
	}
	return 0;
}

const struct link_kind link_directory = {directory_list, directory_send, directory_fetch,
					 directory_remove};
