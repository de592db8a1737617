/* SPDX-License-Identifier: MIT
 *
 * `chromashim restore`: a snapshot back into a directory of its own, or in place.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "command/base/in_use.h"
#include "command/base/progress.h"
#include "command/base/out_directory.h"
#include "command/base/terminal.h"
#include "command/verbs/restore.h"
#include "core/base/clock.h"
#include "core/base/openers.h"
#include "core/recover/internal.h"

const char restore_usage[] =
    "Usage: chromashim restore --to=ID [-o OUT] [OPTION]... [DIR]\n"
    "  or:  chromashim restore --to=ID --collection=NAME [--where-deleted] [--where-changed]\n"
    "                          [--ids=FILE] [--as=NEW] [OPTION]... [DIR]\n"
    "  or:  chromashim restore --from=COPY [OPTION]... [DIR]\n"
    "  or:  chromashim restore --from=REPLICA --to=ID -o OUT [OPTION]...\n"
    "\n"
    "Brings a snapshot of DIR back (CHROMASHIM_DIR or ./chroma_data if not given). ID is a\n"
    "number, latest, before-schema (the newest one taken before a schema change), an age as @10m,\n"
    "or a time: then it is the newest not after it. What a restore kept goes by its number only.\n"
    "For latest, the snapshot of a stop that is being taken is waited for.\n"
    "\n"
    "  -o, --output=OUT  into the directory OUT, which must not exist or be empty; DIR is left as\n"
    "                    it is, and a backend may go on using it\n"
    "      --from=COPY   a copy of DIR made by other means, in place of what is in DIR, or where\n"
    "                    there is nothing yet; it belongs to DIR's owner then. With --to\n"
    "                    a replica (a directory, sftp://… or rclone:…), into a new directory:\n"
    "                    nothing else of DIR has to be there\n"
    "      --key=FILE    the secret key that opens the replica (`chromashim replica keygen`)\n"
    "      --collection=NAME  only records of this collection (name or id), through Chroma's own\n"
    "                    queue; everything newer stays. Which of them:\n"
    "      --where-deleted    those that were deleted since (if nothing else is said)\n"
    "      --where-changed    those that are there, and were changed since\n"
    "      --ids=FILE    of both kinds, those whose ids are in FILE, one a line; -: standard "
    "input\n"
    "      --as=NEW      into a new collection of that name, all of them; the old one stays\n"
    "  -n, --dry-run     only say what would change\n"
    "  -y, --yes         do not ask\n"
    "  -f, --force       also if a check finds damage in the result\n"
    "      --utc         times in UTC\n"
    "  -q, --quiet       no progress, no summary\n"
    "\n"
    "Without -o it is done in place, when no process has the directory open. What is there now is\n"
    "snapshotted first, so this can be undone with `restore --to` that number. The result is "
    "built\n"
    "beside, opened and checked before it replaces anything. What was there is moved to "
    "quarantine/\n"
    "in the store. If this is killed on the way, the next chromashim command ends it; until then\n"
    "Chroma does not start on the directory. With --collection nothing is exchanged: the records\n"
    "are rows of the queue, all or none, and Chroma applies them when it starts.\n"
    "\n"
    "Exit status: 0 done, 1 failed (nothing was changed), 2 usage, 3 done with --force although\n"
    "damage was found, 11 busy, 12 no such snapshot, 13 no space, 14 a process is in the way.\n";

/* ---- building and checking ---- */

