/* SPDX-License-Identifier: MIT
 *
 * `chromashim check`: is a Chroma directory whole, and if not, what helps.
 */
#include "command/base/in_use.h"
#include "command/base/progress.h"
#include "command/base/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/rollbacks.h"
#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "core/base/json.h"
#include "core/check/diagnose.h"

const char check_usage[] =
    "Usage: chromashim check [OPTION]... [DIR]\n"
    "\n"
    "Judges a Chroma directory by its files: the database, its journal, migrations, every vector\n"
    "index, and whether they agree. Needs no Chroma and changes nothing (but for --repair); works\n"
    "while a backend runs. DIR is CHROMASHIM_DIR or ./chroma_data if not given. A copy that went\n"
    "wrong (pointers of Git LFS or a cloud, files converted as text, another name, one folder too\n"
    "deep) is said to be one. A gigabyte takes about a second, and some four with --full.\n"
    "\n"
    "      --quick         all but what takes long (default)\n"
    "      --full          also integrity_check, the full-text index and every vector\n"
    "      --backend PATH  can this Chroma open it: a virtual environment, a directory with\n"
    "                      node_modules, or the program that is started\n"
    "      --repair        first undo what a dead process left half-done: persists that were cut\n"
    "                      off, as the next start would, and a restore\n"
    "  -n, --dry-run       with --repair: only say what would be done\n"
    "      --json          one JSON object\n"
    "  -q, --quiet         only what is wrong\n"
    "\n"
    "Each finding has a code that stays the same in later versions, its severity, what it means\n"
    "and what helps. Exit status: 0 fine (notes at most), 1 warnings, 2 damage, 3 some or all of\n"
    "it could not be checked; with --repair also 14: a process has it open, nothing was done.\n";

struct check {
	const struct data_directory *data;
	struct json json;
	struct progress progress;
	bool is_json, quiet;
	int store_error; /* -errno: why it cannot be opened */
	bool explained[DIAGNOSE_CODES];
};

static enum check_code verdict_of(const struct diagnose_summary *s)
{
	if (s->findings[DIAGNOSE_DAMAGE])
		return CHECK_DAMAGE;
	if (s->findings[DIAGNOSE_UNKNOWN])
		return CHECK_UNKNOWN;
	return s->findings[DIAGNOSE_WARNING] ? CHECK_WARNING : CHECK_FINE;
}

static const char *const verdicts[] = {"fine", "warning", "damage", "unknown"};

/* "chromashim export DIR" with the directory in place of DIR. The caller's to free. */
static char *fill_in(const char *helps, const char *dir)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	const char *at;

	if (!out)
		return NULL;
	while ((at = strstr(helps, "DIR"))) {
		fwrite(helps, 1, (size_t)(at - helps), out);
		terminal_put_quoted(out, dir);
		helps = at + 3;
	}
	fputs(helps, out);
	fclose(out);
	return text;
}

/* ---- findings ---- */

static void put_member(struct json *j, const char *key, const char *value)
{
	json_key(j, key);
	json_string(j, value);
}

static void json_finding(struct check *c, const struct diagnose_finding *f)
{
	const struct diagnose_kind *kind = &diagnose_kinds[f->code];
	struct json *j = &c->json;
	char *helps = fill_in(f->helps, c->data->dir);

	json_begin(j, '{');
	put_member(j, "code", kind->code);
	put_member(j, "severity", diagnose_severity_names[kind->severity]);
	put_member(j, "collection", f->collection);
	put_member(j, "segment", f->segment);
	put_member(j, "file", f->file);
	put_member(j, "detail", f->detail);
	put_member(j, "means", kind->means);
	put_member(j, "helps", helps);
	json_end(j, '}');
	free(helps);
}

static void put_part(const char *before, const char *text)
{
	if (!text)
		return;
	fputs(before, stdout);
	terminal_put_text(stdout, text, strlen(text));
}

static void text_finding(struct check *c, const struct diagnose_finding *f)
{
	static const enum colour colours[] = {COLOUR_DIM, COLOUR_YELLOW, COLOUR_RED, COLOUR_YELLOW};
	const struct diagnose_kind *kind = &diagnose_kinds[f->code];
	char *helps;

	if (c->quiet && kind->severity == DIAGNOSE_NOTE)
		return;
	printf("%s%s%s: %s", terminal_colour(colours[kind->severity]),
	       diagnose_severity_names[kind->severity], terminal_colour(COLOUR_PLAIN), kind->code);
	put_part(": collection ", f->collection);
	put_part(f->collection ? ", segment " : ": segment ", f->segment);
	put_part(f->collection || f->segment ? ", " : ": ", f->file);
	put_part(": ", f->detail);
	putchar('\n');
	if (c->explained[f->code])
		return;
	c->explained[f->code] = true;
	helps = fill_in(f->helps, c->data->dir);
	printf("  %s\n  -> %s\n", kind->means, helps ? helps : f->helps);
	free(helps);
}

