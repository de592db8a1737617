/* SPDX-License-Identifier: MIT
 *
 * Names of what is in pins/.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/base/number.h"
#include "core/base/sys.h"
#include "core/pin/internal.h"

size_t pin_put_id(char *out, uint64_t id)
{
	char *at = number_put(out, out + PIN_NAME_MAX, id, 10, 8);

	*at++ = '-';
	return (size_t)(at - out);
}

int pin_file_name(char out[PIN_NAME_MAX], uint64_t id, const char *path, const char *suffix)
{
	size_t at = pin_put_id(out, id), n = strlen(path), k = strlen(suffix), i;

	if (at + n + k >= PIN_NAME_MAX)
		return -ENAMETOOLONG;
	for (i = 0; i < n; i++)
		out[at + i] = path[i] == '/' ? '.' : path[i];
	memcpy(out + at + n, suffix, k + 1);
	return 0;
}

uint64_t pin_id_of_name(const char *name)
{
	uint64_t id = 0;
	int digits = 0;

	for (; *name >= '0' && *name <= '9' && digits < 19; name++, digits++)
		id = id * 10 + (uint64_t)(*name - '0');
	return digits >= 8 && *name == '-' ? id : 0;
}

int pin_each_name(int dirfd, int (*f)(void *context, const char *name), void *context)
{
	char buf[1024] __attribute__((aligned(8)));
	int fd = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), r = 0;
	ssize_t n, at;

	if (fd < 0)
		return fd;
	while (r >= 0 && (n = sys_getdents(fd, buf, sizeof(buf))) > 0)
		for (at = 0; at < n && r >= 0;) {
			struct linux_dirent64 *e = (struct linux_dirent64 *)(void *)(buf + at);

			r = f(context, e->name);
			at += e->length;
		}
	sys_close(fd);
	return r < 0 ? r : n < 0 ? (int)n : 0;
}
