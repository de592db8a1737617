/* SPDX-License-Identifier: MIT
 *
 * The five answers, found.
 */
#include "command/report/answers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/rollbacks.h"
#include "core/base/clock.h"

static void ignore_line(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static enum answer_end how_it_ended(struct answers *a, const struct digest_process *p)
{
	enum crash_cause cause = CRASH_UNKNOWN;
	bool here = crash_is_this_boot(&p->header);

	if (p->exited)
		return p->stopped_by ? ANSWER_STOPPED : ANSWER_EXIT;
	if (here)
		cause = crash_ask_kernel(&p->header, p->last, a->words, &a->memory);
	if (cause == CRASH_OOM)
		return ANSWER_MEMORY;
	if (cause == CRASH_FAULT)
		return ANSWER_FAULT;
	if (here)
		a->oom_kills = crash_oom_kills_here();
	return here ? ANSWER_KILLED : ANSWER_REBOOT;
}

/* Writers by when they were heard of last. */
static int compare_dead(const void *a, const void *b)
{
	const struct digest_process *x = *(const struct digest_process *const *)a,
				    *y = *(const struct digest_process *const *)b;
	uint64_t now = clock_read(CLOCK_REALTIME);

	return clock_is_later(x->last, y->last, now) - clock_is_later(y->last, x->last, now);
}

int answers_find(struct answers *a, const struct digest_input *in)
{
	const struct digest *d = in->digest;
	uint64_t now = clock_read(CLOCK_REALTIME);
	struct rollbacks waiting = {0};
	size_t i;

	memset(a, 0, sizeof(*a));
	a->dead = calloc(d->process_count + 1, sizeof(*a->dead));
	if (!a->dead)
		return -ENOMEM;
	for (i = 0; i < d->process_count; i++) {
		const struct digest_process *p = d->processes[i];

		if (!p->wrote)
			continue;
		if (oplog_header_life(in->data.storefd, &p->header) == OPLOG_LIVE) {
			a->living = p;
			continue;
		}
		if (!a->last || clock_is_later(p->last, a->last->last, now))
			a->last = p;
		if (!p->exited)
			a->dead[a->dead_count++] = p;
	}
	qsort(a->dead, a->dead_count, sizeof(*a->dead), compare_dead);
	/* One that ended in order after a death does not make it undone. */
	if (a->dead_count)
		a->last = a->dead[a->dead_count - 1];
	if (a->last)
		a->end = how_it_ended(a, a->last);
	if (rollbacks_run(&in->data, true, ignore_line, NULL, &waiting) == 0)
		a->to_undo = waiting.undone;
	return 0;
}

void answers_free(struct answers *a)
{
	free(a->dead);
	a->dead = NULL;
}

bool answers_are_bad(const struct answers *a, const struct digest *d)
{
	return a->dead_count || d->refused || d->events[DIGEST_PERSIST_UNDONE].count ||
	       d->events[DIGEST_SPACE].count;
}

const char *answer_end_text(enum answer_end end)
{
	static const char *const texts[] = {
	    "no process that wrote here has ended",
	    "it ended by itself",
	    "it was told to stop, and ended in order",
	    "the kernel killed it because memory ran out",
	    "it crashed",
	    "it was killed from outside (SIGKILL leaves no other trace)",
	    "the machine went down under it (power, or a reset), and was started again since",
	};

	return texts[end];
}
