/* SPDX-License-Identifier: MIT
 *
 * The table of persist groups: finding, locking and letting go of one.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/shared_map.h"
#include "preload/base/shim.h"
#include "preload/persist/state.h"
#include "preload/place/turn.h"

struct group groups[GROUPS];
_Atomic unsigned groups_top;
struct persist_store persist_stores[PROTECTIONS];

/* ---- the lock ---- */

void group_unlock(struct group *g)
{
	turn_give_whole(&g->owner);
}

struct group *group_lock(uint32_t directory)
{
	for (;;) {
		uint32_t number = atomic_load(&name_get(directory)->group);
		struct group *g;

		if (!number)
			return NULL;
		g = &groups[number - 1];
		if (!turn_take_whole(&g->owner))
			return NULL;
		if (g->directory == directory && g->state != GROUP_FREE)
			return g;
		group_unlock(g); /* it ended while we waited */
	}
}

/* ---- beginning and being gone ---- */

void group_release(struct group *g)
{
	unsigned i;

	withheld_drop(g);
	for (i = 0; i < UNDO_FILES; i++) {
		hidden_release(&g->files[i].fd);
		g->files[i].window_length = 0; /* it is in the memory that goes */
	}
	hidden_release(&g->undo.fd);
	if (hold_is(&g->loads_kept_out))
		hold_let_go(&g->loads_kept_out);
	if (g->page)
		shared_unmap(g->page, UNDO_HEADER_SIZE);
	if (g->memory)
		sys_munmap(g->memory, g->memory_size);
	g->page = NULL;
	g->memory = NULL;
	if (g->state == GROUP_FROZEN || g->state == GROUP_UNPROTECTED)
		return;
	atomic_store(&name_get(g->directory)->group, 0);
	atomic_store(&g->state, GROUP_FREE);
	atomic_fetch_sub(&persist_stores[g->protection].groups, 1);
}

/* Tells this undo file of this process from any other of that number. */
uint64_t group_ticket(unsigned protection, uint64_t number)
{
	return (uint64_t)shim_pid << 42 |
	       (uint64_t)(persist_stores[protection].round & 1023) << 32 | (uint32_t)number;
}

void group_park(struct group *g)
{
	uint64_t ticket = group_ticket(g->protection, g->header.number);

	if (g->power && !(g->undo_synced && g->undo_known))
		ticket |= PARKED_UNSYNCED;
	atomic_store(&name_get(g->directory)->parked, ticket);
	group_release(g);
}

bool group_is_parked(unsigned protection, uint32_t directory)
{
	uint64_t ticket = atomic_load(&name_get(directory)->parked);

	return ticket && ticket >> 32 == group_ticket(protection, 0) >> 32;
}

bool group_is_parked_unsynced(unsigned protection, uint32_t directory)
{
	return (atomic_load(&name_get(directory)->parked) & PARKED_UNSYNCED) &&
	       group_is_parked(protection, directory);
}

bool group_page_lost(const struct group *g)
{
	return __atomic_load_n(&g->page->check, __ATOMIC_RELAXED) != g->header.check;
}
