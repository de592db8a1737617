/* SPDX-License-Identifier: MIT
 *
 * Writing a tar archive (ustar, POSIX.1-1988) to a stream: plain files with short names, whose
 * content is in memory.
 */
#ifndef COMMAND_TAR_H
#define COMMAND_TAR_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* name: at most 99 bytes. 0 or -errno. */
int tar_put(FILE *out, const char *name, const void *data, size_t size, uint64_t seconds);
/* After the last one. */
int tar_end(FILE *out);

#endif