static void report(void *context, const struct diagnose_finding *finding)
{
	struct check *c = context;

	progress_end(&c->progress);
	if (c->is_json)
		json_finding(c, finding);
	else
		text_finding(c, finding);
}

static void step(void *context, uint64_t done, uint64_t total)
{
	struct check *c = context;

	progress_step(&c->progress, done, total);
}

/* ---- the whole ---- */

static const char *const migration_verdicts[] = {"opens",  "migrates", "runs on",
						 "panics", "fails",    "unknown"};

static void json_releases(struct json *j, const struct diagnose_summary *s)
{
	unsigned count, i;
	const struct migration_era *eras = migrations_eras(&count);

	json_key(j, "migrations");
	json_begin(j, '{');
	for (i = 0; i < MIGRATION_DIRS; i++)
		json_put_uint(j, migration_dir_names[i], s->migrations.counts[i]);
	json_end(j, '}');
	json_key(j, "releases");
	json_begin(j, '[');
	for (i = 0; s->migrations.has_table && i < count; i++) {
		json_begin(j, '{');
		put_member(j, "first", eras[i].first);
		put_member(j, "last", eras[i].last);
		put_member(
		    j, "verdict",
		    migration_verdicts[migrations_judge(s->migrations.counts, eras[i].first)]);
		json_key(j, "wrote_it");
		json_bool(j, &eras[i] == s->era);
		json_end(j, '}');
	}
	json_end(j, ']');
}

static void json_summary(struct json *j, const struct diagnose_summary *s)
{
	char time[40];

	put_member(j, "verdict", verdicts[verdict_of(s)]);
	json_put_uint(j, "collections", s->collections);
	json_put_uint(j, "records", s->records);
	json_put_uint(j, "bytes", s->bytes);
	json_put_uint(j, "processes", s->processes);
	json_put_uint(j, "snapshots", s->snapshots);
	put_member(j, "newest_snapshot",
		   s->newest_snapshot ? format_time_utc(time, sizeof(time), s->newest_snapshot)
				      : NULL);
	if (s->has_verdict) {
		json_key(j, "backend");
		json_begin(j, '{');
		put_member(j, "release", s->backend_release[0] ? s->backend_release : NULL);
		put_member(j, "verdict", migration_verdicts[s->backend_verdict]);
		json_end(j, '}');
	}
	json_releases(j, s);
}

static void text_summary(const struct check *c, const struct diagnose_summary *s)
{
	static const enum colour colours[] = {COLOUR_GREEN, COLOUR_YELLOW, COLOUR_RED,
					      COLOUR_YELLOW};
	enum check_code verdict = verdict_of(s);
	char size[24], time[40];

	if (c->quiet)
		return;
	printf("%s%s%s: %llu collections, %llu records, %s", terminal_colour(colours[verdict]),
	       verdicts[verdict], terminal_colour(COLOUR_PLAIN), (unsigned long long)s->collections,
	       (unsigned long long)s->records, format_bytes(size, sizeof(size), s->bytes));
	if (s->era)
		printf("; written by Chroma %s to %s", s->era->first, s->era->last);
	if (s->processes) {
		printf("; open in process %d (", s->first_process);
		terminal_put_text(stdout, s->first_command, strlen(s->first_command));
		printf(")%s", s->processes > 1 ? " and others" : "");
	}
	if (s->newest_snapshot)
		printf("; newest snapshot %s",
		       format_time(time, sizeof(time), s->newest_snapshot, false));
	putchar('\n');
	if (s->has_verdict)
		printf("Chroma %s: %s\n", s->backend_release[0] ? s->backend_release : "there",
		       s->backend_verdict == MIGRATION_OPENS
			   ? "opens it as it is"
			   : migration_verdicts[s->backend_verdict]);
}

