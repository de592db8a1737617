/* SPDX-License-Identifier: MIT
 *
 * The pre-flight's diagnosis, and what is done about damage: repair, restore, or no start.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "command/run/preflight.h"
#include "command/verbs/recover.h"
#include "core/snapshot/manifest.h"
#include "core/store/look.h"

#define SHOWN 8

/* ---- findings ---- */

/* Said elsewhere, or no news at a start. */
static bool is_told_elsewhere(enum diagnose_code code)
{
	switch (code) {
	case DIAGNOSE_NOT_CHROMA:
	case DIAGNOSE_DISK_LOW:
	case DIAGNOSE_NETWORK:
	case DIAGNOSE_BACKEND_BEHIND:
	case DIAGNOSE_BACKEND_OLDER:
	case DIAGNOSE_BACKEND_UNKNOWN:
	case DIAGNOSE_SNAPSHOT_OLD:
	case DIAGNOSE_SNAPSHOT_BROKEN:
		return true;
	default:
		return false;
	}
}

/* Where Chroma by its mere start, or by its next write, would throw away what can be brought back.
 */
static bool is_made_worse(enum diagnose_code code)
{
	switch (code) {
	case DIAGNOSE_EMPTIED:
	case DIAGNOSE_DATABASE_MISSING:
	case DIAGNOSE_DATABASE_FOREIGN:
	case DIAGNOSE_DATABASE_LOST:
	case DIAGNOSE_DATABASE_SHORT:
	case DIAGNOSE_DATABASE_MALFORMED:
	case DIAGNOSE_TABLE_MISSING:
	case DIAGNOSE_PICKLE_MISSING:
	case DIAGNOSE_RESTORE_CUT:
		return true;
	default:
		return false;
	}
}

/* What a copy that was not finished, or of which a part was put back, looks like; and so may what
 * a crash has left. */
static bool is_half(enum diagnose_code code)
{
	switch (code) {
	case DIAGNOSE_DATABASE_SHORT:
	case DIAGNOSE_DATABASE_UNFINISHED:
	case DIAGNOSE_SEGMENT_MISSING:
	case DIAGNOSE_FILE_MISSING:
	case DIAGNOSE_FILE_UNFINISHED:
	case DIAGNOSE_PICKLE_MISSING:
	case DIAGNOSE_LEVEL0_SHORT:
	case DIAGNOSE_LENGTH_SHORT:
	case DIAGNOSE_MOMENTS:
		return true;
	default:
		return false;
	}
}

static void describe(const struct diagnose_finding *f, char *out, size_t room)
{
	bool names_file = f->file && !f->collection && strcmp(f->file, CHROMA_DATABASE) != 0;

	snprintf(out, room, "%s%s%s%s%s%s%s%s%s: %s", diagnose_kinds[f->code].code,
		 f->collection ? ": collection " : "", f->collection ? f->collection : "",
		 f->segment && !f->collection ? ": segment " : "",
		 f->segment && !f->collection ? f->segment : "", names_file ? ": " : "",
		 names_file ? f->file : "", f->detail ? ": " : "", f->detail ? f->detail : "",
		 diagnose_kinds[f->code].means);
}

static void note_finding(void *context, const struct diagnose_finding *f)
{
	struct preflight *p = context;
	enum diagnose_severity severity = diagnose_kinds[f->code].severity;
	char line[sizeof(p->first_damage)], dir[PATH_MAX];

	describe(f, line, sizeof(line));
	if (f->code == DIAGNOSE_DIED && !p->run->look)
		run_say(p->run,
			f->detail && strstr(f->detail, DIAGNOSE_IN_THE_MIDDLE)
			    ? "the last backend did not end by itself; `chromashim log "
			      "--last-crash %s` tells what it was doing"
			    : "the last backend was ended between two calls, and what it had begun "
			      "is put right (chromashim log --last-crash %s)",
			format_quoted(dir, sizeof(dir), p->run->dir));
	if (severity == DIAGNOSE_NOTE || is_told_elsewhere(f->code) ||
	    (p->run->look && severity != DIAGNOSE_DAMAGE))
		return;
	if (severity == DIAGNOSE_DAMAGE) {
		p->is_copy |= diagnose_is_bad_copy(f->code) || f->code == DIAGNOSE_EMPTIED ||
			      f->code == DIAGNOSE_SEGMENTS_ABSENT;
		p->is_gone |= f->code == DIAGNOSE_DATABASE_MISSING;
		p->is_fatal |= is_made_worse(f->code);
		p->is_half |= is_half(f->code);
		if (p->damages++ == 0)
			memcpy(p->first_damage, line, sizeof(line));
	}
	if (p->warnings < SHOWN)
		preflight_warn(p, NULL, "%s", line);
	else
		p->warnings++;
}

