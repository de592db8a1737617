/* SPDX-License-Identifier: MIT
 *
 * `chromashim recover`: heals a damaged Chroma directory.
 */
#include "command/verbs/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "command/base/in_use.h"
#include "command/base/out_directory.h"
#include "command/base/rollbacks.h"
#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/snapshot/restore.h"
#include "core/store/events.h"

const char recover_usage[] =
    "Usage: chromashim recover [OPTION]... [DIR]\n"
    "\n"
    "Heals a damaged Chroma directory, without Chroma, by the least that helps: persists that\n"
    "were cut off are undone, the rest is done on a copy, which is checked and then exchanged\n"
    "for what is there. What was there goes to quarantine/ in the store; nothing is removed. DIR\n"
    "is CHROMASHIM_DIR or ./chroma_data if not given. Chroma has to be stopped.\n"
    "\n"
    "  -n, --dry-run     only say what would be done\n"
    "  -y, --yes         do not ask\n"
    "      --only STEP   this step alone: journal (a transaction that was cut off), pages (what\n"
    "                    can be read of a malformed database, into a new one), tables\n"
    "                    (that are gone: made again), indexes (of the database, and the\n"
    "                    full-text index; documents and metadata whose rows are lost),\n"
    "                    migration (half of one of Chroma < 1.0), queue (metadata that is\n"
    "                    no JSON, as NaN: null; ids that are no text; rows that lack their\n"
    "                    vector),\n"
    "                    parameters (hnsw:* settings that Chroma 0.5.4 to 0.6.3 refuses),\n"
    "                    segments (collections without their rows or directory, ids and\n"
    "                    names that Chroma cannot read), marks\n"
    "                    (max_seq_id), records (whose rows are lost: from the index, and from\n"
    "                    snapshots of the store), hnsw (a vector index: its vectors go back to\n"
    "                    Chroma's queue), bare (records without a vector: from snapshots)\n"
    "      --set-aside   records that still have no vector go to lost.sqlite3 in quarantine/, "
    "with\n"
    "                    documents and metadata: Chroma cannot read a collection's vectors while\n"
    "                    it holds one\n"
    "      --rebuild COLLECTION\n"
    "                    make its vector index again though it is whole: its vectors go back to\n"
    "                    Chroma's queue (elements that searches never find, many deleted ones)\n"
    "      --undelete    list deleted collections whose directory is left, and what is in it\n"
    "      --undelete=SEGMENT\n"
    "                    bring one of them back, or \"all\": as a snapshot still has it, else ids\n"
    "                    and vectors as of its last persist. The vectors go to Chroma's queue\n"
    "      --name NAME   of that collection; else its own, or recovered-SEGMENT\n"
    "      --space SPACE its distance function (l2, ip, cosine), where that cannot be told; else\n"
    "                    l2, Chroma's default\n"
    "  -o, --output OUT  leave DIR as it is and put the healed directory at OUT\n"
    "      --json        the account as one JSON object, with every lost id, or with \"error\"\n"
    "  -q, --quiet       only what went wrong\n"
    "\n"
    "It ends with an account of the records before and after, each of them compared. What had no\n"
    "vector before this damage either is told by itself, and is no loss of it. Where it cannot be\n"
    "told whether more was there, it says so, and that counts as a loss. Killed at any\n"
    "moment, it leaves what was there or what is healed; the next chromashim command ends it.\n"
    "\n"
    "Exit status: 0 healed (or nothing to heal) and nothing lost, 3 healed, but with losses, or\n"
    "damage is left that check names; else all is as it was: 1 it could not be healed, 11 another\n"
    "chromashim is at work or somebody has changed it meanwhile, 13 no room, 14 a process has it\n"
    "open.\n";

#define WAIT_MS 2000 /* for who changes the snapshots just now */

static const char stop_it[] = "Stop Chroma first.";

static void set_error(struct recovering *x, const char *what, int error)
{
	snprintf(x->telling.error, sizeof(x->telling.error), "%s%s%s", what, error ? ": " : "",
		 error ? strerror(-error) : "");
}

