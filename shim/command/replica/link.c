/* SPDX-License-Identifier: MIT
 *
 * The way to a replica: what its kinds share.
 */
#include "command/replica/link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/base/tree.h"

static const struct link_kind *kind_of(const struct replica_link *l)
{
	switch (l->target.kind) {
	case REPLICA_SFTP:
		return &link_sftp;
	case REPLICA_RCLONE:
		return &link_rclone;
	default:
		return &link_directory;
	}
}

int link_open(struct replica_link *l, const struct replica_target *target, int workfd)
{
	int r = tree_empty(workfd);

	*l = (struct replica_link){.target = *target, .workfd = workfd, .rootfd = -1};
	if (r < 0 || target->kind != REPLICA_DIRECTORY)
		return r;
	l->rootfd = open(target->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->rootfd < 0)
		return link_fail(l, -errno,
				 "the directory '%s' cannot be opened: %s. Make it, or mount what "
				 "it is on",
				 target->path, strerror(errno));
	return 0;
}

void link_close(struct replica_link *l)
{
	if (l->workfd >= 0) {
		tree_empty(l->workfd);
		close(l->workfd);
	}
	if (l->rootfd >= 0)
		close(l->rootfd);
	l->workfd = l->rootfd = -1;
}

int link_list(struct replica_link *l, enum replica_folder folder, link_object_fn *fn, void *context)
{
	l->requests++;
	return kind_of(l)->list(l, folder, fn, context);
}

int link_send(struct replica_link *l, const struct replica_name *names, size_t count)
{
	int r;

	if (!count)
		return 0;
	l->requests++;
	r = kind_of(l)->send(l, names, count);
	link_clear(l);
	return r;
}

int link_fetch(struct replica_link *l, const struct replica_name *names, size_t count)
{
	int r = link_clear(l);

	l->requests++;
	return r < 0 || !count ? r : kind_of(l)->fetch(l, names, count);
}

int link_remove(struct replica_link *l, const struct replica_name *names, size_t count)
{
	l->requests++;
	return count ? kind_of(l)->remove(l, names, count) : 0;
}
