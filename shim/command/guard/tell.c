/* SPDX-License-Identifier: MIT
 *
 * What the guardian tells as it happens: a line in its log, the hook, and the ring of events, from
 * which the next guardian and `status` know it.
 */
#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/owner.h"
#include "core/oplog/oplog.h"
#include "core/snapshot/known.h"
#include "core/store/events.h"

#define HOOK_TIME (30 * SECOND)
#define HOOK_LAST (5 * SECOND) /* at the guardian's end */

extern char **environ;

/* ---- the log ---- */

static void tell_say(const char *text)
{
	char time[40];

	format_time_utc(time, sizeof(time), clock_read(CLOCK_REALTIME));
	fprintf(stderr, "%.19sZ guard: %s\n", time, text);
}

void guardian_say(const struct guardian *g, const char *format, ...)
{
	char text[512];
	va_list ap;

	if (g->quiet)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	tell_say(text);
}

/* ---- the hook ---- */

static int event_json(const struct guardian *g, const char *event, uint64_t id, const char *text)
{
	int fd = memfd_create("chromashim-event", MFD_CLOEXEC), copy = fd < 0 ? -1 : dup(fd);
	FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
	struct json j = {.out = out};
	char time[40];

	if (!out) {
		if (copy >= 0)
			close(copy);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	json_begin(&j, '{');
	json_key(&j, "schema_version");
	json_uint(&j, SCHEMA_VERSION);
	json_key(&j, "event");
	json_string(&j, event);
	json_key(&j, "time");
	json_string(&j, format_time_utc(time, sizeof(time), clock_read(CLOCK_REALTIME)));
	json_key(&j, "directory");
	json_string(&j, g->s.data.dir);
	json_key(&j, "snapshot");
	if (id)
		json_uint(&j, id);
	else
		json_null(&j);
	json_key(&j, "message");
	json_string(&j, text);
	json_end(&j, '}');
	json_newline(&j);
	fclose(out);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static char **environment_with(char *event)
{
	size_t n = 0, i;
	char **all;

	while (environ[n])
		n++;
	all = calloc(n + 2, sizeof(*all));
	for (i = 0; all && i < n; i++)
		all[i] = environ[i];
	if (all)
		all[n] = event;
	return all;
}

/* In a process group of its own, so that all of it can be ended, and with SIGPIPE as it should be.
 */
static int spawn_hook(pid_t *pid, char *const *argv, char *const *environment, int input)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t pipe;
	int r;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, input, 0);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setsigdefault(&attributes, &pipe);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
	owner_pause();
	r = posix_spawn(pid, argv[0], &actions, &attributes, argv, environment);
	owner_resume();
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

static void call_hook(struct guardian *g, const char *event, uint64_t id, const char *text)
{
	char variable[64], program[4096], name[48];
	char *argv[] = {program, name, NULL}, **all;
	struct guard_hook *slot = NULL;
	int fd, i, r;

	for (i = 0; i < GUARD_HOOKS && !slot; i++)
		slot = g->hooks[i].pid ? NULL : &g->hooks[i];
	if (!slot) {
		guardian_say(g, "the hook is not called for %s: too many of them still run", event);
		return;
	}
	snprintf(program, sizeof(program), "%s", g->settings.hook);
	snprintf(name, sizeof(name), "%s", event);
	snprintf(variable, sizeof(variable), "CHROMASHIM_EVENT=%s", event);
	all = environment_with(variable);
	fd = event_json(g, event, id, text);
	r = all && fd >= 0 ? spawn_hook(&slot->pid, argv, all, fd) : ENOMEM;
	if (r) {
		slot->pid = 0;
		guardian_say(g, "the hook '%s' cannot be called: %s", program, strerror(r));
	}
	slot->deadline = oplog_now() + HOOK_TIME;
	if (fd >= 0)
		close(fd);
	free(all);
}

void guardian_reap(struct guardian *g)
{
	int i, status;

	for (i = 0; i < GUARD_HOOKS; i++) {
		struct guard_hook *h = &g->hooks[i];

		if (!h->pid)
			continue;
		if (waitpid(h->pid, &status, WNOHANG) != 0) {
			h->pid = 0;
		} else if (oplog_now() > h->deadline) {
			guardian_say(g, "the hook took too long, and is ended");
			kill(-h->pid, SIGKILL);
			waitpid(h->pid, &status, 0);
			h->pid = 0;
		}
	}
}

void guardian_finish_hooks(struct guardian *g)
{
	struct timespec step = {0, 20000000};
	uint64_t deadline = oplog_now() + HOOK_LAST;
	bool any = true;
	int i;

	while (any) {
		any = false;
		for (i = 0; i < GUARD_HOOKS; i++) {
			any = any || g->hooks[i].pid;
			if (oplog_now() > deadline)
				g->hooks[i].deadline = 0;
		}
		guardian_reap(g);
		if (any)
			nanosleep(&step, NULL);
	}
}

/* ---- keeping ---- */

/* What happens every day is in the log and in the list of snapshots; the ring is for the rest. */
static bool is_everyday(const char *name)
{
	static const char *const names[] = {"guard.start",	 "guard.stop",
					    "snapshot.pinned",	 "snapshot.taken",
					    "snapshot.verified", "replica.done"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

static void keep_event(const struct guardian *g, const char *name, uint64_t id, uint64_t about,
		       const char *text)
{
	struct store_event e = {.told = 1, .snapshot = id, .about = about};

	if (is_everyday(name))
		return;
	snprintf(e.name, sizeof(e.name), "%s", name);
	snprintf(e.text, sizeof(e.text), "%s", text);
	events_add(g->s.data.storefd, &e);
}

void guardian_tell_contradiction(struct guardian *g, uint64_t id)
{
	if (g->s.store.contradicted)
		guardian_tell(g, "snapshot.contradicted", id, "%s", KNOWN_CONTRADICTED);
	g->s.store.contradicted = false;
}

void guardian_pass_on(struct guardian *g, const char *event, uint64_t id, const char *text)
{
	tell_say(text);
	if (g->settings.hook)
		call_hook(g, event, id, text);
}

void guardian_tell(struct guardian *g, const char *event, uint64_t id, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	keep_event(g, event, id, 0, text);
	guardian_pass_on(g, event, id, text);
}

void guardian_tell_about(struct guardian *g, const char *event, uint64_t about, const char *format,
			 ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	keep_event(g, event, 0, about, text);
	guardian_pass_on(g, event, 0, text);
}
