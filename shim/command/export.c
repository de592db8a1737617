/* SPDX-License-Identifier: MIT
 *
 * `chromashim export`: every record as a line of JSON, straight from the files.
 */
#include "command/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "command/json.h"
#include "command/output.h"
#include "command/terminal.h"
#include "core/export.h"

const char export_usage[] =
    "Usage: chromashim export [OPTION]... [DIR]\n"
    "\n"
    "Writes every record of a Chroma directory as JSON Lines, straight from the files: without\n"
    "Chroma, and also what Chroma itself can no longer load. DIR is CHROMASHIM_DIR or\n"
    "./chroma_data if not given.\n"
    "\n"
    "  -o, --output FILE      to a file, which is there only when it is complete (else to stdout)\n"
    "      --collection NAME  only this collection (name or id)\n"
    "      --no-embeddings    without the vectors\n"
    "      --zstd             compressed\n"
    "\n"
    "A line has: collection, id, embedding (null if the vector is lost), document, metadata, uri;\n"
    "and tenant and database unless they are Chroma's defaults. Without chroma.sqlite3 the lines\n"
    "have ids and vectors only, and the collection is the name of the segment's directory.\n"
    "\n"
    "Exit status: 0 done, 1 failed, 3 done, but vectors or parts are lost (said on stderr),\n"
    "12 no such directory or collection.\n";

struct lines {
	struct json json;
	bool vectors;
	int error; /* of the output */
	const struct target *target;
};

static void put_text(struct json *j, const struct export_value *value)
{
	if (value)
		json_bytes(j, value->text, value->size);
	else
		json_null(j);
}

static void put_value(struct json *j, const struct export_value *value)
{
	switch (value->type) {
	case EXPORT_STRING:
		json_bytes(j, value->text, value->size);
		break;
	case EXPORT_INT:
		json_int(j, value->number);
		break;
	case EXPORT_FLOAT:
		json_double(j, value->real);
		break;
	case EXPORT_BOOL:
		json_bool(j, value->number);
		break;
	default:
		json_null(j);
	}
}

static void put_metadata(struct json *j, const struct export_record *r)
{
	size_t i = 0;

	json_key(j, "metadata");
	if (r->value_count == 0) {
		json_null(j);
		return;
	}
	json_begin(j, '{');
	while (i < r->value_count) {
		const struct export_value *first = &r->values[i];

		json_key(j, first->key);
		if (!first->is_element) {
			put_value(j, first);
			i++;
			continue;
		}
		json_begin(j, '[');
		for (; i < r->value_count && r->values[i].is_element &&
		       !strcmp(r->values[i].key, first->key);
		     i++)
			put_value(j, &r->values[i]);
		json_end(j, ']');
	}
	json_end(j, '}');
}

static void put_home(struct json *j, const struct chroma_collection *c)
{
	bool is_default = !c->database || (!strcmp(c->database, "default_database") && c->tenant &&
					   !strcmp(c->tenant, "default_tenant"));

	if (!is_default) {
		json_key(j, "tenant");
		json_string(j, c->tenant);
		json_key(j, "database");
		json_string(j, c->database);
	}
	json_key(j, "collection");
	json_string(j, c->name);
}

static int put_record(void *context, const struct export_record *r)
{
	struct lines *l = context;
	struct json *j = &l->json;

	json_begin(j, '{');
	put_home(j, r->collection);
	json_key(j, "id");
	json_bytes(j, r->id, r->id_size);
	if (l->vectors) {
		json_key(j, "embedding");
		if (r->vector)
			output_floats(j, r->vector, r->dimension);
		else
			json_null(j);
	}
	json_key(j, "document");
	put_text(j, r->document);
	put_metadata(j, r);
	json_key(j, "uri");
	put_text(j, r->uri);
	json_end(j, '}');
	json_newline(j);
	if (!ferror(j->out))
		return 0;
	l->error = errno ? -errno : -EIO;
	return l->error;
}

static void put_trouble(void *context, const char *collection, const char *what, int error)
{
	(void)context;
	if (collection)
		warn("collection '%s': cannot read all of %s: %s", collection, what,
		     strerror(-error));
	else
		warn("cannot read %s: %s", what, strerror(-error));
}

static int finish(const struct lines *l, const struct export_options *options,
		  const struct export_summary *s, int r)
{
	if (terminal_is_gone())
		return EXIT_DONE;
	if (l->error)
		return fail(exit_code_of(l->error), l->error, "Make room, or choose another place.",
			    "cannot write the export");
	if (r < 0)
		return fail(exit_code_of(r), r, "`chromashim check` tells what is wrong with it.",
			    "cannot export '%s'", l->target->dir);
	if (options->collection && !s->collections)
		return fail(EXIT_NOT_FOUND, 0, "Without --collection all of them are exported.",
			    "there is no collection '%s'", options->collection);
	if (s->without_vector)
		warn("%llu of %llu records have no vector any more (\"embedding\": null)",
		     (unsigned long long)s->without_vector, (unsigned long long)s->records);
	return s->without_vector || s->troubles ? EXIT_WARNINGS : EXIT_DONE;
}

static int export_to(struct lines *l, const struct export_options *options, const char *path,
		     bool zstd)
{
	struct output output;
	struct export_summary summary;
	int status, r = output_open(&output, path, zstd);

	if (r < 0)
		return fail(exit_code_of(r), r, "Choose another place.", "cannot write '%s'",
			    path ? path : "stdout");
	l->json.out = output.stream;
	r = export_directory(l->target->dir, l->target->dirfd, options, &summary);
	status = finish(l, options, &summary, r);
	if (status != EXIT_DONE && status != EXIT_WARNINGS) {
		output_abort(&output);
		return status;
	}
	r = output_close(&output);
	if (r < 0 && !terminal_is_gone())
		return fail(exit_code_of(r), r, "Make room, or choose another place.",
			    "cannot write '%s'", path ? path : "stdout");
	return status;
}

int command_export(int argc, char **argv)
{
	enum { COLLECTION = 256, NO_EMBEDDINGS, ZSTD };
	static const struct option long_options[] = {
	    {"output", required_argument, NULL, 'o'},
	    {"collection", required_argument, NULL, COLLECTION},
	    {"no-embeddings", no_argument, NULL, NO_EMBEDDINGS},
	    {"zstd", no_argument, NULL, ZSTD},
	    {NULL, 0, NULL, 0}};
	struct target target;
	struct lines lines = {.target = &target};
	struct export_options options = {
	    .vectors = true, .record = put_record, .trouble = put_trouble, .context = &lines};
	const char *path = NULL;
	bool zstd = false;
	int option, status;

	while ((option = getopt_long(argc, argv, "o:", long_options, NULL)) != -1) {
		switch (option) {
		case 'o':
			path = strcmp(optarg, "-") == 0 ? NULL : optarg;
			break;
		case COLLECTION:
			options.collection = optarg;
			break;
		case NO_EMBEDDINGS:
			options.vectors = false;
			break;
		case ZSTD:
			zstd = true;
			break;
		default:
			return fail_usage("export");
		}
	}
	if (argc - optind > 1) {
		warn("export takes one directory");
		return fail_usage("export");
	}
	status = target_open_directory(&target, argv[optind]);
	if (status)
		return status;
	lines.vectors = options.vectors;
	status = export_to(&lines, &options, path, zstd);
	target_close(&target);
	return status;
}