static int fail_recover(struct recovering *x, int r, const char *what)
{
	enum exit_code code = exit_code_of(r);

	set_error(x, what, r);
	return fail(code == EXIT_NOT_FOUND ? EXIT_FAILED : code, r,
		    code == EXIT_NO_SPACE
			? "It is as it was. Make room, also for temporary files (TMPDIR), "
			  "or give a directory elsewhere with -o."
		    : r == -EXDEV  ? "The store is on another file system: use -o."
		    : r == -EEXIST ? "A collection has that name: give another with --name."
				   : "It is as it was. `chromashim check` tells what is wrong; "
				     "`chromashim export` gets out what can be read.",
		    "cannot recover '%s': %s", x->s.data.dir, what);
}

/* ---- what is told ---- */

static void say_step(void *context, enum recover_step step, const char *collection,
		     const char *sentence)
{
	struct recovering *x = context;

	recover_tell_step(&x->telling, recover_step_names[step], collection, sentence);
}

static void say_persist(void *context, const char *line)
{
	struct recovering *x = context;

	recover_tell_step(&x->telling, "persists", NULL, line);
}

static void say_finding(void *context, const struct diagnose_finding *f)
{
	int step = recover_step_of(f->code);
	struct recovering *x = context;

	if (step >= 0 && x->steps & 1u << step)
		say_step(x, (enum recover_step)step, f->collection, diagnose_kinds[f->code].code);
	else if (diagnose_kinds[f->code].severity == DIAGNOSE_DAMAGE)
		recover_tell_step(&x->telling, "none", f->collection, diagnose_kinds[f->code].code);
}

/* ---- the work ---- */

static void use_store(struct recovering *x)
{
	x->job->storefd = x->job->options.storefd = x->s.data.storefd;
	x->job->options.snapshots = x->s.store.lockfd >= 0 ? &x->s.store : NULL;
}

/* The copy does not fit; nothing was begun. */
static int fail_room(struct recovering *x, const struct recover_room *room)
{
	char needed[24], free[24];

	set_error(x, "no room for the copy", 0);
	return fail(EXIT_NO_SPACE, 0,
		    "It is as it was. Make room (`chromashim snapshot prune`), or give a directory "
		    "on another file system with -o.",
		    "cannot recover '%s': the copy needs %s, and %s are free", x->s.data.dir,
		    format_bytes(needed, sizeof(needed), room->needed),
		    format_bytes(free, sizeof(free), room->free));
}

static int fail_stage(struct recovering *x, const struct recover_result *result, int r)
{
	enum recover_stage stage = result->stage;
	char file[RECOVER_NAME + 32];
	static const char *const what[] = {
	    [RECOVER_JUDGING] = "it cannot be checked",
	    [RECOVER_COPYING] = "it cannot be copied",
	    [RECOVER_READING] = "its records cannot be read",
	    [RECOVER_HEALING] = "healing the copy failed",
	    [RECOVER_CHECKING] = "the healed copy cannot be checked",
	    [RECOVER_EXCHANGING] = "the copy cannot be exchanged for what is there",
	};

	if (r == -ECANCELED) {
		set_error(x, "not exchanged", 0);
		return x->refused;
	}
	if (r == -EMEDIUMTYPE) {
		set_error(x, "a copy that went wrong", 0);
		return fail(EXIT_FAILED, 0,
			    "It is as it was. `chromashim check` tells what happened to "
			    "it; copy it again. --only STEP heals all the same.",
			    "cannot recover '%s': it is no damaged directory, but a copy that went "
			    "wrong; the whole thing is where it came from",
			    x->s.data.dir);
	}
	if (r == -ELOOP && stage == RECOVER_COPYING) {
		set_error(x, "a segment is a symbolic link", 0);
		return fail(EXIT_FAILED, 0,
			    "It is as it was. Put the directory that the link leads to in its "
			    "place, and run this again.",
			    "cannot recover '%s': a segment's directory in it is a symbolic link, "
			    "which is not replaced",
			    x->s.data.dir);
	}
	if (r == -EUCLEAN)
		return fail_recover(x, 0, "the copy is not better than what is there");
	if (stage == RECOVER_EXCHANGING && restore_is_pending(x->s.data.storefd)) {
		set_error(x, what[stage], r);
		return fail(exit_code_of(r), r, "`chromashim status` ends it, once that is mended.",
			    "the exchange of '%s' for the healed copy was cut off", x->s.data.dir);
	}
	if (r == -ESTALE) {
		set_error(x, "changed meanwhile", 0);
		return fail(EXIT_BUSY, 0,
			    "It is as that left it. Stop what writes there, and run "
			    "this again.",
			    "'%s' was changed while it was being recovered", x->s.data.dir);
	}
	if (r == -ENOSPC && stage == RECOVER_COPYING && result->room.free < result->room.needed)
		return fail_room(x, &result->room);
	if (stage == RECOVER_COPYING && result->failed[0]) {
		snprintf(file, sizeof(file), "'%s' in it cannot be copied", result->failed);
		return fail_recover(x, r, file);
	}
	return fail_recover(x, r, what[stage]);
}

