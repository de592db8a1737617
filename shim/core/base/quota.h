/* SPDX-License-Identifier: MIT
 *
 * What the disk quota of this process's user, or of its group, leaves on a file system.
 *
 * statfs() tells what is left of a project's quota, but not of a user's or a group's. The kernel
 * does not count those against who may override them (CAP_SYS_RESOURCE): then there is none here.
 * Where system calls are filtered (seccomp, as in containers) it is not asked, since a filter may
 * end the process for a call that it does not know.
 */
#ifndef CORE_QUOTA_H
#define CORE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

struct quota {
	uint64_t free, total; /* bytes */
	uint64_t inodes;      /* that are free; UINT64_MAX: as many as one likes */
};

/*
 * Of the file system of fd, which may be an O_PATH one. The tightest of the two. False: there is
 * none, or it is not to be known. Raw system calls only, async-signal-safe.
 */
bool quota_ask(int fd, struct quota *out);

#endif
