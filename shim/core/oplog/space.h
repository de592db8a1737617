/* SPDX-License-Identifier: MIT
 *
 * Room in the op log's directory, which has a bound. For segments.h, inside the backend.
 */
#ifndef CORE_OPLOG_SPACE_H
#define CORE_OPLOG_SPACE_H

#include <stdint.h>

#include "core/oplog/oplog.h"

/* Before a segment of `size` bytes is made. */
void oplog_make_space(struct oplog_writer *w, int dirfd, uint64_t size);

#endif
