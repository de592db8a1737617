/* SPDX-License-Identifier: MIT
 *
 * How a directory is let go: what is taken for its first use has an end. When several directories
 * are idle, or one is gone, the oldest gives back all it has.
 *
 * A directory is in use as long as the host has a descriptor in it or a change by path is under
 * way. Who takes away first says so and then looks for users, who first count themselves and then
 * look: one of the two sees the other.
 */
#include <string.h>
#include <time.h>

#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/place/protection_rooms.h"
#include "preload/place/lives.h"
#include "preload/place/loads.h"
#include "preload/place/record.h"

#define IDLE_KEPT 4u /* that are as they were, for who comes back */

bool protection_enter(unsigned protection)
{
	struct protection *a = &protections[protection];

	atomic_fetch_add(&a->users, 1);
	if (atomic_load(&a->ready))
		return true;
	atomic_fetch_sub(&a->users, 1);
	return false;
}

void protection_leave(unsigned protection)
{
	atomic_fetch_sub(&protections[protection].users, 1);
}

static bool in_use(const struct protection *a)
{
	return atomic_load(&slots_use[protection_number(a)].open) > 0 || atomic_load(&a->users) > 0;
}

/* ---- giving all back ---- */

bool protection_is_gone(const struct protection *a)
{
	struct stat st;

	return a->root_fd > 0 && sys_fstat(a->root_fd, &st) == 0 && st.st_nlink == 0;
}

void protection_descriptors_release(struct protection *a)
{
	hidden_release(&a->root_fd);
	hidden_release(&a->store_fd);
	hold_let_go(&a->first);
	hold_let_go(&a->rest);
	life_stop(a);
	a->root_fd = a->store_fd = -1;
}

static void protection_use_release(unsigned protection)
{
	struct protection *a = &protections[protection];
	struct oplog_record r = {.op = OP_EXIT, .offset = -1};

	if (atomic_load(&a->log.current))
		record_put(protection, &r, NULL, 0);
	rooms_stop(protection);
	oplog_writer_close(&a->log);
	if (a->acts)
		oplog_writer_close(&a->acts->log);
	atomic_store(&a->writer, 0);
	a->right = NULL;
	a->left = a->forked = a->read_beside = false;
	a->generation = 0;
	loads_stop(protection);
	protection_descriptors_release(a);
	atomic_store(&a->spellings, 0);
	a->dev = 0;
	a->ino = 0;
}

/* False: it is in use after all. */
bool protection_release(unsigned protection)
{
	struct protection *a = &protections[protection];

	atomic_store(&a->ready, false);
	if (in_use(a) || (!protection_is_gone(a) && !rooms_are_idle(protection))) {
		atomic_store(&a->ready, true);
		return false;
	}
	protection_use_release(protection);
	return true;
}

static bool may_go(const struct protection *a)
{
	return atomic_load(&a->ready) && !a->named && !in_use(a);
}

bool protections_release_idle(void)
{
	unsigned i, used = atomic_load(&protections_used);
	bool any = false;

	for (i = 0; i < used; i++)
		any |= may_go(&protections[i]) && protection_release(i);
	return any;
}

void protections_tidy(void)
{
	unsigned i, idle = 0, oldest = 0, used = atomic_load(&protections_used);
	uint64_t since = UINT64_MAX;

	for (i = 0; i < used; i++) {
		struct protection *a = &protections[i];

		if (!may_go(a) || (protection_is_gone(a) && protection_release(i)))
			continue;
		idle++;
		if (atomic_load(&slots_use[i].idle_since) < since) {
			since = atomic_load(&slots_use[i].idle_since);
			oldest = i;
		}
	}
	if (idle > IDLE_KEPT)
		protection_release(oldest);
}