static int build_from_copy(const struct restoring *x, int dirfd, const struct stat *owner)
{
	int from = open(x->from, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (from < 0)
		return fail(EXIT_NOT_FOUND, -errno, "Name a copy of a Chroma directory.",
			    "cannot open '%s'", x->from);
	r = recover_copy(from, dirfd, owner, NULL, NULL, NULL);
	if (r == 0)
		r = recover_sync(dirfd);
	close(from);
	if (r == 0)
		return 0;
	return fail(exit_code_of(r), r, "Nothing was changed.", "cannot copy '%s'", x->from);
}

static int build(struct restoring *x, int dirfd, const struct stat *owner)
{
	struct snapshot_trouble t;
	struct progress p;
	struct restore_options options = {.owner = owner, .progress = progress_step, .context = &p};
	int r;

	if (x->from)
		return build_from_copy(x, dirfd, owner);
	progress_start(&p, "restoring", x->flags.quiet);
	r = restore_build(&x->s.store, x->m, dirfd, &options, &t, NULL);
	progress_end(&p);
	if (r == -ENOENT || r == -ENODATA || r == -EBADMSG)
		return fail(EXIT_FAILED, 0, "Choose another snapshot: `chromashim snapshot list`.",
			    "snapshot %" PRIu64 " cannot be restored: %s: %s", x->m->header.id,
			    t.file[0] ? t.file : "its manifest", t.detail);
	return r < 0 ? snapshots_fail(&x->s, r, &t, "cannot restore a snapshot of") : 0;
}

/* ---- elsewhere ---- */

static int restore_elsewhere(struct restoring *x)
{
	struct out_directory out;
	int status = out_directory_open(&out, x->out, x->s.data.dirfd), found, closed;

	if (status)
		return status;
	status = build(x, out.fd, &out.like);
	found = status == 0 ? restore_look_at(x, out.fd) : status;
	closed = out_directory_close(&out, found == 0 || found == EXIT_WARNINGS);
	return closed ? closed : found;
}

/* ---- in place ---- */

/* What cannot be exchanged by renaming is not begun. */
static int refuse_other_device(const struct restoring *x)
{
	struct snapshot_trouble none = {{0}, {0}};
	struct stat data, store;

	if (fstat(x->s.data.dirfd, &data) == 0 && fstat(x->s.data.storefd, &store) == 0 &&
	    data.st_dev == store.st_dev)
		return 0;
	return snapshots_fail(&x->s, -EXDEV, &none, "cannot restore in place in");
}

/* There is nothing of Chroma's to be kept. */
static bool is_bare(const struct restoring *x)
{
	return x->state == 0;
}

static int swap(struct restoring *x)
{
	struct snapshot_trouble none = {{0}, {0}};
	char name[48], text[40], what[PATH_MAX];
	struct restore_swap how = {.datafd = x->s.data.dirfd,
				   .storefd = x->s.data.storefd,
				   .quarantine = name,
				   .check = restore_is_as_it_was,
				   .check_context = x};
	int r;

	format_time_utc(text, sizeof(text), clock_read(CLOCK_REALTIME));
	snprintf(name, sizeof(name), "%s", text);
	r = restore_swap(&how);
	if (r == 0 && !x->flags.quiet && !is_bare(x))
		printf("what was there is in %s/" QUARANTINE_DIR "/%s\n", x->s.data.store, name);
	if (r == -ENOENT)
		return fail(EXIT_FAILED, 0, "Restore it with -o.", "%s has no database",
			    restore_subject(x, what));
	if (r == -ESTALE)
		return fail(EXIT_BUSY, 0, "Nothing was changed. Keep it stopped, and try again.",
			    "'%s' was changed while it was being restored", x->s.data.dir);
	if (r == -EBUSY)
		return fail(EXIT_IN_THE_WAY, 0, restore_stop_it, "a process has '%s' open",
			    x->s.data.dir);
	return r < 0 ? snapshots_fail(&x->s, r, &none, "cannot exchange what is in") : 0;
}

static int agree(const struct restoring *x, const char *dir)
{
	char what[PATH_MAX];

	return snapshots_confirm(&x->flags, "Replace what is in '%s' by %s?", dir,
				 restore_subject(x, what));
}

static int may_begin(const struct restoring *x)
{
	int status = in_use_refuse(&x->s.data, restore_stop_it);

	return status ? status : refuse_other_device(x);
}

/* What comes is beside, and sound. */
static int exchange(struct restoring *x)
{
	uint64_t kept = 0;
	int status = is_bare(x) ? 0 : restore_keep(x, &kept);

	/* All of that took its time. */
	if (status == 0)
		status = in_use_refuse(&x->s.data, restore_stop_it);
	if (status)
		restore_abandon(x->s.data.storefd);
	else
		status = swap(x);
	if (status)
		restore_forget(x, kept);
	else if (kept && !x->flags.quiet)
		printf("`chromashim restore --to %" PRIu64 "` undoes this\n", kept);
	return status;
}

static int restore_in_place(struct restoring *x)
{
	int storefd = x->s.data.storefd, fd, found, status = may_begin(x);
	struct stat owner;

	if (status)
		return status;
	snapshots_roll_back(&x->s.data);
	x->state = recover_state(x->s.data.dirfd);
	fd = restore_prepare(storefd);
	if (fd < 0)
		return snapshots_fail(&x->s, fd, &(struct snapshot_trouble){{0}, {0}},
				      "cannot restore a snapshot of");
	status = build(x, fd, fstat(x->s.data.dirfd, &owner) == 0 ? &owner : NULL);
	found = status == 0 ? restore_look_at(x, fd) : status;
	close(fd);
	if (found != 0 && found != EXIT_WARNINGS) {
		restore_abandon(storefd);
		return found;
	}
	status = exchange(x);
	return status ? status : found;
}

/* ---- the verb ---- */

static void print_plan(const struct restoring *x)
{
	char size[24], time[40];
	uint32_t i;

	format_time(time, sizeof(time), x->m->header.time, x->flags.utc);
	printf("%s: snapshot %" PRIu64 " of %s (%s), %" PRIu64 " records, %s, to %s\n",
	       x->flags.dry ? "would restore" : "restored", x->m->header.id, time,
	       snapshot_state_name(x->m->header.state), manifest_records(x->m),
	       format_bytes(size, sizeof(size), manifest_total_size(x->m)),
	       x->out ? x->out : x->s.data.dir);
	for (i = 0; x->flags.dry && i < x->m->collection_count; i++) {
		printf("  collection ");
		terminal_put_text(stdout, x->m->collections[i].name,
				  strlen(x->m->collections[i].name));
		printf(": %" PRIu64 " records\n", x->m->collections[i].records);
	}
}

static int refuse_itself(const struct restoring *x, const struct data_directory *t,
			 const struct stat *copy)
{
	struct stat data;

	if (t->dirfd < 0 || fstat(t->dirfd, &data) < 0 || data.st_ino != copy->st_ino ||
	    data.st_dev != copy->st_dev)
		return 0;
	return fail(EXIT_FAILED, 0, "Nothing was changed.", "'%s' is the directory itself",
		    x->from);
}

/* Without a store, and without a directory: nothing is made before it is wanted. */
static int plan_copy(const struct restoring *x, const char *dir, const struct stat *copy,
		     char dir_out[PATH_MAX])
{
	struct data_directory t;
	int status = data_directory_open_new(&t, dir, NULL);

	if (status)
		return status;
	status = refuse_itself(x, &t, copy);
	if (status == 0 && t.dirfd >= 0)
		status = in_use_refuse(&t, restore_stop_it);
	if (status == 0 && !x->flags.dry)
		status = agree(x, t.dir);
	else if (status == 0 && !x->flags.quiet)
		printf("would restore: '%s', to %s\n", x->from, t.dir);
	snprintf(dir_out, PATH_MAX, "%s", t.dir);
	data_directory_close(&t);
	return status;
}

/* A copy of the directory, made by other means, in place of it; or where there is none yet. */
static int restore_copy(struct restoring *x, const char *dir)
{
	char planned[PATH_MAX];
	struct stat copy;
	int status;

	if (stat(x->from, &copy) < 0 || !S_ISDIR(copy.st_mode))
		return fail(EXIT_NOT_FOUND, 0, "Name a copy of a Chroma directory.",
			    "'%s' is no directory", x->from);
	status = plan_copy(x, dir, &copy, planned);
	if (status || x->flags.dry)
		return status;
	status = snapshots_open_new(&x->s, planned, &copy);
	if (status)
		return status;
	status = snapshots_settle_all(&x->s, &x->flags);
	if (status == 0)
		status = restore_in_place(x);
	if (status == 0 && !x->flags.quiet)
		printf("restored: '%s', to %s\n", x->from, x->s.data.dir);
	snapshots_close(&x->s);
	return status;
}

static int restore(struct restoring *x, const char *to)
{
	long at = snapshots_find(&x->s, to);
	int status;

	if (at < 0)
		return EXIT_NOT_FOUND;
	x->m = &x->s.list[at];
	if (x->flags.dry && !x->records.collection) {
		print_plan(x);
		return x->out ? EXIT_DONE : in_use_refuse(&x->s.data, restore_stop_it);
	}
	if (x->records.collection) {
		status = snapshots_settle(&x->s, at, &x->flags);
		x->m = &x->s.list[at];
		return status ? status : restore_records(x);
	}
	status = x->out ? 0 : may_begin(x);
	if (status == 0 && !x->out)
		status = agree(x, x->s.data.dir);
	if (status == 0)
		status = snapshots_settle(&x->s, at, &x->flags);
	/* In place, the files are exchanged that all pins rest on. */
	if (status == 0 && !x->out)
		status = snapshots_settle_all(&x->s, &x->flags);
	if (status)
		return status;
	if (x->m->header.state == SNAPSHOT_COMPLETE && !x->flags.quiet)
		warn("snapshot %" PRIu64 " was not verified yet; it is checked now",
		     x->m->header.id);
	status = x->out ? restore_elsewhere(x) : restore_in_place(x);
	if ((status == 0 || status == EXIT_WARNINGS) && !x->flags.quiet)
		print_plan(x);
	return status;
}

/* Else why not. */
static const char *what_is_wrong(const struct restoring *x, const char *to, int count)
{
	const struct restore_selection *r = &x->records;

	if (!to && !x->from)
		return "restore needs --to or --from";
	if (x->key && (!x->from || !to))
		return "--key goes with --from and --to, for a replica";
	if (to && x->from)
		return !x->out || count
			   ? "from a replica a new directory is made: give -o, and no DIR"
		       : r->collection || x->flags.dry
			   ? "a replica is restored as a whole: without --collection and -n"
			   : NULL;
	if (count > 1)
		return "restore takes one directory";
	if (x->out && x->from)
		return "--from is for in place; a copy is elsewhere already";
	if (r->collection && (x->out || x->from))
		return "--collection is for a snapshot, and for in place";
	if (!r->collection && (r->as || r->ids || r->deleted || r->changed))
		return "--as, --ids, --where-deleted and --where-changed go with --collection";
	if (r->as && (r->deleted || r->changed))
		return "--as takes all of the collection, or the --ids; not --where-deleted or "
		       "--where-changed";
	if (r->as && !chroma_is_collection_name(r->as))
		return "--as takes a name that Chroma would take: " CHROMA_NAME_RULE;
	return NULL;
}

int command_restore(int argc, char **argv)
{
	enum { TO = 256, UTC, FROM, COLLECTION, AS, IDS, DELETED, CHANGED, KEY };
	static const struct option options[] = {{"to", required_argument, NULL, TO},
						{"output", required_argument, NULL, 'o'},
						{"dry-run", no_argument, NULL, 'n'},
						{"yes", no_argument, NULL, 'y'},
						{"force", no_argument, NULL, 'f'},
						{"quiet", no_argument, NULL, 'q'},
						{"utc", no_argument, NULL, UTC},
						{"from", required_argument, NULL, FROM},
						{"collection", required_argument, NULL, COLLECTION},
						{"as", required_argument, NULL, AS},
						{"ids", required_argument, NULL, IDS},
						{"where-deleted", no_argument, NULL, DELETED},
						{"where-changed", no_argument, NULL, CHANGED},
						{"key", required_argument, NULL, KEY},
						{NULL, 0, NULL, 0}};
	struct restoring x = {.out = NULL};
	const char *to = NULL, *wrong;
	enum snapshot_access access;
	int option, status;

	while ((option = getopt_long(argc, argv, "o:nyfq", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("restore");
		to = option == TO ? optarg : to;
		x.from = option == FROM ? optarg : x.from;
		x.key = option == KEY ? optarg : x.key;
		x.out = option == 'o' ? optarg : x.out;
		x.flags.dry = x.flags.dry || option == 'n';
		x.flags.yes = x.flags.yes || option == 'y';
		x.flags.force = x.flags.force || option == 'f';
		x.flags.quiet = x.flags.quiet || option == 'q';
		x.flags.utc = x.flags.utc || option == UTC;
		x.records.collection = option == COLLECTION ? optarg : x.records.collection;
		x.records.as = option == AS ? optarg : x.records.as;
		x.records.ids = option == IDS ? optarg : x.records.ids;
		x.records.deleted = x.records.deleted || option == DELETED;
		x.records.changed = x.records.changed || option == CHANGED;
	}
	wrong = what_is_wrong(&x, to, argc - optind);
	if (wrong) {
		warn("%s", wrong);
		return fail_usage("restore");
	}
	if (x.from && to)
		return restore_replica(&x, to);
	if (x.from)
		return restore_copy(&x, argv[optind]);
	access = !x.out && !x.flags.dry			? SNAPSHOT_CHANGE
		 : x.flags.dry && !x.records.collection ? SNAPSHOT_LOOK
							: SNAPSHOT_KEEP;
	status = strcmp(to, "latest") == 0 ? snapshots_open_at_rest(&x.s, argv[optind], access)
					   : snapshots_open(&x.s, argv[optind], access, false);
	if (status)
		return status;
	status = restore(&x, to);
	snapshots_close(&x.s);
	return status;
}
