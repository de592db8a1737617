/* SPDX-License-Identifier: MIT
 *
 * `chromashim check`: is a Chroma directory whole, and if not, what helps.
 */
#include "command/command.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/json.h"
#include "command/terminal.h"
#include "core/diagnose.h"

const char check_usage[] =
    "Usage: chromashim check [OPTION]... [DIR]\n"
    "\n"
    "Judges a Chroma directory by its files: the database, its journal, migrations, every vector\n"
    "index, and whether they agree. Needs no Chroma and changes nothing; works while a backend\n"
    "runs. DIR is CHROMASHIM_DIR or ./chroma_data if not given.\n"
    "\n"
    "      --quick   all but what takes long (default)\n"
    "      --full    also integrity_check, the full-text index and every vector\n"
    "      --json    one JSON object\n"
    "  -q            only what is wrong\n"
    "\n"
    "Each finding has a code that stays the same in later versions, its severity, what it means\n"
    "and what helps. Exit status: 0 fine (notes at most), 1 warnings, 2 damage, 3 some or all of\n"
    "it could not be checked.\n";

struct check {
	const struct target *target;
	struct json json;
	bool is_json, quiet;
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

/* A path as the shell takes it. */
static void put_quoted(FILE *out, const char *path)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789/._-+:@%";

	if (*path && path[strspn(path, plain)] == '\0' && *path != '-') {
		fputs(path, out);
		return;
	}
	fputc('\'', out);
	for (; *path; path++) {
		if (*path == '\'')
			fputs("'\\''", out);
		else
			fputc(*path, out);
	}
	fputc('\'', out);
}

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
		put_quoted(out, dir);
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
	char *helps = fill_in(kind->helps, c->target->dir);

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
	helps = fill_in(kind->helps, c->target->dir);
	printf("  %s\n  -> %s\n", kind->means, helps ? helps : kind->helps);
	free(helps);
}

static void report(void *context, const struct diagnose_finding *finding)
{
	struct check *c = context;

	if (c->is_json)
		json_finding(c, finding);
	else
		text_finding(c, finding);
}

/* ---- the whole ---- */

static void put_number(struct json *j, const char *key, uint64_t value)
{
	json_key(j, key);
	json_uint(j, value);
}

static void json_releases(struct json *j, const struct diagnose_summary *s)
{
	static const char *const names[] = {"opens",  "migrates", "runs on",
					    "panics", "fails",	  "unknown"};
	unsigned count, i;
	const struct migration_era *eras = migrations_eras(&count);

	json_key(j, "migrations");
	json_begin(j, '{');
	for (i = 0; i < MIGRATION_DIRS; i++)
		put_number(j, migration_dir_names[i], s->migrations.counts[i]);
	json_end(j, '}');
	json_key(j, "releases");
	json_begin(j, '[');
	for (i = 0; s->migrations.has_table && i < count; i++) {
		json_begin(j, '{');
		put_member(j, "first", eras[i].first);
		put_member(j, "last", eras[i].last);
		put_member(j, "verdict",
			   names[migrations_judge(s->migrations.counts, eras[i].first)]);
		json_key(j, "wrote_it");
		json_bool(j, &eras[i] == s->era);
		json_end(j, '}');
	}
	json_end(j, ']');
}

static void json_summary(struct json *j, const struct diagnose_summary *s)
{
	put_member(j, "verdict", verdicts[verdict_of(s)]);
	put_number(j, "collections", s->collections);
	put_number(j, "records", s->records);
	put_number(j, "bytes", s->bytes);
	put_number(j, "processes", s->processes);
	json_releases(j, s);
}

static void text_summary(const struct check *c, const struct diagnose_summary *s)
{
	static const enum colour colours[] = {COLOUR_GREEN, COLOUR_YELLOW, COLOUR_RED,
					      COLOUR_YELLOW};
	enum check_code verdict = verdict_of(s);
	char size[24];

	if (c->quiet)
		return;
	printf("%s%s%s: %llu collections, %llu records, %s", terminal_colour(colours[verdict]),
	       verdicts[verdict], terminal_colour(COLOUR_PLAIN), (unsigned long long)s->collections,
	       (unsigned long long)s->records, format_bytes(size, sizeof(size), s->bytes));
	if (s->era)
		printf("; written by Chroma %s to %s", s->era->first, s->era->last);
	if (s->processes)
		printf("; open in process %d%s", s->first_process,
		       s->processes > 1 ? " and others" : "");
	putchar('\n');
}

static int check(struct check *c, bool full)
{
	struct diagnose_options options = {.full = full, .report = report, .context = c};
	struct diagnose_summary summary;
	int r;

	if (c->is_json) {
		c->json.out = stdout;
		json_begin(&c->json, '{');
		put_number(&c->json, "schema_version", SCHEMA_VERSION);
		put_member(&c->json, "directory", c->target->dir);
		json_key(&c->json, "findings");
		json_begin(&c->json, '[');
	}
	r = diagnose_directory(c->target->dir, c->target->dirfd, &options, &summary);
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
			    "cannot check '%s'", c->target->dir);
	return (int)verdict_of(&summary);
}

int command_check(int argc, char **argv)
{
	enum { QUICK = 256, FULL, JSON };
	static const struct option options[] = {{"quick", no_argument, NULL, QUICK},
						{"full", no_argument, NULL, FULL},
						{"json", no_argument, NULL, JSON},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct target target;
	struct check c = {.target = &target};
	bool full = false;
	int option, status;

	while ((option = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		switch (option) {
		case QUICK:
		case FULL:
			full = option == FULL;
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
	if (target_open_directory(&target, argv[optind]))
		return CHECK_UNKNOWN;
	status = check(&c, full);
	target_close(&target);
	return status;
}
