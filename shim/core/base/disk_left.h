/* SPDX-License-Identifier: MIT
 *
 * How much a process can still write to a disk: what is free there, or what its quota leaves.
 */
#ifndef CORE_DISK_LEFT_H
#define CORE_DISK_LEFT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/quota.h"

/* What has to be left: the smaller of the two (CHROMASHIM_MIN_FREE). */
struct disk_floor {
	unsigned percent;
	uint64_t bytes;
};

struct disk_left {
	uint64_t free, total; /* bytes, as df counts: what is reserved for others is not there */
	bool of_quota;	      /* these two are a quota's, which is what ends first */
	uint64_t inodes, quota_inodes; /* that are free; UINT64_MAX: not limited */
};

static inline uint64_t disk_floor_of(struct disk_floor floor, uint64_t total)
{
	uint64_t percent = total / 100 * floor.percent;

	return percent < floor.bytes ? percent : floor.bytes;
}

/* Of the file system of fd, which may be an O_PATH one. 0 or -errno; -ENODATA: it does not tell.
 * Raw system calls only, async-signal-safe. */
int disk_left(int fd, struct disk_floor floor, struct disk_left *out);
/* A quota counts, where it ends first. */
void disk_left_limit(struct disk_left *left, struct disk_floor floor, const struct quota *quota);

#endif
