/* SPDX-License-Identifier: MIT
 *
 * Holding files open by maps.
 */
#include "preload/place/holds.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>

#include "preload/base/shim.h"

#define PAGE 4096 /* nothing of it is ever touched */

/* NULL: it cannot be had. */
static void *map_only(int fd)
{
	void *map = sys_mmap(PAGE, PROT_NONE, MAP_PRIVATE, fd, 0);

	if (sys_map_failed(map))
		return NULL;
	if (SYS3(SYS_madvise, map, PAGE, MADV_DONTFORK) == 0)
		return map;
	sys_munmap(map, PAGE);
	return NULL;
}

int hold_keep(struct hold *h, int fd, bool by_map)
{
	struct hold fresh = {.map = by_map ? map_only(fd) : NULL, .fd = -1};
	struct hold old = *h;

	*h = fresh;
	if (fresh.map)
		sys_close(fd);
	else
		hidden_adopt(fd, &h->fd);
	hold_let_go(&old);
	return hold_is(h) ? 0 : h->fd;
}

void hold_let_go(struct hold *h)
{
	struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	if (h->map)
		sys_munmap(h->map, PAGE);
	h->map = NULL;
	/* A child that is about to exec has a copy, which closing would leave locked. */
	if (h->fd > 0)
		sys_fcntl(h->fd, F_OFD_SETLK, (unsigned long)&all);
	hidden_release(&h->fd);
	h->fd = -1;
}

void hold_fork(struct hold *h)
{
	h->map = NULL;
	hidden_release(&h->fd);
	h->fd = -1;
}
