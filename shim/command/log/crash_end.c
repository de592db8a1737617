/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --last-crash`: what ended it, by what the log, the kernel, its control group,
 * pm2 and systemd say.
 */
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/processes.h"
#include "command/base/terminal.h"
#include "command/log/crash_parts.h"
#include "core/base/clock.h"
#include "core/base/symbols.h"
#include "core/oplog/oplog.h"

#define PM2_TAIL (1 << 20) /* bytes of its log that are looked at */

/* ---- who looks after it ---- */

/* The end of pm2's log of the user that the process ran as. */
static FILE *open_pm2_log(uint32_t uid)
{
	const char *home = getenv("PM2_HOME");
	const struct passwd *user = home ? NULL : getpwuid(uid);
	char path[1024];
	FILE *log;

	if (!home && !user)
		return NULL;
	snprintf(path, sizeof(path), "%.900s%s/pm2.log", home ? home : user->pw_dir,
		 home ? "" : "/.pm2");
	log = fopen(path, "re");
	if (log && fseek(log, -PM2_TAIL, SEEK_END) < 0)
		rewind(log);
	return log;
}

static bool was_ended_by_pm2(const struct oplog_header *h)
{
	FILE *log = open_pm2_log(h->uid);
	char line[1024];
	bool found = false;

	while (log && !found && fgets(line, sizeof(line), log))
		found = crash_is_ended_by_pm2(line, h->pid);
	if (log)
		fclose(log);
	return found;
}

static void read_name(uint32_t pid, char *out, size_t room)
{
	char path[64];
	FILE *file;

	out[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/comm", pid);
	file = fopen(path, "re");
	if (file && fgets(out, (int)room, file))
		out[strcspn(out, "\n")] = '\0';
	if (file)
		fclose(file);
}

/* ---- systemd ---- */

/* What journalctl says; its words are from here, but for numbers. NULL: it cannot be asked. */
static FILE *ask_journal(const char *format, ...)
{
	char words[256], command[320];
	va_list ap;

	va_start(ap, format);
	vsnprintf(words, sizeof(words), format, ap);
	va_end(ap);
	snprintf(command, sizeof(command), "exec timeout 5 journalctl -q -b -o cat %s 2>/dev/null",
		 words);
	return popen(command, "re");
}

/* Which start of the unit it was: what it wrote itself is noted with it. "": not known. */
static void read_invocation(const struct who_process *p, char out[40])
{
	FILE *journal = ask_journal("-n 1 --output-fields=_SYSTEMD_INVOCATION_ID _PID=%" PRIu32
				    " --since=@%" PRIu64 " --until=@%" PRIu64,
				    p->header.pid, p->first / SECOND, p->last / SECOND + 60);

	if (!journal || !fgets(out, 40, journal) || strspn(out, "0123456789abcdef") != 32)
		out[0] = '\0';
	out[strcspn(out, "\n")] = '\0';
	if (journal)
		pclose(journal);
}

/* What systemd wrote when it ended. */
static void ask_systemd(struct crash *c)
{
	const struct who_process *p = crash_dead(c);
	char invocation[40], line[512];
	FILE *journal;

	c->end.by[0] = '\0';
	read_invocation(p, invocation);
	journal = invocation[0] ? ask_journal("-n 40 _PID=1 INVOCATION_ID=%s", invocation) : NULL;
	while (journal && fgets(line, sizeof(line), journal)) {
		line[strcspn(line, "\n")] = '\0';
		crash_read_systemd(line, c->end.by, sizeof(c->end.by));
	}
	if (journal)
		pclose(journal);
	if (!c->end.by[0])
		strlcpy(c->end.by,
			"it was started by systemd: `systemctl status` of its unit has the exit "
			"status",
			sizeof(c->end.by));
}

/* Its parent, if that still lives, may be one that starts it again. */
static void ask_supervisor(struct crash *c)
{
	const struct oplog_header *h = &crash_dead(c)->header;
	char name[32];

	if (was_ended_by_pm2(h)) {
		strlcpy(c->end.by, "pm2 ended it: its log says so", sizeof(c->end.by));
		return;
	}
	read_name(h->parent_pid, name, sizeof(name));
	if (strncmp(name, "PM2", 3) == 0)
		strlcpy(c->end.by, "it was started by pm2: `pm2 logs` has its own last words",
			sizeof(c->end.by));
	else if (h->parent_pid == 1 && access("/run/systemd/system", F_OK) == 0)
		ask_systemd(c);
}

void crash_ask_others(struct crash *c)
{
	if (!crash_is_this_boot(&crash_dead(c)->header))
		return;
	if (!crash_dead(c)->exited)
		c->end.cause = crash_ask_kernel(&crash_dead(c)->header, crash_dead(c)->last,
						c->end.words, &c->end.memory);
	ask_supervisor(c);
}

const char *crash_how(struct crash *c)
{
	const struct who_process *p = crash_dead(c);

	if (p->exited)
		return p->stopped_by ? "stop" : "exit";
	if (c->end.cause == CRASH_OOM)
		return "oom";
	if (c->end.cause == CRASH_FAULT)
		return "fault";
	return crash_is_this_boot(&p->header) ? "signal" : "reboot";
}

/* ---- in words ---- */

static void print_memory(const struct crash_memory *m)
{
	char bytes[32], other[32];

	if (m->resident)
		printf("; it had %s in memory, of %s of addresses",
		       format_bytes(bytes, sizeof(bytes), m->resident),
		       format_bytes(other, sizeof(other), m->total));
	if (m->limit)
		printf("; its control group used %s of %s",
		       format_bytes(bytes, sizeof(bytes), m->usage),
		       format_bytes(other, sizeof(other), m->limit));
}

static void print_signal(void)
{
	uint64_t kills = crash_oom_kills_here();

	printf("it did not end by itself: killed by a signal (SIGKILL leaves no other trace, nor "
	       "does one that it does not handle)");
	if (kills)
		printf(
		    "; the kernel has killed %" PRIu64
		    " process%s of this control group for want of memory, and it may have been one",
		    kills, kills == 1 ? "" : "es");
}

static void print_reboot(bool utc)
{
	uint64_t now = clock_read(CLOCK_REALTIME), up = clock_read(CLOCK_BOOTTIME);
	char when[40];

	printf("it did not end by itself, and the machine has been started again since, at %s: "
	       "power, a reset, or a kill before that",
	       format_time(when, sizeof(when), now - (up < now ? up : now), utc));
}

static void print_clean_end(struct crash *c)
{
	const struct who_process *p = crash_dead(c);
	const char *name = symbol_of_signal(p->stopped_by);
	char when[40], took[32];

	printf("the last backend (pid %" PRIu32 ") ", p->header.pid);
	if (p->stopped_by)
		printf("was stopped by SIG%s, and ended in order", name ? name : "?");
	else
		printf("ended by itself");
	if (!p->stopped_by && p->exit_status > 0)
		printf(" with exit status %d", p->exit_status);
	printf(" at %s: %s, after %s", format_time(when, sizeof(when), p->last, c->options->utc),
	       p->label, format_duration(took, sizeof(took), p->last - p->first));
}

static void print_death(struct crash *c, const char *how)
{
	const struct who_process *p = crash_dead(c);
	char when[40], took[32];

	printf("%s (pid %" PRIu32 "), last heard of at %s after %s: ", p->label, p->header.pid,
	       format_time(when, sizeof(when), p->last, c->options->utc),
	       format_duration(took, sizeof(took), p->last - p->first));
	if (!strcmp(how, "oom"))
		printf("killed by the kernel for want of memory");
	else if (!strcmp(how, "fault"))
		printf("it did not end by itself, it crashed: %s", c->end.words);
	else if (!strcmp(how, "reboot"))
		print_reboot(c->options->utc);
	else
		print_signal();
	if (!strcmp(how, "oom"))
		print_memory(&c->end.memory);
}

void crash_print_end(struct crash *c)
{
	const char *how = crash_how(c);

	printf("Ended:     ");
	if (crash_dead(c)->exited)
		print_clean_end(c);
	else
		print_death(c, how);
	if (c->end.by[0])
		printf("; %s", c->end.by);
	putchar('\n');
	if (!strcmp(how, "oom"))
		printf("           The kernel: %s\n", c->end.words);
}
