/* SPDX-License-Identifier: MIT
 *
 * A recovery from beginning to end.
 */
#include <errno.h>
#include <unistd.h>

#include "core/recover/internal.h"
#include "core/snapshot/restore.h"

/* fd is of an empty directory. */
static int heal_copy(const struct recover_job *job, struct recover_result *out,
		     struct recover_judgement *j, int fd)
{
	bool was_blind = recover_is_blind(j);
	struct recover_options options = job->options;
	int r;

	options.account = &out->account;
	out->stage = RECOVER_COPYING;
	r = recover_room(job->datafd, fd, &out->room, out->failed);
	if (r == 0)
		r = recover_copy(job->datafd, fd, NULL, job->step, job->context, out->failed);
	if (r == 0)
		r = recover_copy_renamed(job->datafd, fd, j);
	if (r < 0)
		return r;
	out->stage = RECOVER_READING;
	recover_account_judge(&out->account, fd, j);
	r = recover_account_take(&out->account, fd);
	if (r < 0)
		return r;
	out->stage = RECOVER_HEALING;
	r = recover_heal(fd, &options, j, &out->healed);
	if (r < 0 || !out->healed)
		return r;
	out->stage = RECOVER_CHECKING;
	if (j->is_stale) {
		r = recover_account_and_judge(&out->account, fd, j);
	} else if (!out->account.is_taken) {
		recover_account_judge(&out->account, fd, j); /* as it was found to be last */
		r = recover_account_take(&out->account, fd);
	}
	out->damage[1] = j->damage;
	if (r == 0 && j->damage > out->damage[0] && (!was_blind || recover_is_blind(j)))
		return -EUCLEAN;
	return r;
}

struct expected {
	const struct recover_job *job;
	uint64_t state;
};

static int is_as_it_was(void *context)
{
	const struct expected *e = context;

	return recover_state(e->job->datafd) == e->state ? 0 : -ESTALE;
}

static int exchange(const struct recover_job *job, struct recover_result *out, uint64_t state)
{
	struct expected expected = {job, state};
	struct restore_swap how = {.datafd = job->datafd,
				   .storefd = job->storefd,
				   .quarantine = job->quarantine,
				   .aside = RECOVER_LOST_FILE,
				   .check = is_as_it_was,
				   .check_context = &expected,
				   .step = job->step,
				   .context = job->context};
	int r;

	out->stage = RECOVER_EXCHANGING;
	if (job->agree && job->agree(job->context))
		return -ECANCELED;
	r = restore_swap(&how);
	out->exchanged = r == 0;
	return r;
}

static int heal_in_place(const struct recover_job *job, struct recover_result *out,
			 struct recover_judgement *j, uint64_t state)
{
	int fd, r;

	out->stage = RECOVER_COPYING;
	fd = restore_prepare(job->storefd);
	if (fd < 0)
		return fd;
	r = heal_copy(job, out, j, fd);
	if (r == 0 && out->healed)
		r = recover_sync(fd);
	close(fd);
	/* What was copied is then not what was judged. */
	if (r < 0 && r != -ENOSPC && r != -ENOMEM && recover_state(job->datafd) != state)
		r = -ESTALE;
	if (r == 0 && out->healed)
		r = exchange(job, out, state);
	if (!out->exchanged)
		restore_abandon(job->storefd); /* but not one that has begun */
	return r;
}

static int heal_elsewhere(const struct recover_job *job, struct recover_result *out,
			  struct recover_judgement *j, uint64_t state)
{
	int r = heal_copy(job, out, j, job->outfd);

	if (r == 0)
		r = recover_sync(job->outfd);
	return r == 0 && recover_state(job->datafd) != state ? -ESTALE : r;
}

int recover_directory(const struct recover_job *job, struct recover_result *out)
{
	struct recover_judgement j = {.storefd = job->options.storefd};
	uint64_t state = recover_state(job->datafd);
	bool is_for_us;
	int r;

	*out = (struct recover_result){.stage = RECOVER_JUDGING};
	r = recover_judge(job->datafd, &j);
	out->damage[0] = out->damage[1] = j.damage;
	is_for_us =
	    j.steps & job->options.steps || job->options.undelete || job->outfd >= 0 ||
	    (job->options.rebuild && recover_has_index(job->datafd, job->options.rebuild)) ||
	    (job->options.steps != RECOVER_ALL && job->options.steps & RECOVER_ON_REQUEST);
	if (r == 0 && j.is_bad_copy && job->options.steps == RECOVER_ALL)
		r = -EMEDIUMTYPE;
	if (r == 0 && (is_for_us || j.has_unknown)) {
		out->stage = RECOVER_READING;
		r = recover_account_open(&out->account);
		if (r == 0 && job->outfd < 0 && job->begin && job->begin(job->context))
			r = -ECANCELED;
		if (r == 0 && job->outfd < 0)
			r = heal_in_place(job, out, &j, state);
		else if (r == 0)
			r = heal_elsewhere(job, out, &j, state);
	}
	recover_judgement_free(&j);
	return r;
}

void recover_result_free(struct recover_result *result)
{
	recover_account_close(&result->account);
}
