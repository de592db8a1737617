/* SPDX-License-Identifier: MIT
 *
 * `chromashim export`: every record as a line of JSON, straight from the files.
 */
#include "command/base/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "command/base/output.h"
#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "command/verbs/export_folders.h"
#include "core/base/json.h"
#include "core/export/export.h"

const char export_usage[] =
    "Usage: chromashim export [OPTION]... [DIR]\n"
    "\n"
    "Writes every record of a Chroma directory as JSON Lines, straight from the files: without\n"
    "Chroma, and also what Chroma itself can no longer load. DIR is CHROMASHIM_DIR or\n"
    "./chroma_data if not given.\n"
    "\n"
    "  -o, --output FILE      to a file, which is there only when it is complete (else, and with "
    "-,\n"
    "                         to stdout); a device or FIFO is written through\n"
    "      --folders          FILE is a directory: a folder for each collection, with\n"
    "                         collection.json and records.jsonl in it\n"
    "      --collection NAME  only this collection (name or id)\n"
    "      --no-embeddings    without the vectors\n"
    "      --snapshot ID      not what is there now, but a snapshot of DIR (a number, latest, …),\n"
    "                         read where it is: nothing is restored\n"
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
	struct folders folders;
	bool vectors, is_live; /* not a snapshot's */
	int error;	       /* of the output */
	const char *output;    /* as given; NULL: stdout */
	const char *dir;
};

/* What is exported: a directory, or a snapshot of it. */
struct origin {
	const char *dir, *snapshot; /* as given; NULL: none */
	struct data_directory data;
	struct snapshots snapshots;
	const struct manifest *manifest;
};