static int diagnose(struct preflight *p)
{
	struct diagnose_options options = {.storefd = p->data.storefd,
					   .strayfd = p->data.strayfd,
					   .report = note_finding,
					   .context = p};
	unsigned before = p->warnings;
	int r;

	if (p->run->backend.installation[0])
		options.backend = p->run->backend.installation;
	p->damages = 0;
	p->is_fatal = p->is_copy = p->is_gone = p->is_half = false;
	r = diagnose_directory(p->run->dir, p->data.dirfd, &options, &p->summary);
	if (r < 0)
		preflight_warn(p, NULL, "'%s' could not be looked at: %s", p->run->dir,
			       strerror(-r));
	if (p->warnings > SHOWN && p->warnings > before + SHOWN)
		run_say(p->run, "and more: `chromashim check %s`", p->run->dir);
	return 0;
}

/* ---- keeping and bringing back ---- */

int preflight_keep(struct preflight *p, const char *reason, const char *description,
		   bool accept_broken, uint64_t *id_out)
{
	struct snapshot_flags flags = {.quiet = true};
	struct snapshot_options options = {.path = p->run->dir,
					   .dirfd = p->data.dirfd,
					   .reason = reason,
					   .description = description,
					   .accept_broken = true,
					   .idle = p->alone};
	struct snapshot_trouble t;
	struct snapshots s;
	struct manifest m;
	int r, status = snapshots_open(&s, p->run->dir, SNAPSHOT_CHANGE, true);

	*id_out = 0;
	if (status)
		return status;
	if (accept_broken) {
		r = snapshot_take(&s.store, &options, &m, &t);
		if (r < 0)
			status = snapshots_fail(&s, r, &t, "cannot take a snapshot of");
		else
			*id_out = m.header.id;
		manifest_free(&m);
	} else {
		status = snapshots_create(&s, reason, description, true, &flags, id_out);
	}
	snapshots_close(&s);
	return status;
}

/* What was kept before a first open because healing would cost something, a start by `run` may
 * heal all the same, and tells the losses. */
#define NOT_HEALED "not healed, "

static bool describes(const struct preflight *p, const char *text)
{
	if (p->run->look && strncmp(text, NOT_HEALED, strlen(NOT_HEALED)) == 0)
		text += strlen(NOT_HEALED);
	return strcmp(text, p->first_damage) == 0;
}

