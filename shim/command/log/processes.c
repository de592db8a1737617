/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --processes`: who had the directory, from when to when, and what it did.
 */
#include "command/log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "command/log/who.h"
#include "core/oplog/oplog.h"

struct processes_sink {
	struct log_sink sink;
	const struct log_options *options;
	struct log_who who;
};

static int processes_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct processes_sink *s = (struct processes_sink *)sink;

	return log_who_note(&s->who, e) ? 0 : -ENOMEM;
}

static bool is_wanted(const struct processes_sink *s, const struct who_process *p)
{
	const struct log_filter *f = &s->options->filter;

	return p->last >= f->since && (!f->until || p->first < f->until) &&
	       (!f->pid || f->pid == p->header.pid) &&
	       (!f->failed ||
		(!p->exited && strcmp(log_who_end(p, s->options->storefd), "running") != 0));
}

static void put_json(const struct processes_sink *s, const struct who_process *p)
{
	struct json j = {.out = stdout};
	char when[40];

	json_begin(&j, '{');
	json_put_uint(&j, "schema_version", SCHEMA_VERSION);
	json_put_uint(&j, "pid", p->header.pid);
	json_put_uint(&j, "parent_pid", p->header.parent_pid);
	json_put_uint(&j, "uid", p->header.uid);
	json_key(&j, "process");
	json_string(&j, p->label);
	json_key(&j, "program");
	json_string(&j, p->header.program);
	json_key(&j, "command");
	json_string(&j, p->command);
	json_key(&j, "first");
	json_string(&j, format_time_utc(when, sizeof(when), p->first));
	json_key(&j, "last");
	json_string(&j, format_time_utc(when, sizeof(when), p->last));
	json_key(&j, "ended");
	json_string(&j, log_who_end(p, s->options->storefd));
	json_key(&j, "writer");
	json_bool(&j, p->writer);
	json_put_uint(&j, "records", p->changes);
	json_put_uint(&j, "commits", p->commits);
	json_put_uint(&j, "persists", p->persists);
	json_put_uint(&j, "refused", p->refusals);
	json_end(&j, '}');
	json_newline(&j);
}

static void put_row(const struct processes_sink *s, const struct who_process *p)
{
	char when[40], command[512];
	int width = terminal_width();

	terminal_fit(command, sizeof(command), p->command ? p->command : p->header.program,
		     width > 120 ? (size_t)width - 100
		     : width	 ? 24
				 : 0);
	printf("%8" PRIu32 " %8" PRIu32 " %6" PRIu32 "  %s  ", p->header.pid, p->header.parent_pid,
	       p->header.uid, format_time(when, sizeof(when), p->first, s->options->utc));
	printf("%s  %-7s %9" PRIu64 " %8" PRIu64 " %8" PRIu64 " %7" PRIu64 "  %s\n",
	       format_time(when, sizeof(when), p->last, s->options->utc),
	       log_who_end(p, s->options->storefd), p->changes, p->commits, p->persists,
	       p->refusals, command);
}

static int processes_end(struct log_sink *sink)
{
	struct processes_sink *s = (struct processes_sink *)sink;
	size_t i;

	if (!s->options->json && s->who.count)
		printf("%s%8s %8s %6s  %-26s  %-26s  %-7s %9s %8s %8s %7s  command%s\n",
		       terminal_colour(COLOUR_BOLD), "pid", "parent", "user", "first act",
		       "last act", "end", "records", "commits", "persists", "refused",
		       terminal_colour(COLOUR_PLAIN));
	for (i = 0; i < s->who.count; i++) {
		if (!is_wanted(s, &s->who.list[i]))
			continue;
		if (s->options->json)
			put_json(s, &s->who.list[i]);
		else
			put_row(s, &s->who.list[i]);
	}
	return 0;
}

static void processes_free(struct log_sink *sink)
{
	struct processes_sink *s = (struct processes_sink *)sink;

	log_who_free(&s->who);
	free(s);
}

struct log_sink *log_processes_sink(const struct log_options *options)
{
	struct processes_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->sink.entry = processes_entry;
	s->sink.end = processes_end;
	s->sink.free = processes_free;
	s->sink.unfiltered = true;
	s->options = options;
	return &s->sink;
}