static void put_text(struct json *j, const struct export_value *value)
{
	if (value)
		json_bytes(j, value->text, value->size);
	else
		json_null(j);
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

static int begin_collection(void *context, const struct export_collection *c)
{
	struct lines *l = context;

	l->error = folders_next(&l->folders, c, &l->json.out);
	return l->error;
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
	export_put_metadata(j, r->values, r->value_count);
	json_key(j, "uri");
	put_text(j, r->uri);
	json_end(j, '}');
	json_newline(j);
	if (!ferror(j->out))
		return 0;
	l->error = errno ? -errno : -EIO;
	return l->error;
}

static const char *reason_of(int error)
{
	return error == -ELOOP ? "it is a symbolic link, which is not followed or leads nowhere"
			       : strerror(-error);
}

static void put_trouble(void *context, const char *collection, const char *what, int error)
{
	(void)context;
	if (collection)
		warn("collection '%s': cannot read all of %s: %s", collection, what,
		     reason_of(error));
	else
		warn("cannot read %s: %s", what, reason_of(error));
}

static void put_mended(void *context, const char *collection, const char *sentence)
{
	(void)context;
	warn("collection '%s': %s", collection, sentence);
}

static int export_finish(const struct lines *l, const struct export_options *options,
			 const struct export_summary *s, int r)
{
	if (terminal_is_gone())
		return EXIT_DONE;
	if (l->error)
		return output_fail(l->error, l->output);
	if (r == -ELOOP)
		return fail(EXIT_FAILED, 0, "Export the directory that it leads to.",
			    "the database of '%s' is a symbolic link, which is not followed",
			    l->dir);
	if (r < 0)
		return fail(exit_code_of(r), r, "`chromashim check` tells what is wrong with it.",
			    "cannot export '%s'", l->dir);
	if (options->collection && !s->collections)
		return fail(EXIT_NOT_FOUND, 0, "Without --collection all of them are exported.",
			    "there is no collection '%s'", options->collection);
	if (s->without_vector)
		warn("%llu of %llu records have no vector that can be read here (\"embedding\": "
		     "null)%s",
		     (unsigned long long)s->without_vector, (unsigned long long)s->records,
		     l->is_live ? "; `chromashim recover` may bring them back" : "");
	return s->without_vector || s->troubles ? EXIT_WARNINGS : EXIT_DONE;
}

static int export_origin(struct origin *o, const struct export_options *options,
			 struct export_summary *out)
{
	if (o->manifest)
		return export_snapshot(&o->snapshots.store, o->manifest, options, out);
	return export_directory(o->data.dir, o->data.dirfd, options, out);
}

static int export_to_folders(struct lines *l, struct origin *o, struct export_options *options,
			     const char *path, bool zstd)
{
	struct export_summary summary;
	int status, r = folders_open(&l->folders, path, zstd);

	if (r < 0)
		return output_fail(r, path);
	options->begin = begin_collection;
	r = export_origin(o, options, &summary);
	status = export_finish(l, options, &summary, r);
	if (status != EXIT_DONE && status != EXIT_WARNINGS) {
		folders_abort(&l->folders);
		return status;
	}
	r = folders_close(&l->folders);
	return r < 0 ? output_fail(r, path) : status;
}

static int export_to(struct lines *l, struct origin *o, const struct export_options *options,
		     const char *path, bool zstd)
{
	struct output output;
	struct export_summary summary;
	int status, r = output_open(&output, path, zstd);

	if (r < 0)
		return output_fail(r, path);
	l->json.out = output.stream;
	r = export_origin(o, options, &summary);
	status = export_finish(l, options, &summary, r);
	if (status != EXIT_DONE && status != EXIT_WARNINGS) {
		output_abort(&output);
		return status;
	}
	r = output_close(&output);
	return r < 0 && !terminal_is_gone() ? output_fail(r, path) : status;
}

/* 0, or the exit status after saying why. */
static int open_origin(struct origin *o)
{
	long found;
	int status;

	if (!o->snapshot)
		return data_directory_open_only(&o->data, o->dir);
	status = snapshots_open(&o->snapshots, o->dir, SNAPSHOT_KEEP, false);
	if (status)
		return status;
	found = snapshots_find(&o->snapshots, o->snapshot);
	if (found < 0) {
		snapshots_close(&o->snapshots);
		return EXIT_NOT_FOUND;
	}
	o->manifest = &o->snapshots.list[found];
	return 0;
}

static void close_origin(struct origin *o)
{
	if (o->manifest)
		snapshots_close(&o->snapshots);
	else
		data_directory_close(&o->data);
}

static int export_from(struct origin *o, struct export_options *options, const char *path,
		       bool folders, bool zstd)
{
	struct lines lines = {.vectors = options->vectors, .output = path};
	int status = open_origin(o);

	if (status)
		return status;
	lines.is_live = !o->manifest;
	lines.dir = o->manifest ? o->snapshots.data.dir : o->data.dir;
	options->context = &lines;
	status = folders ? export_to_folders(&lines, o, options, path, zstd)
			 : export_to(&lines, o, options, path, zstd);
	close_origin(o);
	return status;
}

int command_export(int argc, char **argv)
{
	enum { COLLECTION = 256, NO_EMBEDDINGS, FOLDERS, SNAPSHOT, ZSTD };
	static const struct option long_options[] = {
	    {"output", required_argument, NULL, 'o'},
	    {"collection", required_argument, NULL, COLLECTION},
	    {"no-embeddings", no_argument, NULL, NO_EMBEDDINGS},
	    {"folders", no_argument, NULL, FOLDERS},
	    {"snapshot", required_argument, NULL, SNAPSHOT},
	    {"zstd", no_argument, NULL, ZSTD},
	    {NULL, 0, NULL, 0}};
	struct origin origin = {0};
	struct export_options options = {.vectors = true,
					 .pages = true,
					 .record = put_record,
					 .trouble = put_trouble,
					 .mended = put_mended};
	const char *path = NULL;
	bool zstd = false, folders = false, to_stdout;
	int option;

	while ((option = getopt_long(argc, argv, "o:", long_options, NULL)) != -1) {
		switch (option) {
		case 'o':
			path = optarg;
			break;
		case COLLECTION:
			options.collection = optarg;
			break;
		case NO_EMBEDDINGS:
			options.vectors = false;
			break;
		case FOLDERS:
			folders = true;
			break;
		case SNAPSHOT:
			origin.snapshot = optarg;
			break;
		case ZSTD:
			zstd = true;
			break;
		default:
			return fail_usage("export");
		}
	}
	to_stdout = !path || strcmp(path, "-") == 0;
	if (argc - optind > 1 || (folders && to_stdout)) {
		warn(folders && to_stdout ? "--folders needs -o with the directory to make"
					  : "export takes one directory");
		return fail_usage("export");
	}
	origin.dir = argv[optind];
	return export_from(&origin, &options, path, folders, zstd);
}
