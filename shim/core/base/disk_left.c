/* SPDX-License-Identifier: MIT
 *
 * How much can still be written to a disk; see disk_left.h.
 */
#include "core/base/disk_left.h"

#include <sys/vfs.h>

#include "core/base/sys.h"

/* What is free beyond what has to be left; below zero: so much is lacking. */
static int64_t spare(struct disk_floor floor, uint64_t free, uint64_t total)
{
	return (int64_t)(free - disk_floor_of(floor, total));
}

void disk_left_limit(struct disk_left *left, struct disk_floor floor, const struct quota *quota)
{
	left->quota_inodes = quota->inodes;
	if (quota->free == UINT64_MAX ||
	    spare(floor, quota->free, quota->total) >= spare(floor, left->free, left->total))
		return;
	left->of_quota = true;
	left->total = quota->total;
	left->free = quota->free < left->free ? quota->free : left->free;
}

int disk_left(int fd, struct disk_floor floor, struct disk_left *out)
{
	struct statfs fs;
	struct quota quota;
	int r = (int)SYS2(SYS_fstatfs, fd, &fs);

	if (r < 0)
		return r;
	if (!fs.f_blocks)
		return -ENODATA;
	out->of_quota = false;
	out->free = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	out->total =
	    ((uint64_t)fs.f_blocks - (uint64_t)fs.f_bfree) * (uint64_t)fs.f_bsize + out->free;
	out->inodes = fs.f_files ? fs.f_ffree : UINT64_MAX;
	out->quota_inodes = UINT64_MAX;
	if (quota_ask(fd, &quota))
		disk_left_limit(out, floor, &quota);
	return 0;
}
