/* SPDX-License-Identifier: MIT
 *
 * Reading the header of an index.
 */
#include "preload/persist/segment_header.h"

#include <fcntl.h>
#include <string.h>

#include "core/base/sys.h"

#define HEADER_SIZE 100

bool segment_header_parse(const unsigned char *raw, size_t n, struct segment_header *h)
{
	int32_t version;

	if (n < SEGMENT_HEADER_PARSED)
		return false;
	memcpy(&version, raw, sizeof(version));
	memcpy(&h->capacity, raw + 12, 8);
	memcpy(&h->count, raw + 20, 8);
	memcpy(&h->stride, raw + 28, 8);
	memcpy(&h->levels, raw + 52, 4);
	memcpy(&h->links, raw + 60, 8);
	return version == 1;
}

bool segment_header_read(int rootfd, const char *path, struct segment_header *h)
{
	int fd = sys_openat(rootfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	unsigned char raw[HEADER_SIZE];
	ssize_t n;

	if (fd < 0)
		return false;
	n = sys_pread(fd, raw, sizeof(raw), 0);
	sys_close(fd);
	return n == sizeof(raw) && segment_header_parse(raw, sizeof(raw), h);
}