/* Before the work that the question is about. Where nothing is to be done, nothing was made. */
static int begin(void *context)
{
	struct recovering *x = context;

	x->refused = snapshots_confirm(
	    &x->flags, "Heal '%s' on a copy, and exchange them when that is done?", x->s.data.dir);
	if (x->refused == 0 && x->s.store.lockfd < 0)
		x->refused = snapshots_load_opened(&x->s, SNAPSHOT_CHANGE, true);
	use_store(x);
	return x->refused;
}

static int add_loss(void *context, const struct recover_collection *c)
{
	uint64_t *loss = context;

	*loss += c->lost + c->bare + c->changed;
	return 0;
}

static int agree(void *context)
{
	struct recovering *x = context;

	if (x->without_loss && (recover_account_each(&x->result->account, add_loss, &x->loss) < 0 ||
				x->loss || recover_may_have_lost(&x->result->account))) {
		x->is_loss = true;
		x->refused = EXIT_FAILED;
		return x->refused;
	}
	/* Healing takes its time. */
	x->refused = in_use_refuse(&x->s.data, stop_it);
	/* Pinned snapshots rest on the files that are exchanged. */
	if (x->refused == 0)
		x->refused = snapshots_settle_all(&x->s, &x->flags);
	if (x->refused == 0 && x->may_exchange && x->may_exchange(x->exchange_context) < 0)
		x->refused = EXIT_BUSY;
	return x->refused;
}

static int heal(struct recovering *x, int outfd, struct recover_result *result)
{
	struct recover_job job = {
	    .datafd = x->s.data.dirfd,
	    .outfd = outfd,
	    .quarantine = x->quarantine,
	    .options = {.steps = x->steps,
			.set_aside = x->set_aside,
			.rebuild = x->rebuild,
			.undelete = x->undelete.which ? &x->undelete.options : NULL,
			.said = say_step,
			.context = x},
	    .begin = begin,
	    .agree = agree,
	    .context = x,
	};
	int r;

	x->result = result;
	x->job = &job;
	use_store(x);
	format_time_utc(x->quarantine, sizeof(x->quarantine), clock_read(CLOCK_REALTIME));
	r = recover_directory(&job, result);
	return r < 0 ? fail_stage(x, result, r) : 0;
}

static int heal_elsewhere(struct recovering *x, struct recover_result *result)
{
	struct out_directory out;
	int status = out_directory_open(&out, x->out, x->s.data.dirfd), closed;

	if (status) {
		set_error(x, "it cannot be made", 0);
		return status;
	}
	status = heal(x, out.fd, result);
	closed = out_directory_close(&out, status == 0);
	if (closed)
		set_error(x, "it cannot be made", 0);
	return closed ? closed : status;
}

static const struct manifest *find_newest(const struct recovering *x)
{
	const struct manifest *newest = NULL;
	size_t i;

	for (i = 0; i < x->s.count; i++) {
		uint32_t state = x->s.list[i].header.state;

		if (state == SNAPSHOT_VERIFIED || state == SNAPSHOT_COMPLETE)
			newest = &x->s.list[i];
	}
	return newest;
}

