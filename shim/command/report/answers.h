/* SPDX-License-Identifier: MIT
 *
 * The five answers: what ended the backend and when, what was acknowledged last, what was in flight
 * and what became of it, who else had the directory open, what each snapshot would lose.
 */
#ifndef COMMAND_REPORT_ANSWERS_H
#define COMMAND_REPORT_ANSWERS_H

#include "command/base/crash_cause.h"
#include "command/digest/input.h"

enum answer_end {
	ANSWER_NONE,	/* no process has ended, or none was ever there */
	ANSWER_EXIT,	/* by itself */
	ANSWER_STOPPED, /* by a signal that it was sent, and in order */
	ANSWER_MEMORY,	/* by the kernel, for want of memory */
	ANSWER_FAULT,	/* it crashed */
	ANSWER_KILLED,	/* by a signal, nothing more is known */
	ANSWER_REBOOT,	/* the machine was started again since */
};

struct answers {
	const struct digest_process *last; /* the writer that ended last; NULL: none has */
	enum answer_end end;
	char words[CRASH_WORDS];    /* the kernel's */
	struct crash_memory memory; /* what it says of a kill for want of it */
	uint64_t oom_kills;	    /* in this control group, where nothing more is known */
	const struct digest_process *living; /* a writer that is at work now */
	/* Writers that did not end by themselves, oldest first; the last one is told of. */
	const struct digest_process **dead;
	size_t dead_count;
	unsigned to_undo; /* persists that the next start undoes */
};

int answers_find(struct answers *a, const struct digest_input *in);
void answers_free(struct answers *a);

/* Whether something went wrong that the log knows of. */
bool answers_are_bad(const struct answers *a, const struct digest *d);

/* "killed by the kernel for want of memory". */
const char *answer_end_text(enum answer_end end);

#endif
