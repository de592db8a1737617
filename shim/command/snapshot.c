/* SPDX-License-Identifier: MIT
 *
 * `chromashim snapshot`: which of its verbs is meant; and taking one.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command/json.h"
#include "command/snapshots.h"
#include "command/terminal.h"

const char snapshot_usage[] =
    "Usage: chromashim snapshot VERB [OPTION]... [DIR]\n"
    "\n"
    "Snapshots of a Chroma directory, kept in its store; `chromashim restore` brings one back.\n"
    "DIR is CHROMASHIM_DIR or ./chroma_data if not given. Works while a backend runs; when none\n"
    "does, `create` first undoes what a persist that died half-way has left, as a start would.\n"
    "\n"
    "  create [DIR]          take one and verify it\n"
    "      -d, --description=TEXT   say what for\n"
    "          --no-verify          only take it; its state is then `complete`\n"
    "  list [DIR]            all, with the bytes that only they use\n"
    "  show ID [DIR]         its collections, records and files\n"
    "  diff A..B [DIR]       what changed from A to B\n"
    "  verify [ID] [DIR]     restore it to a scratch place and check that; --all: each\n"
    "  hold ID [TAG] [DIR]   keep it whatever the rules of prune say; release ID [TAG] undoes "
    "that\n"
    "  delete ID... [DIR]    remove snapshots; a held one, or the last verified one, needs "
    "--force\n"
    "  prune [DIR]           remove those that no rule keeps:\n"
    "          --keep-last=N, --keep-hourly=N, --keep-daily=N, --keep-weekly=N,\n"
    "          --keep-monthly=N, --keep-yearly=N   the newest of each of the last N periods\n"
    "          --keep-within=AGE    all that are not older than AGE before the newest\n"
    "          --max-space=SIZE     at most so many bytes of chunks (10G, 512M)\n"
    "          --min-free=SIZE      so many bytes left free on the file system\n"
    "\n"
    "ID is a number, latest, before-schema, an age as @10m, or a time. Where DIR could be taken\n"
    "for a TAG or an ID, it is a DIR if it contains a slash.\n"
    "\n"
    "      --json     one JSON value instead of text\n"
    "      --utc      times in UTC\n"
    "  -n, --dry-run  only say what would be done\n"
    "  -y, --yes      do not ask\n"
    "  -q, --quiet    no progress, no summary\n"
    "  -v, --verbose  also why each one is kept\n"
    "\n"
    "States: complete (all there), verified (restored for a try, opened, and checked), broken\n"
    "(with the reason). Exit status: 0 done, 1 failed, 2 usage, 3 taken but not verified, 10 no\n"
    "snapshots, 11 busy, 12 no such snapshot, 13 no space.\n";

static void print_taken(const struct manifest *m, const struct snapshots *s,
			const struct snapshot_flags *flags)
{
	char size[24], added[24];
	struct json j = {.out = stdout};

	if (flags->json) {
		json_begin(&j, '{');
		json_key(&j, "schema_version");
		json_uint(&j, SCHEMA_VERSION);
		json_key(&j, "id");
		json_uint(&j, m->header.id);
		json_key(&j, "time");
		json_string(&j, format_time_utc((char[32]){0}, 32, m->header.time));
		json_key(&j, "state");
		json_string(&j, snapshot_state_name(m->header.state));
		json_key(&j, "trouble");
		json_string(&j, m->trouble[0] ? m->trouble : NULL);
		json_key(&j, "size");
		json_uint(&j, manifest_total_size(m));
		json_key(&j, "added");
		json_uint(&j, s->store.chunks.added_bytes);
		json_key(&j, "records");
		json_uint(&j, manifest_records(m));
		json_end(&j, '}');
		json_newline(&j);
	} else if (!flags->quiet) {
		printf("snapshot %" PRIu64 ": %s, %" PRIu64 " records, %s (%s new)\n", m->header.id,
		       snapshot_state_name(m->header.state), manifest_records(m),
		       format_bytes(size, sizeof(size), manifest_total_size(m)),
		       format_bytes(added, sizeof(added), s->store.chunks.added_bytes));
	}
}

/* A segment that is never quiet is waited for once more; then the snapshot says so. */
static int take(struct snapshots *s, const struct snapshot_options *options, struct manifest *m,
		struct snapshot_trouble *t)
{
	struct snapshot_options again = *options;
	int r = snapshot_take(&s->store, options, m, t);

