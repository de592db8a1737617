/* SPDX-License-Identifier: MIT
 *
 * What is done about persists when a directory comes under protection: those of dead processes are
 * undone, which is said and recorded.
 */
#include <errno.h>
#include <string.h>

#include "core/store/store.h"
#include "core/undo/rollback.h"
#include "core/undo/rollback_last.h"
#include "preload/base/settings.h"
#include "preload/base/shim.h"
#include "preload/persist/state.h"
#include "preload/pin/pins.h"

#define TOLD 64 /* roll-backs of one start that are recorded; all are counted */

static struct {
	unsigned count;
	struct told {
		char segment[40];
		uint64_t number, bytes;
		int64_t result;
	} told[TOLD];
} rolled_back;

static void say_outcome(const char *root, const struct rollback_outcome *o)
{
	const char *segment = o->header.segment;

	switch (o->result) {
	case ROLLBACK_DONE:
		shim_say(root, "/", segment,
			 ": a persist had not finished when its process died; it was undone. "
			 "Chroma takes its records from the queue again.",
			 o->skipped ? " Some of the undo data was damaged: run chromashim check."
				    : NULL,
			 NULL);
		break;
	case ROLLBACK_FOREIGN:
		shim_say(root, "/", segment, ": left as it is, although ", o->name,
			 " speaks of a persist that did not finish: its files are not those that "
			 "persist was writing. A backup was put back, or they were written without "
			 "the shim. The undo file was put aside; run chromashim check.",
			 NULL);
		break;
	case ROLLBACK_DAMAGED:
		shim_say(root, ": ", o->name,
			 " is damaged and was put aside; the persist it is of "
			 "could not be undone. Run chromashim check.",
			 NULL);
		break;
	case ROLLBACK_NEWER:
		shim_say(root, ": ", o->name,
			 " was written by a newer chromashim; use that one, nothing was undone",
			 NULL);
		break;
	case ROLLBACK_FAILED:
		shim_say(root, ": cannot undo a persist that did not finish, ", o->name, ": ",
			 persist_error_text(-o->error),
			 ". Its collection may be broken until this is "
			 "mended; then restart.",
			 NULL);
		break;
	default:
		break;
	}
}

static void told_of(void *context, const struct rollback_outcome *o)
{
	const struct protection *a = context;
	struct told *t = &rolled_back.told[rolled_back.count];

	say_outcome(a->spelling[0], o);
	if (o->result <= ROLLBACK_COMMITTED)
		pins_segment_undone(a->store_fd, a->root_fd, o->header.segment);
	/* One that was only created was no persist: it is made anew, as at every start. */
	if ((o->result != ROLLBACK_DONE && o->result != ROLLBACK_FAILED) ||
	    rolled_back.count == TOLD)
		return;
	memcpy(t->segment, o->header.segment, sizeof(t->segment));
	t->number = o->header.number;
	t->bytes = o->bytes;
	t->result = o->error;
	rolled_back.count++;
}

/* What a version before this one has left where it was started. */
static void undo_stray(struct protection *a, struct store_identity *room)
{
	struct rollback rb = {
	    .rootfd = a->root_fd, .report = told_of, .context = a, .shared = true};

	rb.undofd = store_stray_undo(room, a->root_fd, settings.store, a->store_fd);
	if (rb.undofd < 0)
		return;
	rollback_directory(&rb);
	sys_close(rb.undofd);
}

void persists_start(unsigned protection)
{
	static struct store_identity identity; /* one start at a time, on whatever stack */
	struct protection *a = &protections[protection];
	struct rollback rb = {.rootfd = a->root_fd, .report = told_of, .context = a};
	int r;

	rolled_back.count = 0;
	if (a->store_fd <= 0)
		return;
	protections[protection].undo_usable = false;
	sys_mkdirat(a->store_fd, UNDO_DIR, 0700);
	rb.undofd = r = protection_folder(a, UNDO_DIR);
	if (r < 0) {
		shim_say(a->spelling[0],
			 ": cannot use undo/ in the store: ", persist_error_text(-r),
			 "; persists are UNPROTECTED", NULL);
		return;
	}
	protections[protection].undo_usable = true;
	r = rollback_directory(&rb);
	undo_stray(a, &identity);
	rollback_forget_last(a->root_fd, rb.undofd);
	sys_close(rb.undofd);
	if (r < 0)
		shim_say(a->spelling[0],
			 ": cannot look for persists that did not finish: ", persist_error_text(-r),
			 NULL);
}

void persists_started(unsigned protection)
{
	unsigned i;

	if (protections[protection].undo_usable)
		record_feature(&protections[protection], OPLOG_HAS_GROUPS, true);
	for (i = 0; i < rolled_back.count; i++) {
		const struct told *t = &rolled_back.told[i];
		struct oplog_record r = {
		    .op = OP_PERSIST_ROLLBACK,
		    .file = name_intern(protection, t->segment, strlen(t->segment)),
		    .offset = -1,
		    .length = t->bytes,
		    .result = t->result,
		    .arg = t->number,
		};

		record_put(protection, &r, NULL, 0);
	}
	rolled_back.count = 0;
}