static int check(struct check *c, bool full, const char *backend)
{
	struct diagnose_options options = {.full = full,
					   .storefd = c->data->storefd,
					   .store_error = c->store_error,
					   .strayfd = c->data->strayfd,
					   .backend = backend,
					   .report = report,
					   .progress = step,
					   .context = c};
	struct diagnose_summary summary;
	int r;

	if (c->is_json) {
		c->json.out = stdout;
		json_begin(&c->json, '{');
		json_put_uint(&c->json, "schema_version", SCHEMA_VERSION);
		put_member(&c->json, "directory", c->data->dir);
		json_key(&c->json, "findings");
		json_begin(&c->json, '[');
	}
	progress_start(&c->progress, "checking", c->quiet);
	r = diagnose_directory(c->data->dir, c->data->dirfd, &options, &summary);
	progress_end(&c->progress);
	if (c->is_json) {
		json_end(&c->json, ']');
		json_summary(&c->json, &summary);
		json_end(&c->json, '}');
		json_newline(&c->json);
	} else if (r == 0) {
		text_summary(c, &summary);
	}
	if (r < 0)
		return fail((enum exit_code)CHECK_UNKNOWN, r, "Try again with more memory free.",
			    "cannot check '%s'", c->data->dir);
	return (int)verdict_of(&summary);
}

/* ---- repair ---- */

static void say_repair(void *context, const char *line)
{
	const struct check *c = context;

	if (c->is_json)
		warn("%s", line);
	else
		printf("%s\n", line);
}

/*
 * What the store has to undo it; all else is for `chromashim recover`. A dry run may look while a
 * backend works, whose groups are then left out.
 */
static int check_repair(struct check *c, struct data_directory *t, bool dry)
{
	struct rollbacks done;
	char name[256];
	int pid = in_use_process(t, name, sizeof(name)), r;

	if (pid && !dry) {
		char who[32] = "";

		if (pid > 0)
			snprintf(who, sizeof(who), "pid %d, ", pid);
		return fail(EXIT_IN_THE_WAY, 0,
			    "Stop it first; then nothing needs to be done by hand, since a start "
			    "under the shim does the same.",
			    "cannot repair '%s' while %s%s has it open", t->dir, who, name);
	}
	if (t->store_is_newer)
		return fail((enum exit_code)CHECK_UNKNOWN, 0, "Use that version, or a newer one.",
			    "%s", data_directory_newer(t));
	if (!dry && t->storefd >= 0)
		restore_end_pending(t);
	r = rollbacks_run(t, dry, say_repair, c, &done);
	if (r < 0)
		return fail((enum exit_code)CHECK_UNKNOWN, r,
			    "Run this as the owner of the data directory.",
			    "cannot look for persists that were cut off in '%s'", t->store);
	if (!done.undone && !done.failed && !c->quiet)
		say_repair(c, "no persist was cut off: nothing to undo");
	return 0;
}

int command_check(int argc, char **argv)
{
	enum { QUICK = 256, FULL, JSON, BACKEND, REPAIR };
	static const struct option options[] = {{"quick", no_argument, NULL, QUICK},
						{"full", no_argument, NULL, FULL},
						{"backend", required_argument, NULL, BACKEND},
						{"repair", no_argument, NULL, REPAIR},
						{"dry-run", no_argument, NULL, 'n'},
						{"json", no_argument, NULL, JSON},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct data_directory data;
	struct check c = {.data = &data};
	const char *backend = NULL;
	bool full = false, repairs = false, dry = false;
	int option, status;

	while ((option = getopt_long(argc, argv, "qn", options, NULL)) != -1) {
		switch (option) {
		case QUICK:
		case FULL:
			full = option == FULL;
			break;
		case BACKEND:
			backend = optarg;
			break;
		case REPAIR:
			repairs = true;
			break;
		case 'n':
			dry = true;
			break;
		case JSON:
			c.is_json = true;
			break;
		case 'q':
			c.quiet = true;
			break;
		default:
			fail_usage("check");
			return CHECK_UNKNOWN; /* 2 would say "damage" to who monitors */
		}
	}
	if (argc - optind > 1) {
		warn("check takes one directory");
		fail_usage("check");
		return CHECK_UNKNOWN;
	}
	if (data_directory_open_only(&data, argv[optind]))
		return CHECK_UNKNOWN;
	c.store_error = data_directory_find_store(&data);
	if (data.store_is_newer && !repairs)
		warn("%s: it is left out, and with it what would be undone from it at a start",
		     data_directory_newer(&data));
	status = repairs ? check_repair(&c, &data, dry) : 0;
	if (status == 0)
		status = check(&c, full, backend);
	data_directory_close(&data);
	return status;
}
