/* SPDX-License-Identifier: MIT
 *
 * Healing a copy of a Chroma directory: the table of steps.
 */
#include <errno.h>
#include <stdio.h>

#include "core/recover/internal.h"

const char *const recover_step_names[RECOVER_STEPS] = {
    "journal",	"pages", "tables",  "indexes", "migration", "queue",   "parameters",
    "segments", "marks", "records", "hnsw",    "bare",	    "undelete"};

static int (*const steps[RECOVER_STEPS])(struct recovery *) = {
    recover_journal, recover_pages,	 recover_tables,   recover_indexes, recover_migration,
    recover_queue,   recover_parameters, recover_segments, recover_marks,   recover_records,
    recover_hnsw,    recover_bare,	 recover_undelete};

/* What was not found needs no step; the journal comes first in any case. */
static bool is_due(const struct recovery *r, int step)
{
	if (step == RECOVER_UNDELETE)
		return r->options->undelete || r->lost_segments;
	if (step == RECOVER_SEGMENTS && r->lost_segments)
		return true;
	if (r->options->steps != RECOVER_ALL && 1u << step & RECOVER_ON_REQUEST)
		return true;
	if (step == RECOVER_HNSW && r->options->rebuild)
		return true;
	if (step == RECOVER_RECORDS && (r->lost_pages || r->lost_rows || r->lost_texts))
		return true;
	return step == RECOVER_JOURNAL || r->judgement->steps & 1u << step;
}

/*
 * Most recoveries have done what there was to do, and then the account can be taken beside the
 * look that shows it. If that finds more after all, the account is taken once more.
 */
static int judge_again(struct recovery *r, int step)
{
	struct recover_account *account = r->options->account;
	bool is_likely_all = account && !account->was_blind && !account->was_unsure &&
			     !account->nameless && !(r->judgement->steps >> step) &&
			     !r->options->undelete && !r->lost_segments;

	if (is_likely_all)
		return recover_account_and_judge(account, r->dirfd, r->judgement);
	if (account)
		account->is_taken = false;
	return recover_judge(r->dirfd, r->judgement);
}

int recover_heal(int dirfd, const struct recover_options *options, struct recover_judgement *j,
		 uint64_t *healed_out)
{
	struct recovery r = {.dirfd = dirfd, .options = options, .judgement = j};
	int step, error;

	snprintf(r.path, sizeof(r.path), "/proc/self/fd/%d", dirfd);
	error = recover_open(&r);
	for (step = 0; step < RECOVER_STEPS && error == 0; step++) {
		uint64_t before = r.healed;

		if (!(options->steps & 1u << step) && step != RECOVER_JOURNAL)
			continue;
		if (j->is_stale)
			error = judge_again(&r, step);
		/* A copy, which is synced as a whole. Said to SQLite, it plays a journal back. */
		if (step != RECOVER_JOURNAL)
			recover_sql(&r, "PRAGMA synchronous = OFF");
		if (error == 0 && is_due(&r, step))
			error = steps[step](&r);
		j->is_stale |= r.healed > before;
	}
	if (error == 0 && r.db &&
	    r.healed) /* when all that goes by a name that is made up is done */
		error = recover_names_of_log(&r);
	if (sqlite3_close(r.db) != SQLITE_OK && error == 0)
		error = -EBUSY;
	*healed_out = r.healed;
	return error;
}