/* Whether this very damage is kept already: it is looked at again at every start. */
static bool is_kept(struct preflight *p)
{
	struct snapshots s;
	bool kept = false;
	size_t i;

	if (p->data.storefd < 0 ||
	    faccessat(p->data.storefd, SNAPSHOTS_DIR, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ||
	    snapshots_open(&s, p->run->dir, SNAPSHOT_LOOK, false))
		return false;
	for (i = 0; i < s.count; i++)
		kept |= !strcmp(s.list[i].reason, "damage") && describes(p, s.list[i].description);
	snapshots_close(&s);
	return kept;
}

/* stdout is the backend's. */
static int restore_latest(struct preflight *p)
{
	static char verb[] = "restore", to[] = "--to", latest[] = "latest", yes[] = "-y",
		    quiet[] = "-q";
	char *argv[] = {verb, to, latest, yes, quiet, p->run->dir, NULL};
	int out = dup(STDOUT_FILENO), status;

	fflush(stdout);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	optind = 0;
	status = command_restore(6, argv);
	fflush(stdout);
	if (out >= 0) {
		dup2(out, STDOUT_FILENO);
		close(out);
	}
	if (status != EXIT_DONE)
		return fail(EXIT_FAILED, 0, "`chromashim check` tells what is wrong.",
			    "not started: '%s' is damaged and was not restored", p->run->dir);
	run_say(p->run,
		"'%s' was damaged: the newest snapshot was restored; what was there is kept "
		"as a snapshot",
		p->run->dir);
	return 0;
}

static int begin_exchange(void *context)
{
	const struct preflight *p = context;

	if (!p->run->look || look_go_on(p->run->look, LOOK_CHANGES))
		return 0;
	warn("'%s' was not healed: it took too long, and the backend has opened it meanwhile\n"
	     "  Stop it, and run `chromashim recover`.",
	     p->run->dir);
	return -ECANCELED;
}

/* Its account goes to stderr: stdout is the backend's. 0 also where it had nothing to do. */
static int heal(struct preflight *p)
{
	struct recovering x = {.flags = {.yes = true},
			       .steps = RECOVER_ALL,
			       .without_loss = p->is_half || p->run->look,
			       .may_exchange = begin_exchange,
			       .exchange_context = p,
			       .telling = {.out = stderr}};
	int status = snapshots_open(&x.s, p->run->dir, SNAPSHOT_CHANGE, true);

	if (status)
		return status;
	status = recovering_run(&x);
	p->loss = x.loss;
	p->is_loss = x.is_loss;
	snapshots_close(&x.s);
	return status;
}

static void recover(struct preflight *p)
{
	int status;

	run_say(p->run, "'%s' is damaged; healing it on a copy:", p->run->dir);
	status = heal(p);
	if (status != EXIT_DONE && status != EXIT_WARNINGS)
		return; /* as it was */
	if (status == EXIT_WARNINGS)
		warn("'%s' was healed, with the losses above", p->run->dir);
	p->warnings = status == EXIT_WARNINGS;
	diagnose(p);
	if (!p->damages && status == EXIT_WARNINGS)
		warn("'%s' is usable again, without what is lost", p->run->dir);
	else if (!p->damages)
		run_say(p->run, "'%s' is whole again", p->run->dir);
}

/* ---- what to do ---- */

/* A backend that is about to open it anyway cannot be kept from it. */
static const char *outcome(const struct preflight *p)
{
	return p->run->look ? "it is opened as it is" : "not started";
}

static const char *all_the_same(const struct preflight *p)
{
	return p->run->look ? "" : "; --no-preflight starts all the same";
}

static int refuse(struct preflight *p, const char *why)
{
	char todo[PATH_MAX + 256], dir[PATH_MAX];

	format_quoted(dir, sizeof(dir), p->run->dir);
	if (p->summary.newest_snapshot)
		snprintf(todo, sizeof(todo),
			 "%s`chromashim restore %s --to latest` goes back to the newest snapshot "
			 "(CHROMASHIM_ON_DAMAGE=restore does so at a start); `chromashim check` "
			 "tells what else helps%s.",
			 p->run->look ? "Stop the backend; " : "", dir, all_the_same(p));
	else
		snprintf(todo, sizeof(todo), "`chromashim check %s` tells what helps%s.", dir,
			 all_the_same(p));
	return fail(EXIT_FAILED, 0, todo, "%s: '%s' is damaged%s", outcome(p), p->run->dir, why);
}

static int refuse_copy(struct preflight *p)
{
	return refuse(p,
		      ", by a copy that went wrong, and nothing is healed that is whole elsewhere");
}

static int refuse_gone(struct preflight *p)
{
	return refuse(p, ": its database is not there, and nothing here can heal that");
}

/* Healing is the loss where a whole copy is elsewhere; only somebody who knows can tell. */
static int refuse_loss(struct preflight *p)
{
	char todo[2 * PATH_MAX + 256], dir[PATH_MAX], cost[80] = "records or names may be lost";

	format_quoted(dir, sizeof(dir), p->run->dir);
	if (p->loss)
		snprintf(cost, sizeof(cost),
			 "%" PRIu64 " records would be lost, changed or without their vector",
			 p->loss);
	snprintf(
	    todo, sizeof(todo),
	    "%sIf it is a copy, copy all of it again. Else `chromashim recover %s` heals it as far "
	    "as that goes, and keeps what was there%s%s.",
	    p->run->look ? "Stop the backend. " : "", dir,
	    p->summary.newest_snapshot
		? "; `chromashim restore --to latest` goes back to the newest snapshot"
		: "",
	    all_the_same(p));
	return fail(EXIT_FAILED, 0, todo,
		    "%s: a part of '%s' is damaged, not there or of another moment, and healed "
		    "without it %s",
		    outcome(p), p->run->dir, cost);
}

/* What is left when healing did not help: 0, or why it cannot go on. */
static int judge(struct preflight *p)
{
	if (p->is_copy)
		return refuse_copy(p);
	if (p->is_gone)
		return refuse_gone(p);
	if (p->is_loss)
		return refuse_loss(p);
	return p->is_fatal ? refuse(p, p->run->look ? ", and Chroma may make it worse"
						    : ", and a start would make it worse")
			   : 0;
}

static int keep_damage(struct preflight *p)
{
	char text[sizeof(NOT_HEALED) + sizeof(p->first_damage)];
	uint64_t id;
	int status;

	snprintf(text, sizeof(text), "%s%s", p->run->look && p->is_loss ? NOT_HEALED : "",
		 p->first_damage);
	status = preflight_keep(p, "damage", text, true, &id);
	if (status)
		return status;
	run_say(p->run,
		"the damaged state is kept as snapshot %" PRIu64 "; Chroma %s, with what is "
		"whole",
		id, p->run->look ? "goes on" : "starts");
	return 0;
}

/*
 * What is left is kept as a snapshot, so that nothing is lost whatever Chroma does to it; and
 * healing is tried once only, since a copy takes its time.
 */
static int repair(struct preflight *p)
{
	bool kept = is_kept(p);
	int status;

	if (!p->is_copy && !p->is_gone && !kept)
		recover(p);
	if (!p->damages)
		return 0;
	status = judge(p);
	if (status && !p->run->look)
		return status;
	return kept || p->is_new ? 0 : keep_damage(p);
}

/* Whether there is a snapshot that `restore --to latest` would take. */
static bool has_restorable(struct preflight *p)
{
	struct snapshots s;
	bool found;

	if (snapshots_open(&s, p->run->dir, SNAPSHOT_LOOK, false))
		return false;
	found = snapshots_find(&s, "latest") >= 0;
	snapshots_close(&s);
	return found;
}

/* With --check-only: what a start would do, as far as that can be told without doing it. */
static int foretell(struct preflight *p)
{
	if (run_is_set_to(p->run, CONFIG_ON_DAMAGE, "restore")) {
		if (!has_restorable(p))
			return refuse(p, ", and there is no snapshot to restore");
		run_say(p->run, "a start would restore the newest snapshot of '%s' first",
			p->run->dir);
	} else if (p->is_copy) {
		return refuse_copy(p);
	} else if (p->is_gone) {
		return refuse_gone(p);
	} else if (!is_kept(p)) {
		run_say(p->run,
			"a start would heal '%s' on a copy first%s; `chromashim recover -n` tells "
			"how",
			p->run->dir,
			p->is_half    ? ", and not take place if that would cost something"
			: p->is_fatal ? ", and not take place if that does not help"
				      : "");
	} else if (p->is_fatal) {
		return refuse(p, ", and a start would make it worse");
	}
	return 0;
}

int preflight_damage(struct preflight *p)
{
	int status;

	diagnose(p);
	if (!p->damages)
		return 0;
	if (run_is_set_to(p->run, CONFIG_ON_DAMAGE, "refuse"))
		return refuse(p, "");
	if (p->run->look && !look_go_on(p->run->look, LOOK_HEALS))
		return 0;
	if (p->run->check_only && p->alone)
		return foretell(p);
	if (!p->alone)
		return p->is_fatal ? refuse(p, ", and another process has it open") : 0;
	if (!run_is_set_to(p->run, CONFIG_ON_DAMAGE, "restore"))
		return repair(p);
	status = restore_latest(p);
	if (status == 0) {
		diagnose(p);
		status = p->damages ? refuse(p, " even after the restore") : 0;
	}
	return status;
}
