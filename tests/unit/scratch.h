/* SPDX-License-Identifier: MIT
 *
 * A directory of a test's own, and files in it.
 */
#ifndef UNIT_SCRATCH_H
#define UNIT_SCRATCH_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/base/tree.h"

struct scratch {
	char path[64];
	int fd;
};

static inline void scratch_make_in(struct scratch *s, const char *where)
{
	snprintf(s->path, sizeof(s->path), "%.36s/chromashim-unit-XXXXXX", where);
	if (!mkdtemp(s->path))
		abort();
	s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0)
		abort();
}

static inline void scratch_make(struct scratch *s)
{
	const char *where = getenv("TMPDIR");

	scratch_make_in(s, where ? where : "/tmp");
}

/* In memory if it can be had: for a test that makes a hundred thousand files. */
static inline void scratch_make_fast(struct scratch *s)
{
	if (access("/dev/shm", W_OK) == 0)
		scratch_make_in(s, "/dev/shm");
	else
		scratch_make(s);
}

static inline void scratch_remove(struct scratch *s)
{
	int r = tree_empty(s->fd);

	close(s->fd);
	if (r < 0 || rmdir(s->path) < 0)
		abort(); /* a thousand of them would be left */
}

static inline void scratch_put(int dirfd, const char *name, const void *data, size_t size)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || file_write_all(fd, data, size) < 0)
		abort();
	close(fd);
}

/* The caller's to free; NULL: not there. */
static inline char *scratch_get(int dirfd, const char *name, size_t *size_out)
{
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	char *data = NULL;

	if (fd >= 0 && file_read_all(fd, 64u << 20, &data, size_out) < 0)
		abort();
	if (fd >= 0)
		close(fd);
	return data;
}

#endif
