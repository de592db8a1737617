/* SPDX-License-Identifier: MIT
 *
 * `chromashim explain`: an error text of Chroma's, and what it means.
 */
#include "command/base/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/chroma/explain.h"

const char explain_usage[] = "Usage: chromashim explain [OPTION]... TEXT...\n"
			     "       chromashim explain [OPTION]... -  <LOG\n"
			     "\n"
			     "Tells what an error of Chroma's means and what to do about it. TEXT "
			     "is the message, or a part\n"
			     "of a log that contains it; - reads it from stdin. Of several causes "
			     "the first of the\n"
			     "log comes first. Lines that were broken, and prefixes of collectors, "
			     "do not matter.\n"
			     "\n"
			     "      --json   one JSON object\n"
			     "\n"
			     "Where `chromashim check` can tell whether that is really so, the "
			     "codes to look for are named.\n"
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

static void put_json(const struct explain_text *const *found, size_t count)
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
	json_end(&j, '}');
	json_newline(&j);
}

static int explain(const char *text, bool is_json)
{
	const struct explain_text *found[TOLD_MAX];
	size_t count = explain_find(text, found, TOLD_MAX), i;

	if (is_json)
		put_json(found, count);
	if (!count)
		return is_json ? EXIT_NOT_FOUND
			       : fail(EXIT_NOT_FOUND, 0,
				      "`chromashim check DIR` judges the directory itself.",
				      "this text is not known");
	for (i = 0; i < count && !is_json; i++) {
		printf("\"%s\"\n  %s\n  -> %s\n", found[i]->pattern, found[i]->means,
		       found[i]->helps);
		if (found[i]->codes[0])
			printf("  `chromashim check DIR` confirms it by: %s\n", found[i]->codes);
	}
	return EXIT_DONE;
}

int command_explain(int argc, char **argv)
{
	enum { JSON = 256 };
	static const struct option options[] = {{"json", no_argument, NULL, JSON},
						{NULL, 0, NULL, 0}};
	bool is_json = false;
	char *text;
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option != JSON)
			return fail_usage("explain");
		is_json = true;
	}
	if (optind == argc) {
		warn("give the text, or - to read it from stdin");
		return fail_usage("explain");
	}
	text = argc - optind == 1 && strcmp(argv[optind], "-") == 0
		   ? read_stdin()
		   : join(argc - optind, argv + optind);
	if (!text)
		return fail(EXIT_FAILED, -ENOMEM, "Try again with more memory free.",
			    "cannot read the text");
	status = explain(text, is_json);
	free(text);
	return status;
}
