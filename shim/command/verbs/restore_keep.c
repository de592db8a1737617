/* SPDX-License-Identifier: MIT
 *
 * Before a restore in place changes anything: what is there is kept, and nobody else has it open.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "command/verbs/restore.h"
#include "command/base/progress.h"
#include "core/base/alive.h"
#include "core/base/openers.h"
#include "core/recover/internal.h"
#include "core/snapshot/restore.h"

const char restore_stop_it[] = "Stop Chroma first, or restore to another directory with -o.";

const char *restore_subject(const struct restoring *x, char out[PATH_MAX])
{
	if (x->from)
		snprintf(out, PATH_MAX, "'%s'", x->from);
	else
		snprintf(out, PATH_MAX, "snapshot %" PRIu64, x->m->header.id);
	return out;
}

int restore_keep(struct restoring *x, uint64_t *id_out)
{
	struct progress p;
	char text[PIN_TEXT], what[PATH_MAX];
	struct snapshot_options options = {.path = x->s.data.dir,
					   .dirfd = x->s.data.dirfd,
					   .reason = "restore",
					   .description = text,
					   .accept_broken = true,
					   .idle = true,
					   .progress = progress_step,
					   .context = &p};
	struct snapshot_trouble t;
	struct manifest m;
	int r;

	snprintf(text, sizeof(text), "before restoring %.150s",
		 x->from ? restore_subject(x, what)
			 : restore_subject(x, what) + strlen("snapshot "));
	progress_start(&p, "keeping", x->flags.quiet);
	r = snapshot_take(&x->s.store, &options, &m, &t);
	progress_end(&p);
	*id_out = m.header.id;
	manifest_free(&m);
	return r < 0 ? snapshots_fail(&x->s, r, &t, "cannot keep what is now in") : 0;
}

void restore_forget(struct restoring *x, uint64_t id)
{
	uint64_t freed;

	if (id && !restore_is_pending(x->s.data.storefd) && snapshot_remove(&x->s.store, id) == 0)
		snapshot_collect(&x->s.store, false, &freed);
}

int restore_is_as_it_was(void *restoring)
{
	const struct restoring *x = restoring;
	struct process_opener *list;
	unsigned hidden;
	struct stat st;
	int n = 0;

	if (recover_state(x->s.data.dirfd) != x->state)
		return -ESTALE;
	if (fstatat(x->s.data.dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		n = process_find_openers(&st, CHROMA_DATABASE, &list, &hidden);
		free(list);
	}
	/* Nor one in another container, which has not written yet. */
	return n > 0 || alive_in_use(x->s.data.storefd, -1) ? -EBUSY : 0;
}

int restore_look_at(const struct restoring *x, int dirfd)
{
	enum verify_verdict verdict;
	char why[512], what[PATH_MAX];
	int r;

	/* What was verified: each chunk has just been compared with its name. */
	if (x->m && x->m->header.state == SNAPSHOT_VERIFIED)
		return 0;
	r = verify_directory(dirfd, &verdict, why, sizeof(why));
	if (r < 0)
		return fail(EXIT_FAILED, r, "Try again with more memory free.",
			    "cannot check what was restored");
	if (verdict == VERIFY_GOOD)
		return 0;
	if (x->flags.force) {
		warn("%s is restored with damage: %s", restore_subject(x, what), why);
		return EXIT_WARNINGS;
	}
	return fail(
	    EXIT_FAILED, 0,
	    "Nothing was changed. Choose another one, or add --force to have this one as it "
	    "is.",
	    "%s is not sound: %s", restore_subject(x, what), why);
}
