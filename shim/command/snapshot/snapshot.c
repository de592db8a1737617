/* SPDX-License-Identifier: MIT
 *
 * `chromashim snapshot`: which of its verbs is meant; and taking one.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command/base/in_use.h"
#include "command/base/progress.h"
#include "command/base/guard_settings.h"
#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "core/base/json.h"
#include "core/pin/outside.h"
#include "core/snapshot/known.h"

#define PIN_WAIT UINT64_C(30000000000) /* ns, for the database's lock */

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
    "          --no-wait            only pin it, which takes a moment; `chromashim guard` copies\n"
    "                               and verifies it\n"
    "  list [DIR]            all, with the bytes that only they use\n"
    "  show ID [DIR]         its collections, records and files\n"
    "  diff A..B [DIR]       what changed from A to B: collections and files\n"
    "          --records            records, by their ids; B may be `now`\n"
    "          --collection=NAME    of this collection only (name or id)\n"
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
    "      --json     create, list, show, diff, verify, prune: one JSON value instead of text\n"
    "      --utc      list, show, prune: times in UTC\n"
    "  -n, --dry-run  delete, prune: only say what would be done\n"
    "      --all      verify each of them\n"
    "  -f, --force    delete it although it is held, or the last verified one\n"
    "  -y, --yes      delete, prune: do not ask\n"
    "  -q, --quiet    no progress, no summary\n"
    "  -v, --verbose  prune: also why each one is kept\n"
    "\n"
    "While a backend runs under the shim, a snapshot is pinned first: it holds what there is now,\n"
    "and is copied while the backend goes on. `list` then says pinned, or hydrating and how far.\n"
    "Other states: complete (all there), verified (each chunk compared, opened, and checked),\n"
    "broken (with the reason). Exit status: 0 done, 1 failed, 2 usage, 3 taken but not verified, "
    "10 no\n"
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
static int snapshot_snapshot_take(struct snapshots *s, const struct snapshot_options *options,
				  struct manifest *m, struct snapshot_trouble *t)
{
	struct snapshot_options again = *options;
	int r = snapshot_take(&s->store, options, m, t);

	if (r != -EBUSY || strcmp(t->file, CHROMA_DATABASE) == 0)
		return r;
	manifest_free(m);
	again.accept_broken = true;
	return snapshot_take(&s->store, &again, m, t);
}

struct creation {
	const char *dir, *description;
	bool verify, wait;
	struct snapshot_flags flags;
};

int snapshots_create(struct snapshots *s, const char *reason, const char *description, bool verify,
		     const struct snapshot_flags *flags, uint64_t *id_out)
{
	struct progress p;
	struct snapshot_options options = {.path = s->data.dir,
					   .dirfd = s->data.dirfd,
					   .reason = reason,
					   .description = description,
					   .progress = progress_step,
					   .context = &p};
	struct snapshot_trouble t;
	struct manifest m;
	char process[64];
	int r, status = EXIT_DONE;

	options.idle = in_use_process(&s->data, process, sizeof(process)) == 0;
	if (options.idle)
		snapshots_roll_back(&s->data);
	progress_start(&p, "taking", flags->quiet);
	r = snapshot_snapshot_take(s, &options, &m, &t);
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
	if (s->store.contradicted)
		warn("%s", KNOWN_CONTRADICTED);
	*id_out = r == 0 ? m.header.id : 0;
	manifest_free(&m);
	return status;
}

/* Pins it where a backend runs under the shim. -ENOTSUP: it has to be copied now. */
static int pin(const struct creation *c, uint64_t *id_out, struct snapshot_trouble *t,
	       struct snapshots *s)
{
	struct pin_outside_options options = {
	    .reason = "manual", .description = c->description, .wait = PIN_WAIT};
	struct guard_settings settings;
	struct pins pins;
	int r, status = data_directory_open(&s->data, c->dir, false);

	if (status)
		return status;
	options.path = s->data.dir;
	options.dirfd = s->data.dirfd;
	options.storefd = s->data.storefd;
	guard_settings_read(&settings, s->data.storefd);
	options.limit = settings.undo_size;
	guard_settings_free(&settings);
	r = s->data.storefd < 0 ? -ENOTSUP : pins_open(&pins, s->data.storefd, false);
	if (r == 0) {
		r = pin_outside(&pins, &options, id_out, t);
		pins_close(&pins);
	} else {
		r = -ENOTSUP;
	}
	if (r < 0 && r != -ENOTSUP)
		status = snapshots_fail(s, r, t, "cannot pin a snapshot of");
	else
		status = r;
	data_directory_close(&s->data);
	return status;
}

static int copy_pinned(struct snapshots *s, const struct creation *c, uint64_t id)
{
	int status = EXIT_DONE;
	size_t i;

	for (i = 0; i < s->count && s->list[i].header.id != id; i++)
		;
	if (i == s->count)
		return fail(EXIT_FAILED, 0, "Take another one.",
			    "snapshot %" PRIu64 " was removed meanwhile", id);
	if (c->wait) {
		status = snapshots_settle(s, (long)i, &c->flags);
		if (status == 0 && c->verify && s->list[i].header.state != SNAPSHOT_VERIFIED)
			status = snapshots_verify(s, &s->list[i], &c->flags) == EXIT_DONE
				     ? EXIT_DONE
				     : EXIT_WARNINGS;
	}
	if (status == EXIT_DONE || status == EXIT_WARNINGS)
		print_taken(&s->list[i], s, &c->flags);
	return status;
}

static int create(const struct creation *c)
{
	struct snapshot_trouble t = {{0}, {0}};
	struct snapshots s = {.count = 0};
	uint64_t id = 0;
	int status = pin(c, &id, &t, &s);

	if (status != 0 && status != -ENOTSUP)
		return status;
	status = snapshots_open(&s, c->dir, id && !c->wait ? SNAPSHOT_LOOK : SNAPSHOT_ADD, !id);
	if (status)
		return status;
	status = id ? copy_pinned(&s, c, id)
		    : snapshots_create(&s, "manual", c->description, c->verify, &c->flags, &id);
	snapshots_close(&s);
	return status;
}

static int command_create(int argc, char **argv)
{
	enum { NO_VERIFY = 256, NO_WAIT, JSON };
	static const struct option options[] = {{"description", required_argument, NULL, 'd'},
						{"no-verify", no_argument, NULL, NO_VERIFY},
						{"no-wait", no_argument, NULL, NO_WAIT},
						{"json", no_argument, NULL, JSON},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct creation c = {.verify = true, .wait = true};
	int option;

	while ((option = getopt_long(argc, argv, "d:q", options, NULL)) != -1) {
		switch (option) {
		case 'd':
			c.description = optarg;
			break;
		case NO_VERIFY:
			c.verify = false;
			break;
		case NO_WAIT:
			c.wait = false;
			break;
		case JSON:
			c.flags.json = true;
			break;
		case 'q':
			c.flags.quiet = true;
			break;
		default:
			return fail_usage("snapshot");
		}
	}
	if (argc - optind > 1) {
		warn("snapshot create takes one directory");
		return fail_usage("snapshot");
	}
	c.dir = argv[optind];
	return create(&c);
}

int command_snapshot(int argc, char **argv)
{
	static const struct sub_verb verbs[] = {
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

	return run_sub_verb("snapshot", verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}
