/* SPDX-License-Identifier: MIT
 *
 * A persist group fails: what it wrote is undone at once, its segment is frozen, and it is said.
 */
#include <errno.h>
#include <string.h>

#include "core/undo/rollback.h"
#include "preload/base/shim.h"
#include "preload/persist/state.h"
#include "preload/pin/pins.h"

static _Atomic unsigned tentative; /* groups that wait for a transaction */

void group_record(const struct group *g, enum oplog_op op, uint64_t length, int64_t result)
{
	uint64_t now = oplog_now();
	struct oplog_record r = {
	    .op = (uint16_t)op,
	    .time = now,
	    .duration = op == OP_PERSIST_BEGIN ? 0 : now - g->since,
	    .file = g->directory,
	    .offset = -1,
	    .length = length,
	    .result = result,
	    .arg = g->header.number,
	};

	record_put(g->protection, &r, NULL, 0);
}

void group_record_commit(const struct group *g)
{
	uint64_t now = oplog_now(), elements = 0;
	struct oplog_record r = {
	    .op = OP_PERSIST_COMMIT,
	    .time = now,
	    .duration = now - g->since,
	    .file = g->directory,
	    .offset = (int64_t)g->syncing,
	    .length = g->undo.bytes,
	    .arg = g->header.number,
	};

	if (group_elements(g, &elements) && elements > g->elements)
		r.result = (int64_t)(elements - g->elements);
	record_put(g->protection, &r, NULL, 0);
}

const char *persist_error_text(int error)
{
	switch (error) {
	case EFBIG:
		return "a file would be larger than its index can be";
	case ELOOP:
		return "a file of it is a symbolic link";
	default:
		return shim_error_text(error);
	}
}

void group_set_state(struct group *g, enum group_state state)
{
	if (g->state == GROUP_TENTATIVE && state != GROUP_TENTATIVE)
		atomic_fetch_sub(&tentative, 1);
	if (g->state != GROUP_TENTATIVE && state == GROUP_TENTATIVE)
		atomic_fetch_add(&tentative, 1);
	if ((g->state == GROUP_UNPROTECTED) != (state == GROUP_UNPROTECTED))
		pin_unprotected(g->protection, state == GROUP_UNPROTECTED ? 1 : -1);
	atomic_store(&g->state, (uint8_t)state);
}

void persists_forget_tentative(void)
{
	atomic_store(&tentative, 0);
}

bool persists_tentative(void)
{
	return atomic_load(&tentative) != 0;
}

/* ---- failure ---- */

static void say_frozen(const struct group *g, const char *why, int rolled_back, bool unheard)
{
	shim_say(
	    protections[g->protection].spelling[0], "/", g->header.segment, ": a persist failed (",
	    why, rolled_back < 0 ? "); it will be undone at the next start" : ") and was undone",
	    ". Nothing is lost: the records stay in Chroma's queue. This segment is frozen until "
	    "the backend is restarted; make room or look at the disk, then restart it.",
	    unheard ? " Chroma may not notice, and would then remove the records: until the "
		      "restart all writing to this directory is refused."
		    : "",
	    NULL);
}

/* What it wrote is in no pin's way: what that overwrote was saved. */
static int undo_own(struct group *g, struct rollback_outcome *outcome)
{
	struct rollback rb = {
	    .rootfd = protections[g->protection].root_fd,
	    .undofd = group_undo_folder(g),
	};
	struct pin_writer *writer = pin_enter(g->protection);
	uint64_t pinned[UNDO_FILES];
	unsigned i;
	int r;

	for (i = 0; i < UNDO_FILES; i++)
		pinned[i] = pin_save(g->protection, group_file_name(g, i), 0, 0);
	r = rb.undofd < 0 ? rb.undofd : rollback_own(&rb, g->undo.fd, outcome);
	if (rb.undofd >= 0)
		sys_close(rb.undofd);
	for (i = 0; i < UNDO_FILES; i++)
		pin_saved(g->protection, group_file_name(g, i), pinned[i]);
	pin_leave(writer);
	return r;
}

void group_fail_as(struct group *g, int error, const char *why)
{
	bool unheard = g->pickle_opened && !g->heard && !g->expected;
	struct rollback_outcome outcome = {0};
	int r;

	/* Before the pickle's close: it is followed by the transaction that counts on the persist.
	 */
	if (unheard)
		atomic_store(&protections[g->protection].persist_lost, true);
	withheld_drop(g);
	r = group_equip(g);
	if (r == 0 && !g->power)
		r = undo_flush(&g->undo);
	if (r == 0)
		r = undo_own(g, &outcome);
	group_record(g, OP_PERSIST_ROLLBACK, outcome.bytes, r);
	group_record(g, OP_PERSIST_FREEZE, 0, -error);
	say_frozen(g, why, r, unheard);
	g->error = error;
	group_set_state(g, GROUP_FROZEN);
	group_release(g);
}

void group_fail(struct group *g, int error)
{
	error = error < 0 ? -error : error;
	group_fail_as(g, error, persist_error_text(error));
}
