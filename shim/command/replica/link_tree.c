/* SPDX-License-Identifier: MIT
 *
 * What lies in the working directory of a way to a replica, and why something went wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/replica/link.h"
#include "core/base/tree.h"

int link_fail(struct replica_link *l, int r, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(l->error, sizeof(l->error), format, ap);
	va_end(ap);
	return r;
}

int link_clear(struct replica_link *l)
{
	return tree_remove(l->workfd, LINK_TREE);
}

#define TREE_PATH (sizeof(LINK_TREE) + REPLICA_NAME_SIZE)

/* Its path in the working directory. */
static void tree_path(char out[TREE_PATH], const struct replica_name *name)
{
	memcpy(out, LINK_TREE "/", sizeof(LINK_TREE));
	replica_name_format(out + sizeof(LINK_TREE), name);
}

int link_make_room(struct replica_link *l, const struct replica_name *name)
{
	char path[TREE_PATH], *slash;

	tree_path(path, name);
	for (slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdirat(l->workfd, path, 0700) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return 0;
}

int link_stage(struct replica_link *l, const struct replica_name *name)
{
	char path[TREE_PATH];
	int r = link_make_room(l, name), fd;

	if (r < 0)
		return r;
	tree_path(path, name);
	fd = openat(l->workfd, path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int link_fetched(struct replica_link *l, const struct replica_name *name)
{
	char path[TREE_PATH];
	struct stat st;
	int fd;

	tree_path(path, name);
	fd = openat(l->workfd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return -ENOENT;
}
