/* SPDX-License-Identifier: MIT
 *
 * The pre-flight of `chromashim run`: its order, and its last line.
 *
 * Rule here: quiet when all is well (one line), else one line for each fact and one for the way on.
 */
#include "command/run/preflight.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command/base/rollbacks.h"
#include "command/base/snapshots.h"
#include "command/base/terminal.h"

static void say_line(void *context, const char *line)
{
	warn("%s", line);
	(void)context;
}

int preflight_roll_back(struct preflight *p)
{
	struct rollbacks done;
	int r;

	if (p->others_write) /* a mere reader of the database has nothing to do with segments */
		return 0;
	if (p->alone && !p->run->check_only)
		restore_end_pending(&p->data);
	r = rollbacks_run(&p->data, p->run->check_only, say_line, NULL, &done);
	if (r < 0)
		preflight_warn(p, "Run this as the owner of the data directory.",
			       "cannot look for persists that were cut off in '%s': %s",
			       p->data.store, strerror(-r));
	p->warnings += done.failed;
	return 0;
}

static void sum_up(const struct preflight *p)
{
	const struct diagnose_summary *s = &p->summary;
	char size[24], release[48] = "";

	if (s->backend_release[0])
		snprintf(release, sizeof(release), "; Chroma %s", s->backend_release);
	if (p->is_unused)
		run_say(p->run,
			"%s: still no Chroma data in it, although a backend has run here; if it "
			"keeps its data elsewhere, name that directory: --dir DIR",
			p->run->dir);
	else if (p->is_new && !p->is_made)
		run_say(p->run, "%s: no Chroma data in it yet", p->run->dir);
	else if (!p->is_new)
		run_say(p->run, "%s: %s, %" PRIu64 " collection%s, %" PRIu64 " records, %s%s",
			p->run->dir,
			p->damages    ? "damaged"
			: p->warnings ? "usable"
				      : "fine",
			s->collections, s->collections == 1 ? "" : "s", s->records,
			format_bytes(size, sizeof(size), s->bytes), release);
}

int preflight(struct run *r)
{
	static int (*const steps[])(struct preflight *) = {
	    preflight_rights,	 preflight_room,   preflight_processes,
	    preflight_roll_back, preflight_damage, preflight_migrations,
	};
	struct preflight p = {.run = r};
	int status = preflight_open(&p);
	size_t i;

	for (i = 0; status == 0 && i < sizeof(steps) / sizeof(steps[0]); i++)
		status = steps[i](&p);
	if (status == 0)
		sum_up(&p);
	data_directory_close(&p.data);
	if (status == 0 && r->check_only && p.warnings)
		return EXIT_WARNINGS;
	return status < 0 ? 0 : status;
}