/* Where something is gone for good, there may be a state that has it. */
static void name_snapshot(const struct recovering *x)
{
	const struct manifest *newest = find_newest(x);
	char time[32], dir[PATH_MAX];

	if (!newest)
		return;
	format_quoted(dir, sizeof(dir), x->s.data.dir);
	warn("snapshot %" PRIu64 " (%s, %" PRIu64
	     " records) may have it: `chromashim restore %s --to "
	     "%" PRIu64 "` goes back to it, `chromashim export --snapshot %" PRIu64 " %s` reads it",
	     newest->header.id, format_time(time, sizeof(time), newest->header.time, false),
	     manifest_records(newest), dir, newest->header.id, newest->header.id, dir);
}

/* The exit status. */
static int tell(struct recovering *x, struct recover_result *result)
{
	bool talks = !x->flags.quiet && !x->flags.json;
	uint64_t lost;
	int r;

	if (result->exchanged && talks)
		fprintf(x->telling.out, "what was there is in %s/" QUARANTINE_DIR "/%s\n",
			x->s.data.store, x->quarantine);
	r = recover_tell_end(&x->telling, result, result->exchanged ? x->quarantine : NULL, &lost);
	if (r < 0)
		return fail(exit_code_of(r), r, "What was done stands.",
			    "the account of '%s' cannot be read to its end", x->s.data.dir);
	if (!result->healed && x->rebuild)
		return fail(EXIT_NOT_FOUND, 0, "`chromashim export` tells the names of all.",
			    "there is no collection '%s' in '%s', or it has no index", x->rebuild,
			    x->s.data.dir);
	if (!result->healed && !result->damage[0]) {
		if (talks)
			fprintf(x->telling.out, "nothing to heal in '%s'\n", x->s.data.dir);
		return EXIT_DONE;
	}
	if (result->exchanged && x->s.data.storefd >= 0)
		events_note(
		    x->s.data.storefd, "recover.healed",
		    "the directory was damaged and healed%s; what was there is in " QUARANTINE_DIR
		    "/%s in the store",
		    lost ? ", with losses" : "", x->quarantine);
	if (result->damage[1])
		warn("'%s' still has damage; `chromashim check` tells which",
		     x->out ? x->out : x->s.data.dir);
	if (lost || result->damage[1])
		name_snapshot(x);
	return !result->healed		   ? EXIT_FAILED
	       : lost || result->damage[1] ? EXIT_WARNINGS
					   : EXIT_DONE;
}

/* Nothing is left to be healed: the whole state is elsewhere. */
static int refuse_emptied(struct recovering *x)
{
	char todo[PATH_MAX + 64], dir[PATH_MAX];

	snprintf(todo, sizeof(todo),
		 "chromashim restore %s --to latest brings back the newest snapshot.",
		 format_quoted(dir, sizeof(dir), x->s.data.dir));
	return fail(EXIT_FAILED, 0, todo, "there is no chroma.sqlite3 in '%s'", x->s.data.dir);
}

