/* SPDX-License-Identifier: MIT
 *
 * Whether the process that wrote a segment of the op log lives.
 */
#include <stdio.h>
#include <string.h>

#include "core/base/alive.h"
#include "core/oplog/oplog.h"
#include "core/oplog/read.h"

bool oplog_header_is_here(const struct oplog_header *h)
{
	char path[64];
	uint8_t boot_id[16];
	uint64_t ticks;

	oplog_boot_id(boot_id);
	if (memcmp(boot_id, h->boot_id, sizeof(boot_id)) != 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%u/stat", h->pid);
	ticks = oplog_start_ticks(path);
	return ticks && ticks == h->start_ticks;
}

enum oplog_life oplog_header_life(int storefd, const struct oplog_header *h)
{
	enum alive alive = h->life ? alive_is(storefd, h->life) : ALIVE_UNKNOWN;

	if (alive != ALIVE_UNKNOWN)
		return alive == ALIVE_LIVES ? OPLOG_LIVE : OPLOG_DEAD;
	return oplog_header_is_here(h) ? OPLOG_LIVE : OPLOG_DEAD;
}

bool oplog_same_process(const struct oplog_header *a, const struct oplog_header *b)
{
	return a->life == b->life && a->pid == b->pid && a->start_ticks == b->start_ticks &&
	       !memcmp(a->boot_id, b->boot_id, sizeof(a->boot_id));
}
