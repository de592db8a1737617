/* SPDX-License-Identifier: MIT
 *
 * A library that opens what it is told to; copied, it is one more.
 */
#include <fcntl.h>

__attribute__((visibility("default"))) int library_open(const char *path)
{
	return open(path, O_RDWR | O_CREAT, 0644);
}
