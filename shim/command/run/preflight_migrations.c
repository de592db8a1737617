/* SPDX-License-Identifier: MIT
 *
 * The pre-flight's answer to upgrades and downgrades: an older Chroma is stopped before it panics,
 * a newer one gets a snapshot before it migrates.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "command/run/preflight.h"
#include "core/chroma/installation.h"
#include "core/chroma/written_by.h"

static const char *release_of(const struct diagnose_summary *s)
{
	return s->backend_release[0] ? s->backend_release : "of this environment";
}

/* The newest that can be restored and that these migrations cover; its index or -1. */
static long find_fitting(const struct snapshots *s, const struct installation *chroma)
{
	long i, found = -1;
	unsigned k;

	for (i = 0; i < (long)s->count; i++) {
		const struct snapshot_header *h = &s->list[i].header;
		bool fits = h->state == SNAPSHOT_VERIFIED || h->state == SNAPSHOT_COMPLETE;

		for (k = 0; k < MIGRATION_DIRS; k++)
			fits &= h->migrations[k] && h->migrations[k] <= chroma->counts[k];
		if (fits)
			found = i;
	}
	return found;
}

static void say_what_helps(struct preflight *p, char *out, size_t room)
{
	struct installation chroma;
	struct snapshots s;
	char time[32], dir[PATH_MAX];
	long found;

	snprintf(out, room, "Start %s%s instead; there is no snapshot that this one could open.",
		 p->summary.era ? "Chroma " : "the Chroma that wrote it",
		 p->summary.era ? p->summary.era->last : "");
	if (p->data.storefd < 0 ||
	    faccessat(p->data.storefd, SNAPSHOTS_DIR, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ||
	    installation_find(p->run->backend.installation, &chroma) < 0 ||
	    snapshots_open(&s, p->run->dir, SNAPSHOT_LOOK, false))
		return;
	found = find_fitting(&s, &chroma);
	if (found >= 0)
		snprintf(out, room,
			 "Start the newer one, or go back to snapshot %" PRIu64 " (%s, %" PRIu64
			 " records): chromashim restore %s --to %" PRIu64,
			 s.list[found].header.id,
			 format_time(time, sizeof(time), s.list[found].header.time, false),
			 manifest_records(&s.list[found]),
			 format_quoted(dir, sizeof(dir), p->run->dir), s.list[found].header.id);
	snapshots_close(&s);
}

static int preflight_migration_refuse(struct preflight *p, const char *what_would_happen)
{
	const struct diagnose_summary *s = &p->summary;
	char todo[PATH_MAX + 256], written[80] = "by a newer Chroma";

	if (s->era)
		snprintf(written, sizeof(written), "by a newer Chroma (%s to %s)", s->era->first,
			 s->era->last);
	say_what_helps(p, todo, sizeof(todo));
	return fail(EXIT_FAILED, 0, todo,
		    "not started: '%s' was written %s; Chroma %s %s. Nothing is damaged",
		    p->run->dir, written, release_of(s), what_would_happen);
}

static int keep_before(struct preflight *p)
{
	char text[80], dir[PATH_MAX];
	uint64_t id;
	int status;

	if (p->run->check_only) {
		run_say(p->run, "Chroma %s will migrate the database; a snapshot is taken before",
			release_of(&p->summary));
		return 0;
	}
	snprintf(text, sizeof(text), "before Chroma %s migrates it", release_of(&p->summary));
	status = preflight_keep(p, "migration", text, false, &id);
	if (status && status != EXIT_WARNINGS)
		return fail(
		    (enum exit_code)status, 0,
		    "Mend that; --no-preflight starts without a snapshot.",
		    "not started: Chroma %s would migrate the database, and older ones could "
		    "not open it then",
		    release_of(&p->summary));
	run_say(p->run,
		"Chroma %s will migrate the database; snapshot %" PRIu64
		" keeps it as it was (chromashim restore %s --to %" PRIu64 ")",
		release_of(&p->summary), id, format_quoted(dir, sizeof(dir), p->run->dir), id);
	return 0;
}

void preflight_note_writers(const struct preflight *p)
{
	const struct diagnose_summary *s = &p->summary;

	if (s->migrations.has_table && s->era && p->data.storefd >= 0 && !p->run->check_only)
		written_by_note(p->data.dirfd, p->data.storefd, s->era->first, s->era->last);
}

int preflight_migrations(struct preflight *p)
{
	const struct diagnose_summary *s = &p->summary;

	preflight_note_writers(p);
	if (!s->migrations.has_table || !s->has_verdict)
		return 0;
	switch (s->backend_verdict) {
	case MIGRATION_PANICS:
		return preflight_migration_refuse(
		    p, "would panic at its start (\"range start index … out of range\")");
	case MIGRATION_FAILS:
		return preflight_migration_refuse(
		    p, "would fail on it, and leave marks that no other can read");
	case MIGRATION_RUNS_ON:
		preflight_warn(
		    p, "Use the Chroma that wrote it.",
		    "'%s' was written by a newer Chroma; %s opens it all the same, without "
		    "knowing what the newer one has added",
		    p->run->dir, release_of(s));
		return 0;
	case MIGRATION_MIGRATES:
		return p->alone ? keep_before(p) : 0;
	default:
		return 0;
	}
}
