/* SPDX-License-Identifier: MIT
 *
 * `chromashim explain`: an error text of Chroma's, and what it means.
 */
#include "command/base/command.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "command/base/terminal.h"
#include "command/log/log.h"
#include "core/base/json.h"
#include "core/chroma/explain.h"

const char explain_usage[] =
    "Usage: chromashim explain [OPTION]... TEXT...\n"
    "       chromashim explain [OPTION]... -  <LOG\n"
    "       chromashim explain [OPTION]... DIR\n"
    "\n"
    "Tells what an error of Chroma's means and what to do about it. TEXT is the message, or a "
    "part\n"
    "of a log that contains it; - reads it from stdin. Of several causes the first of the\n"
    "log comes first. Lines that were broken, and prefixes of collectors, do not matter.\n"
    "\n"
    "      --dir DIR   also what chromashim itself has refused in this data directory last\n"
    "      --json      one JSON object\n"
    "\n"
    "Where `chromashim check` can tell whether that is really so, the codes to look for are "
    "named.\n"
    "Exit status: 0 known, 12 not known.\n";

#define TEXT_MAX (16u << 20)

/* All words with a space between; the caller's to free. NULL: no memory. */
static char *join(int count, char **words)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int i;

	if (!out)
		return NULL;
	for (i = 0; i < count; i++)
		fprintf(out, "%s%s", i ? " " : "", words[i]);
	fclose(out);
	return text;
}

static char *read_stdin(void)
{
	FILE *out;
	char *text = NULL;
	size_t size, n, total = 0;
	char buf[4096];

	out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	while (total < TEXT_MAX && (n = fread(buf, 1, sizeof(buf), stdin)) > 0) {
		fwrite(buf, 1, n, out);
		total += n;
	}
	fclose(out);
	return text;
}

#define TOLD_MAX 8
#define REFUSALS_TOLD 3

static void put_members(struct json *j, const struct explain_text *found)
{
	json_key(j, "text");
	json_string(j, found ? found->pattern : NULL);
	json_key(j, "means");
	json_string(j, found ? found->means : NULL);
	json_key(j, "helps");
	json_string(j, found ? found->helps : NULL);
	json_key(j, "codes");
	json_string(j, found && found->codes[0] ? found->codes : NULL);
}

/* ---- what was refused ---- */

struct refusals {
	struct data_directory data;
	const char *dir; /* NULL: not asked for */
	uint64_t count;
};

typedef int refusal_fn(const struct oplog_entry *e, void *context);

/* Those behind the first `passed`; their number, 0 also if there is no log. */
static uint64_t each_refusal(const struct refusals *f, uint64_t passed, refusal_fn *each,
			     void *context)
{
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	uint64_t count = 0;
	int r = f->data.storefd < 0 ? -ENOENT
				    : oplog_reader_open_which(f->data.storefd, OPLOG_ACTS, &reader);

	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0) {
		r = 0;
		if (e.op < OP_REFUSE_WRITER || e.op > OP_REFUSE_DESTROYER)
			continue;
		if (count++ >= passed && each)
			r = each(&e, context);
	}
	if (reader)
		oplog_reader_close(reader);
	return count;
}

static int print_refusal(const struct oplog_entry *e, void *context)
{
	struct log_sink *sink = context;

	return sink->entry(sink, e);
}

static int put_refusal(const struct oplog_entry *e, void *context)
{
	struct json *j = context;
	struct log_meaning m;
	char when[40];

	log_explain(e, &m);
	json_begin(j, '{');
	json_key(j, "time");
	json_string(j, format_time_utc(when, sizeof(when), e->time));
	json_put_uint(j, "pid", e->header->pid);
	json_key(j, "op");
	json_string(j, m.op);
	json_key(j, "path");
	json_string(j, m.path);
	json_end(j, '}');
	return 0;
}

static uint64_t before_last(const struct refusals *f)
{
	return f->count > REFUSALS_TOLD ? f->count - REFUSALS_TOLD : 0;
}

