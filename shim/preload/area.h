/* SPDX-License-Identifier: MIT
 *
 * Protected directories of this process: their root, their store, their log.
 */
#ifndef PRELOAD_AREA_H
#define PRELOAD_AREA_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/oplog.h"
#include "preload/files.h"

#define AREAS 64 /* directories that one process can have protected */
#define STORE_NAME ".chromashim"

struct area {
	char root[PATH_MAX]; /* absolute, no symbolic links, no trailing slash */
	size_t root_length;
	dev_t dev;
	ino_t ino;
	uint64_t since;	  /* ns, CLOCK_REALTIME */
	int store_fd;	  /* hidden descriptor of the store, -1: unprotected */
	int oplog_fd;	  /* hidden descriptor of its oplog/ */
	struct oplog_writer log;
	bool store_inside; /* the store is <root>/.chromashim */
	_Atomic bool ready;
};

extern struct area areas[AREAS];
extern _Atomic unsigned areas_used;

static inline struct area *area_of(union slot s)
{
	return &areas[s.area];
}

/* Finds or makes the area of the directory that dirfd is open on. NULL: none left, or not wanted. */
struct area *area_claim(int dirfd);

/* In a forked child. */
void areas_fork(void);
void areas_finish(void);

#endif
