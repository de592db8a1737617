/* SPDX-License-Identifier: MIT
 *
 * Files of the store that are held open for the sake of their locks, without a descriptor: as long
 * as a map of a file is there, the kernel keeps it open. What the host closes does not touch it,
 * and a forked child does not get it. Where maps do not keep a file open (overlayfs maps the one
 * below), a hidden descriptor does.
 */
#ifndef PRELOAD_HOLDS_H
#define PRELOAD_HOLDS_H

#include <stdbool.h>

struct hold {
	void *map; /* NULL: not by one */
	int fd;	   /* hidden; 0 or below: not by one */
};

static inline bool hold_is(const struct hold *h)
{
	return h->map || h->fd > 0;
}

/* fd, which is closed, becomes h's; what h had before is let go of then. 0 or -errno. */
int hold_keep(struct hold *h, int fd, bool by_map);
/* Lets go of it; its locks go with it. */
void hold_let_go(struct hold *h);
/* In a forked child: it was the parent's. */
void hold_fork(struct hold *h);

#endif