static void print_refusals(const struct refusals *f)
{
	struct log_options options = {.dir = f->dir, .dirfd = f->data.dirfd};
	struct log_sink *sink = f->count ? log_text_sink(&options) : NULL;

	if (f->dir && !f->count)
		printf("chromashim has refused nothing in '%s', as far as its log goes.\n", f->dir);
	if (!sink)
		return;
	printf("What chromashim has refused in '%s' last (of %" PRIu64
	       "; `chromashim log --failed` tells all):\n",
	       f->dir, f->count);
	each_refusal(f, before_last(f), print_refusal, sink);
	sink->free(sink);
}

/* ---- both ---- */

static void put_json(const struct explain_text *const *found, size_t count,
		     const struct refusals *refusals)
{
	struct json j = {.out = stdout};
	size_t i;

	json_begin(&j, '{');
	json_key(&j, "schema_version");
	json_uint(&j, SCHEMA_VERSION);
	put_members(&j, count ? found[0] : NULL);
	json_key(&j, "then");
	json_begin(&j, '[');
	for (i = 1; i < count; i++) {
		json_begin(&j, '{');
		put_members(&j, found[i]);
		json_end(&j, '}');
	}
	json_end(&j, ']');
	json_key(&j, "refused");
	json_begin(&j, '[');
	each_refusal(refusals, before_last(refusals), put_refusal, &j);
	json_end(&j, ']');
	json_end(&j, '}');
	json_newline(&j);
}

static int explain(const char *text, bool is_json, struct refusals *refusals)
{
	const struct explain_text *found[TOLD_MAX];
	size_t count = text ? explain_find(text, found, TOLD_MAX) : 0, i;

	refusals->count = each_refusal(refusals, 0, NULL, NULL);
	if (is_json)
		put_json(found, count, refusals);
	else
		print_refusals(refusals);
	if (!count && text && !is_json)
		return fail(EXIT_NOT_FOUND, 0,
			    "`chromashim check DIR` judges the directory itself.",
			    "this text is not known");
	for (i = 0; i < count && !is_json; i++) {
		printf("\"%s\"\n  %s\n  -> %s\n", found[i]->pattern, found[i]->means,
		       found[i]->helps);
		if (found[i]->codes[0])
			printf("  `chromashim check DIR` confirms it by: %s\n", found[i]->codes);
	}
	return count || refusals->count ? EXIT_DONE : EXIT_NOT_FOUND;
}

/* A single word that is a directory stands for itself. */
static bool is_directory(int count, char **words)
{
	struct stat st;

	return count == 1 && stat(words[0], &st) == 0 && S_ISDIR(st.st_mode);
}

static int explain_words(int count, char **words, bool is_json, struct refusals *refusals)
{
	int status, error = 0, unread = 0;
	char *text = NULL;

	if (is_directory(count, words))
		refusals->dir = words[0];
	else if (count)
		text = count == 1 && strcmp(words[0], "-") == 0 ? read_stdin() : join(count, words);
	if (count && !text && refusals->dir != words[0])
		return fail(EXIT_FAILED, -ENOMEM, "Try again with more memory free.",
			    "cannot read the text");
	status =
	    refusals->dir ? data_directory_open_only(&refusals->data, refusals->dir) : EXIT_DONE;
	if (status == EXIT_DONE && refusals->dir)
		error = data_directory_find_store(&refusals->data);
	if (error && error != -ENOENT) {
		unread = data_directory_fail_store(&refusals->data, error);
		refusals->dir = NULL; /* nobody knows what was refused */
	}
	if (status == EXIT_DONE && (text || !unread))
		status = explain(text, is_json, refusals);
	else if (status == EXIT_DONE)
		status = unread;
	data_directory_close(&refusals->data);
	free(text);
	return status;
}

int command_explain(int argc, char **argv)
{
	enum { JSON = 256, DIRECTORY };
	static const struct option options[] = {{"dir", required_argument, NULL, DIRECTORY},
						{"json", no_argument, NULL, JSON},
						{NULL, 0, NULL, 0}};
	struct refusals refusals = {.data = {.dirfd = -1, .storefd = -1, .strayfd = -1}};
	bool is_json = false;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("explain");
		is_json = is_json || option == JSON;
		refusals.dir = option == DIRECTORY ? optarg : refusals.dir;
	}
	if (optind == argc && !refusals.dir) {
		warn("give the text, or - to read it from stdin");
		return fail_usage("explain");
	}
	return explain_words(argc - optind, argv + optind, is_json, &refusals);
}
