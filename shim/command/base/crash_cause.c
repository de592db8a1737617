/* SPDX-License-Identifier: MIT
 *
 * What the kernel's words tell about a death.
 */
#include "command/base/crash_cause.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "core/oplog/oplog.h"

#define CLOCK_DRIFT UINT64_C(60000000000)

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

/* The number of kB after `key`, in bytes; 0: it is not there. */
static uint64_t kilobytes(const char *line, const char *key)
{
	const char *at = strstr(line, key);

	return at ? strtoull(at + strlen(key), NULL, 10) << 10 : 0;
}

/* A report on memory, or a fault, of whichever process. */
static bool begins_another_death(const char *line)
{
	static const char *const words[] = {" invoked oom-killer: ", "]: segfault at ",
					    "] general protection", "] trap ", "]: bus error"};
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strstr(line, words[i]))
			return true;
	return false;
}

void crash_read_memory(const char *line, struct crash_memory *memory)
{
	uint64_t limit = kilobytes(line, ", limit ");

	if (begins_another_death(line))
		memset(memory, 0, sizeof(*memory));
	if (strstr(line, "memory: usage ") && limit) {
		memory->usage = kilobytes(line, "memory: usage ");
		memory->limit = limit;
	}
	if (strstr(line, "Killed process ")) {
		memory->total = kilobytes(line, "total-vm:");
		memory->resident = kilobytes(line, "anon-rss:") + kilobytes(line, "file-rss:") +
				   kilobytes(line, "shmem-rss:");
	}
}

bool crash_is_ended_by_pm2(const char *line, uint32_t pid)
{
	return has_number(line, "pid=", pid, " msg=process killed") ||
	       has_number(line, "pid=", pid, " msg=failed to kill");
}

bool crash_read_systemd(const char *line, char *out, size_t room)
{
	static const char exited[] = "Main process exited, ", late[] = " timed out. Killing";
	const char *how = strstr(line, exited);
	size_t n = strlen(out);

	if (how)
		snprintf(out + n, room - n, "%ssystemd: %s", n ? "; " : "",
			 how + sizeof(exited) - 1);
	else if (strstr(line, late))
		snprintf(out + n, room - n, "%ssystemd killed it, since it had not stopped in time",
			 n ? "; " : "");
	else
		return false;
	return true;
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

enum crash_cause crash_ask_kernel(const struct oplog_header *h, uint64_t last_record,
				  char words[CRASH_WORDS], struct crash_memory *memory)
{
	uint64_t last = last_record - h->anchor_realtime + h->anchor_monotonic, us;
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	enum crash_cause found = CRASH_UNKNOWN, cause;
	struct crash_memory seen = {0};
	char line[8192];
	ssize_t n;

	words[0] = '\0';
	while (fd >= 0 && ((n = read(fd, line, sizeof(line) - 1)) > 0 || errno == EPIPE)) {
		if (n <= 0)
			continue; /* older ones were overwritten meanwhile */
		line[n] = '\0';
		line[strcspn(line, "\n")] = '\0';
		crash_read_memory(line, &seen);
		cause = crash_judge_kernel_line(line, h->pid, &us);
		/* Its clock may lag a little. Pids repeat: the first after the last record counts.
		 */
		if (cause == CRASH_UNKNOWN || us * 1000 + CLOCK_DRIFT < last)
			continue;
		found = cause;
		strlcpy(words, strchr(line, ';') + 1, CRASH_WORDS);
		if (memory)
			*memory = seen;
		if (cause != CRASH_OOM || strstr(line, "Killed process "))
			break; /* the line with the figures comes last */
	}
	if (fd >= 0)
		close(fd);
	return found;
}

static uint64_t read_kills(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[4096];
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return crash_read_oom_kills(text);
}

uint64_t crash_oom_kills_here(void)
{
	char line[1024], path[1200];
	FILE *groups = fopen("/proc/self/cgroup", "re");
	uint64_t kills = 0;

	while (groups && fgets(line, sizeof(line), groups)) {
		char *name = strchr(line, ':'), *where = name ? strchr(name + 1, ':') : NULL;

		if (!where)
			continue;
		where[strcspn(where, "\n")] = '\0';
		if (strncmp(line, "0::", 3) == 0)
			snprintf(path, sizeof(path), "/sys/fs/cgroup%.1000s/memory.events",
				 where + 1);
		else if (strncmp(name, ":memory:", 8) == 0)
			snprintf(path, sizeof(path),
				 "/sys/fs/cgroup/memory%.1000s/memory.oom_control", where + 1);
		else
			continue;
		kills += read_kills(path);
	}
	if (groups)
		fclose(groups);
	return kills;
}

bool crash_is_this_boot(const struct oplog_header *h)
{
	uint8_t now[16];

	oplog_boot_id(now);
	return memcmp(now, h->boot_id, sizeof(now)) == 0;
}
