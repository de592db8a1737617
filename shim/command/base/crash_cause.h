/* SPDX-License-Identifier: MIT
 *
 * What the kernel's words tell about a death.
 */
#ifndef COMMAND_CRASH_CAUSE_H
#define COMMAND_CRASH_CAUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "chromashim_oplog.h"

#define CRASH_WORDS 512

enum crash_cause {
	CRASH_UNKNOWN, /* the line tells nothing of this process */
	CRASH_OOM,     /* killed for want of memory */
	CRASH_FAULT,   /* died of its own: SIGSEGV and the like */
};

/*
 * A line of the kernel log: does it tell how pid died? *us_out: when, in µs since boot. As
 * /dev/kmsg gives it: "priority,number,µs,flags;text".
 */
enum crash_cause crash_judge_kernel_line(const char *line, uint32_t pid, uint64_t *us_out);

/* What the kernel's line about a kill for want of memory says, in bytes; 0: it does not say. */
struct crash_memory {
	uint64_t resident, total; /* of the process */
	uint64_t usage, limit;	  /* of its control group */
};
/* Takes what is in the line; others of the same kill have the rest. */
void crash_read_memory(const char *line, struct crash_memory *memory);

/* A line of pm2's own log: does it say that pm2 has ended pid? */
bool crash_is_ended_by_pm2(const char *line, uint32_t pid);

/*
 * A line of what systemd writes about a unit: how its main process ended ("code=killed,
 * status=9/KILL"), or that systemd ended it because it did not stop in time. True: it tells
 * something, which is added to out, at first "".
 */
bool crash_read_systemd(const char *line, char *out, size_t room);

/* "oom_kill 3" in memory.events or memory.oom_control; 0 if it is not there. */
uint64_t crash_read_oom_kills(const char *text);

/* What the kernel wrote about a process after its last record; its words, "" if there are none;
 * memory, unless NULL: what it says of a kill for want of it. */
enum crash_cause crash_ask_kernel(const struct oplog_header *h, uint64_t last_record,
				  char words[CRASH_WORDS], struct crash_memory *memory);
/* How many the kernel has killed for want of memory in this control group, which in a container is
 * the backend's too. */
uint64_t crash_oom_kills_here(void);
/* Whether the machine has not been started again since. */
bool crash_is_this_boot(const struct oplog_header *h);

#endif
