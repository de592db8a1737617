/* SPDX-License-Identifier: MIT
 *
 * What the kernel's words tell about a death.
 */
#ifndef COMMAND_CRASH_CAUSE_H
#define COMMAND_CRASH_CAUSE_H

#include <stdint.h>

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

/* "oom_kill 3" in memory.events or memory.oom_control; 0 if it is not there. */
uint64_t crash_read_oom_kills(const char *text);

#endif