int recovering_run(struct recovering *x)
{
	struct recover_result result = {.healed = 0};
	struct rollbacks persists;
	uint64_t none;
	int status = in_use_refuse(&x->s.data, stop_it);

	if (status)
		return status;
	if (faccessat(x->s.data.dirfd, CHROMA_DATABASE, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
	    find_newest(x))
		return refuse_emptied(x);
	x->telling.dir = x->s.data.dir;
	if (recover_telling_begin(&x->telling) < 0)
		return fail_recover(x, -ENOMEM, "nothing can be told");
	if (!x->out)
		rollbacks_run(&x->s.data, false, say_persist, x, &persists);
	status = x->out ? heal_elsewhere(x, &result) : heal(x, -1, &result);
	if (status)
		recover_tell_end(&x->telling, NULL, NULL, &none);
	else
		status = tell(x, &result);
	recover_result_free(&result);
	return status;
}

static int plan(struct recovering *x)
{
	struct diagnose_options options = {.full = true, .report = say_finding, .context = x};
	struct diagnose_summary summary;
	struct rollbacks persists;
	uint64_t none;
	int r, status;

	x->telling.dir = x->s.data.dir;
	if (recover_telling_begin(&x->telling) < 0)
		return fail_recover(x, -ENOMEM, "nothing can be told");
	rollbacks_run(&x->s.data, true, say_persist, x, &persists);
	r = diagnose_directory(x->s.data.dir, x->s.data.dirfd, &options, &summary);
	status = r < 0 ? fail_recover(x, r, "it cannot be checked") : EXIT_DONE;
	if (r == 0 && !x->telling.any && !x->flags.quiet && !x->flags.json)
		fprintf(x->telling.out, "nothing to heal in '%s'\n", x->s.data.dir);
	recover_tell_end(&x->telling, NULL, NULL, &none);
	return status;
}

/* ---- the verb ---- */

static unsigned step_of(const char *name)
{
	unsigned i;

	for (i = 0; i < RECOVER_UNDELETE; i++) /* which has an option of its own */
		if (strcmp(name, recover_step_names[i]) == 0)
			return 1u << i;
	return 0;
}

static int open_all(struct recovering *x, const char *dir, bool in_place)
{
	int status;

	if (in_place)
		return snapshots_open_what_is_there(&x->s, dir, SNAPSHOT_CHANGE);
	x->s.store.lockfd = x->s.pins.dirfd = -1;
	status = data_directory_open(&x->s.data, dir, false);
	/* Where to does not change what comes from where; it goes without as well. */
	if (status == 0 && x->out)
		snapshots_load(&x->s, SNAPSHOT_KEEP, false, WAIT_MS);
	return status;
}

int command_recover(int argc, char **argv)
{
	enum { ONLY = 256, ASIDE, JSON, UNDELETE, NAME, SPACE, REBUILD }; /* undelete_take() */
	static const struct option options[] = {{"dry-run", no_argument, NULL, 'n'},
						{"set-aside", no_argument, NULL, ASIDE},
						{"yes", no_argument, NULL, 'y'},
						{"only", required_argument, NULL, ONLY},
						{"output", required_argument, NULL, 'o'},
						{"json", no_argument, NULL, JSON},
						{"quiet", no_argument, NULL, 'q'},
						{"undelete", optional_argument, NULL, UNDELETE},
						{"name", required_argument, NULL, NAME},
						{"space", required_argument, NULL, SPACE},
						{"rebuild", required_argument, NULL, REBUILD},
						{NULL, 0, NULL, 0}};
	struct recovering x = {.undelete.options.space = -1};
	int option, status;
	bool in_place;

	while ((option = getopt_long(argc, argv, "nyo:q", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("recover");
		if (option == ONLY && !step_of(optarg)) {
			warn("there is no step '%s'", optarg);
			return fail_usage("recover");
		}
		if (!undelete_take(&x.undelete, option - UNDELETE, optarg))
			return fail_usage("recover");
		x.steps |= option == ONLY ? step_of(optarg) : 0;
		x.out = option == 'o' ? optarg : x.out;
		x.rebuild = option == REBUILD ? optarg : x.rebuild;
		x.set_aside = x.set_aside || option == ASIDE;
		x.flags.dry = x.flags.dry || option == 'n';
		x.flags.yes = x.flags.yes || option == 'y';
		x.flags.json = x.flags.json || option == JSON;
		x.flags.quiet = x.flags.quiet || option == 'q';
	}
	if (argc - optind > 1) {
		warn("recover takes one directory");
		return fail_usage("recover");
	}
	if (!undelete_is_sound(&x.undelete))
		return fail_usage("recover");
	x.steps |= x.undelete.which ? 1u << RECOVER_UNDELETE : 0;
	x.steps |= x.rebuild ? 1u << RECOVER_HNSW : 0;
	x.steps = x.steps ? x.steps : RECOVER_ALL;
	x.telling = (struct recover_telling){
	    .out = stdout, .is_json = x.flags.json, .quiet = x.flags.quiet};
	in_place = !x.flags.dry && !x.out && !undelete_only_lists(&x.undelete, &x.flags);
	status = open_all(&x, argv[optind], in_place);
	if (status)
		return status;
	if (x.undelete.is_wanted)
		status = undelete_find(&x.undelete, &x.s, &x.flags);
	if (status == 0 && !undelete_only_lists(&x.undelete, &x.flags))
		status = x.flags.dry ? plan(&x) : recovering_run(&x);
	undelete_free(&x.undelete);
	if (!in_place && x.s.store.lockfd >= 0)
		snapshots_unload(&x.s);
	if (!in_place)
		data_directory_close(&x.s.data);
	else
		snapshots_close(&x.s);
	return status;
}
