/* SPDX-License-Identifier: MIT
 *
 * What the kernel's words tell about a death.
 */
#include "command/base/crash_cause.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_number(const char *text, const char *before, uint32_t pid, const char *after)
{
	char wanted[64];

	snprintf(wanted, sizeof(wanted), "%s%" PRIu32 "%s", before, pid, after);
	return strstr(text, wanted) != NULL;
}

enum crash_cause crash_judge_kernel_line(const char *line, uint32_t pid, uint64_t *us_out)
{
	const char *text = strchr(line, ';'), *at = strchr(line, ',');

	*us_out = 0;
	if (!text || !at || at > text)
		return CRASH_UNKNOWN;
	at = strchr(at + 1, ',');
	if (at && at < text)
		*us_out = strtoull(at + 1, NULL, 10);
	if (has_number(text, "Killed process ", pid, " ") ||
	    has_number(text, "Killed process ", pid, ",") ||
	    (strncmp(text + 1, "oom-kill:", 9) == 0 && has_number(text, ",pid=", pid, ",")))
		return CRASH_OOM;
	if (has_number(text, "[", pid, "]: segfault at ") ||
	    has_number(text, "[", pid, "] general protection") ||
	    has_number(text, "[", pid, "] trap ") || has_number(text, "[", pid, "]: bus error"))
		return CRASH_FAULT;
	return CRASH_UNKNOWN;
}

uint64_t crash_read_oom_kills(const char *text)
{
	static const char key[] = "oom_kill ";

	for (; text && *text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (strncmp(text, key, sizeof(key) - 1) == 0)
			return strtoull(text + sizeof(key) - 1, NULL, 10);
		if (!*text)
			break;
	}
	return 0;
}