	if (r != -EBUSY || strcmp(t->file, DATABASE_NAME) == 0)
		return r;
	manifest_free(m);
	again.accept_broken = true;
	return snapshot_take(&s->store, &again, m, t);
}

static int create(struct snapshots *s, const char *description, bool verify,
		  const struct snapshot_flags *flags)
{
	struct progress p;
	struct snapshot_options options = {.path = s->target.dir,
					   .dirfd = s->target.dirfd,
					   .reason = "manual",
					   .description = description,
					   .progress = progress_step,
					   .context = &p};
	struct snapshot_trouble t;
	struct manifest m;
	char process[64];
	int r, status = EXIT_DONE;

	options.idle = snapshots_find_process(&s->target, process, sizeof(process)) == 0;
	if (options.idle)
		snapshots_roll_back(&s->target);
	progress_start(&p, "taking", flags->quiet);
	r = take(s, &options, &m, &t);
	progress_end(&p);
	if (r < 0) {
		status = snapshots_fail(s, r, &t, "cannot take a snapshot of");
	} else if (m.header.state == SNAPSHOT_BROKEN) {
		status = fail(EXIT_BUSY, 0, "Take another one when the backend is less busy.",
			      "snapshot %" PRIu64 " is broken: %s", m.header.id, m.trouble);
	} else if (verify) {
		status = snapshots_verify(s, &m, flags) == EXIT_DONE ? EXIT_DONE : EXIT_WARNINGS;
	}
	if (r == 0)
		print_taken(&m, s, flags);
	manifest_free(&m);
	return status;
}

static int command_create(int argc, char **argv)
{
	enum { NO_VERIFY = 256, JSON };
	static const struct option options[] = {{"description", required_argument, NULL, 'd'},
						{"no-verify", no_argument, NULL, NO_VERIFY},
						{"json", no_argument, NULL, JSON},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct snapshot_flags flags = {0};
	const char *description = NULL;
	struct snapshots s;
	bool verify = true;
	int option, status;

	while ((option = getopt_long(argc, argv, "d:q", options, NULL)) != -1) {
		switch (option) {
		case 'd':
			description = optarg;
			break;
		case NO_VERIFY:
			verify = false;
			break;
		case JSON:
			flags.json = true;
			break;
		case 'q':
			flags.quiet = true;
			break;
		default:
			return fail_usage("snapshot");
		}
	}
	if (argc - optind > 1) {
		warn("snapshot create takes one directory");
		return fail_usage("snapshot");
	}
	status = snapshots_open(&s, argv[optind], SNAPSHOT_CHANGE, true);
	if (status)
		return status;
	status = create(&s, description, verify, &flags);
	snapshots_close(&s);
	return status;
}

int command_snapshot(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} verbs[] = {
	    {"create", command_create},
	    {"list", snapshot_command_list},
	    {"show", snapshot_command_show},
	    {"diff", snapshot_command_diff},
	    {"verify", snapshot_command_verify},
	    {"hold", snapshot_command_hold},
	    {"release", snapshot_command_release},
	    {"delete", snapshot_command_delete},
	    {"prune", snapshot_command_prune},
	};
	size_t i;

	for (i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(verbs[i].name, argv[1]) != 0)
			continue;
		argv[1] = argv[0]; /* getopt names the program in its messages */
		return verbs[i].run(argc - 1, argv + 1);
	}
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(snapshot_usage, stdout);
		return EXIT_DONE;
	}
	warn(argc > 1 ? "snapshot has no verb '%s'" : "snapshot needs a verb%s",
	     argc > 1 ? argv[1] : "");
	return fail_usage("snapshot");
}
