/* SPDX-License-Identifier: MIT
 *
 * Undoing persists that were cut off, ending restores that were, and saying so.
 */
#include "command/base/rollbacks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "core/base/fileio.h"
#include "core/pin/outside.h"
#include "core/snapshot/restore.h"
#include "core/snapshot/store.h"
#include "core/store/events.h"
#include "core/undo/rollback.h"

struct teller {
	void (*say)(void *context, const char *line);
	void *context;
	struct rollbacks *out;
	const struct data_directory *data;
	bool dry;
};

static void rollback_tell(void *context, const struct rollback_outcome *o)
{
	struct teller *t = context;
	const char *segment = o->header.segment;
	char line[512], size[24];

	format_bytes(size, sizeof(size), o->bytes);
	if (!t->dry && o->result <= ROLLBACK_COMMITTED)
		pins_segment_undone(t->data->storefd, t->data->dirfd, segment);
	switch (o->result) {
	case ROLLBACK_DONE:
		t->out->undone++;
		if (!t->dry && t->data->storefd >= 0)
			events_note(t->data->storefd, "persist.undone",
				    "segment %.36s: an index write that was cut off was undone; "
				    "its records are in Chroma's queue",
				    segment);
		snprintf(line, sizeof(line),
			 "segment %.36s: a persist that was cut off %s undone (%s put back)%s; its "
			 "records are in Chroma's queue",
			 segment, t->dry ? "would be" : "was", size,
			 o->skipped ? ", but part of what undoes it was damaged" : "");
		break;
	case ROLLBACK_CREATION:
		t->out->undone++;
		return;
	case ROLLBACK_LIVE:
		t->out->live++;
		return;
	case ROLLBACK_FOREIGN:
		t->out->failed++;
		snprintf(line, sizeof(line),
			 "segment %.36s: left as it is: its files are not those that the persist "
			 "was writing that %.60s speaks of (a backup was put back, or they were "
			 "written without the shim)%s",
			 segment, o->name, t->dry ? "" : "; the undo file was put aside");
		break;
	case ROLLBACK_DAMAGED:
		t->out->failed++;
		snprintf(line, sizeof(line),
			 "undo/%.60s is damaged%s: the persist that it is of cannot be undone",
			 o->name, t->dry ? "" : " and was put aside");
		break;
	case ROLLBACK_NEWER:
		t->out->failed++;
		snprintf(line, sizeof(line),
			 "undo/%.60s was written by a newer chromashim, which has to undo it",
			 o->name);
		break;
	case ROLLBACK_FAILED:
		t->out->failed++;
		snprintf(line, sizeof(line),
			 "segment %.36s: a persist that was cut off cannot be undone: %s", segment,
			 strerror(-o->error));
		break;
	default:
		return;
	}
	t->say(t->context, line);
}

int rollbacks_run(const struct data_directory *t, bool dry,
		  void (*say)(void *context, const char *line), void *context,
		  struct rollbacks *out)
{
	struct teller teller = {.say = say, .context = context, .out = out, .data = t, .dry = dry};
	struct rollback rb = {
	    .rootfd = t->dirfd, .dry = dry, .report = rollback_tell, .context = &teller};
	int r = 0;

	memset(out, 0, sizeof(*out));
	if (t->strayfd >= 0) {
		rb.undofd = t->strayfd;
		rb.shared = true;
		r = rollback_directory(&rb);
		rb.shared = false;
	}
	if (r < 0)
		return r;
	rb.undofd = t->storefd < 0 ? -ENOENT : file_open_directory_at(t->storefd, UNDO_DIR);
	if (rb.undofd == -ENOENT)
		return 0;
	if (rb.undofd < 0)
		return rb.undofd;
	r = rollback_directory(&rb);
	close(rb.undofd);
	return r;
}

void restore_end_pending(const struct data_directory *t)
{
	struct restore_swap how = {.datafd = t->dirfd, .storefd = t->storefd, .quarantine = ""};
	struct snapshot_store store;
	int r;

	if (t->storefd < 0 || faccessat(t->storefd, RESTORE_DIR, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	r = snapshot_store_open(&store, t->storefd, SNAPSHOT_CHANGE, 0);
	if (r == -EBUSY) /* it is being done */
		return;
	if (r == 0) {
		r = restore_resume(&how);
		restore_abandon(t->storefd); /* a copy that was not exchanged yet */
		snapshot_store_close(&store);
	}
	if (r == RESTORE_ENDED)
		warn("a restore of '%s' that had been cut off is now done", t->dir);
	else if (r == RESTORE_GIVEN_UP)
		warn("a restore of '%s' was cut off before it changed anything, and is given up\n"
		     "  If it is still wanted, run it again.",
		     t->dir);
	else if (r == -EBUSY && restore_is_pending(t->storefd))
		warn("a restore of '%s' was cut off, and cannot be ended while a process has the "
		     "directory open\n"
		     "  Stop that, and run this again.",
		     t->dir);
	else if (r < 0 && restore_is_pending(t->storefd))
		warn("a restore of '%s' was cut off, and cannot be ended: %s\n"
		     "  Make the directory and its store writable, and run this again.",
		     t->dir, strerror(-r));
}
