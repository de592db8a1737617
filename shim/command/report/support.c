/* SPDX-License-Identifier: MIT
 *
 * `chromashim support`: a bundle to send to somebody, without names.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <sqlite3.h>
#include <zstd.h>

#include "command/base/guard_settings.h"
#include "command/base/output.h"
#include "command/base/terminal.h"
#include "command/digest/input.h"
#include "command/report/support.h"
#include "command/report/tar.h"
#include "core/base/clock.h"
#include "core/base/filesystem.h"
#include "core/base/symbols.h"
#include "core/base/version.h"
#include "core/check/diagnose.h"
#include "core/oplog/oplog.h"
#include "core/sqlite/database.h"

const char support_usage[] =
    "Usage: chromashim support [OPTION]... -o BUNDLE.tar.zst [DIR]\n"
    "       chromashim support --hash TEXT [DIR]\n"
    "\n"
    "Makes a bundle to send to somebody who shall help: a summary of the log, the newest acts of\n"
    "it, what check finds, settings, versions, and the shapes of the tables. Names of "
    "collections,\n"
    "paths, command lines, ids and foreign words of SQL are replaced by hashes that nobody can\n"
    "undo without this directory's store; documents, vectors and metadata are not read at all.\n"
    "What is in the bundle is printed. DIR is CHROMASHIM_DIR or ./chroma_data if not given.\n"
    "\n"
    "  -o, --output FILE   where it goes; - is standard output\n"
    "      --since TIME, --until TIME  an age (10m, 1h30m, 2d) or RFC 3339\n"
    "      --hash TEXT     prints what TEXT, such as a collection's name, is called in bundles of\n"
    "                      this directory, and makes none\n"
    "  -q, --quiet         do not print what is in it\n"
    "\n"
    "Exit status: 0 done, 3 done but of the log something is damaged or lost, 10 no store, 12 no\n"
    "such directory or no Chroma directory, 13 no space.\n";

/* ---- members ---- */

struct member {
	const char *name, *says;
	int (*make)(struct support *s);
};

static int make_versions(struct support *s)
{
	struct json *j = &s->json;
	const struct filesystem *kind;
	struct utsname name;
	struct statfs fs;

	json_begin(j, '{');
	json_put_text(j, "chromashim", version_own());
	json_put_text(j, "sqlite_of_the_command", sqlite3_libversion());
	json_put_text(j, "zstd", ZSTD_versionString());
	if (uname(&name) == 0) {
		json_put_text(j, "kernel", name.sysname);
		json_put_text(j, "release", name.release);
		json_put_text(j, "machine", name.machine);
	}
	json_put_uint(j, "processors", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
	json_put_uint(j, "memory_bytes",
		      (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE));
	if (fstatfs(s->in.data.dirfd, &fs) == 0) {
		kind = filesystem_find((uint64_t)fs.f_type);
		json_put_text(j, "filesystem", kind ? kind->name : NULL);
		json_put_uint(j, "filesystem_type", (uint64_t)fs.f_type);
		json_put_uint(j, "filesystem_bytes", (uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize);
		json_put_uint(j, "filesystem_free", (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize);
	}
	json_end(j, '}');
	return 0;
}

/* Texts may be paths and programs; all else is numbers and words that the settings themselves know.
 */
static int make_settings(struct support *s)
{
	static const char *const origins[] = {"default", "file", "environment", "option"};
	struct guard_settings settings;
	struct json *j = &s->json;
	unsigned key;

	guard_settings_read(&settings, s->in.data.storefd);
	json_begin(j, '{');
	for (key = 0; key < CONFIG_KEYS; key++) {
		const char *value = config_get(&settings.config, (enum config_key)key);

		json_key(j, config_settings[key].name);
		json_begin(j, '{');
		if (config_settings[key].kind == CONFIG_KIND_TEXT &&
		    strcmp(value, config_settings[key].otherwise) != 0)
			support_put_hash(s, "value", value);
		else
			json_put_text(j, "value", value);
		json_put_text(j, "from", origins[settings.config.values[key].origin]);
		json_end(j, '}');
	}
	json_end(j, '}');
	guard_settings_free(&settings);
	return 0;
}

/* The words of a finding may hold names and ids: only what is the same everywhere is told. */
static void put_finding(void *context, const struct diagnose_finding *f)
{
	const struct diagnose_kind *kind = &diagnose_kinds[f->code];
	struct support *s = context;

	json_begin(&s->json, '{');
	json_put_text(&s->json, "code", kind->code);
	json_put_text(&s->json, "severity", diagnose_severity_names[kind->severity]);
	support_put_hash(s, "collection", f->collection);
	support_put_path(s, "segment", f->segment);
	support_put_path(s, "file", f->file);
	json_end(&s->json, '}');
}

static int make_findings(struct support *s)
{
	const struct data_directory *t = &s->in.data;
	struct diagnose_options options = {
	    .storefd = t->storefd, .strayfd = t->strayfd, .report = put_finding, .context = s};
	struct diagnose_summary sum;
	struct json *j = &s->json;
	unsigned i;
	int r;

	json_begin(j, '{');
	json_key(j, "findings");
	json_begin(j, '[');
	r = diagnose_directory(t->dir, t->dirfd, &options, &sum);
	json_end(j, ']');
	if (r == 0) {
		for (i = 0; i < DIAGNOSE_SEVERITIES; i++)
			json_put_uint(j, diagnose_severity_names[i], sum.findings[i]);
		json_put_uint(j, "collections", sum.collections);
		json_put_uint(j, "records", sum.records);
		json_put_uint(j, "bytes", sum.bytes);
		json_put_text(j, "first_release", sum.era ? sum.era->first : NULL);
		json_put_text(j, "last_release", sum.era ? sum.era->last : NULL);
	}
	json_end(j, '}');
	return r;
}

static void put_columns(struct support *s, sqlite3 *db, const char *table)
{
	sqlite3_stmt *columns = NULL;
	char hashed[512];
	int r = database_prepare(db, &columns, "SELECT name, type FROM pragma_table_info(?)");

	json_key(&s->json, "columns");
	json_begin(&s->json, '[');
	if (r == 0)
		sqlite3_bind_text(columns, 1, table, -1, SQLITE_STATIC);
	while (r == 0 && database_step(columns) == 1) {
		const char *name = (const char *)sqlite3_column_text(columns, 0),
			   *type = (const char *)sqlite3_column_text(columns, 1);

		json_begin(&s->json, '{');
		json_put_text(&s->json, "name",
			      conceal_sql(&s->conceal, name ? name : "", hashed, sizeof(hashed)));
		json_put_text(&s->json, "type",
			      conceal_sql(&s->conceal, type ? type : "", hashed, sizeof(hashed)));
		json_end(&s->json, '}');
	}
	sqlite3_finalize(columns);
	json_end(&s->json, ']');
}

/* What is in a table as a number of rows; virtual tables are left out. */
static void put_table(struct support *s, sqlite3 *db, const char *table)
{
	char *sql = sqlite3_mprintf("SELECT count(*) FROM \"%w\"", table), hashed[512];
	int64_t rows = 0;

	json_begin(&s->json, '{');
	json_put_text(&s->json, "name", conceal_sql(&s->conceal, table, hashed, sizeof(hashed)));
	if (sql && database_number(db, sql, NULL, &rows) == 0)
		json_put_uint(&s->json, "rows", (uint64_t)rows);
	put_columns(s, db, table);
	json_end(&s->json, '}');
	sqlite3_free(sql);
}

static void put_pragma(struct support *s, sqlite3 *db, const char *name)
{
	char sql[64];
	int64_t value = 0;

	snprintf(sql, sizeof(sql), "PRAGMA %s", name);
	if (database_number(db, sql, NULL, &value) == 0)
		json_put_uint(&s->json, name, (uint64_t)value);
}

static int make_tables(struct support *s)
{
	static const char *const pragmas[] = {"page_size",    "page_count",	"freelist_count",
					      "user_version", "schema_version", "auto_vacuum"};
	sqlite3_stmt *tables = NULL;
	sqlite3 *db = NULL;
	int r = database_open_now(s->in.data.dir, s->in.data.dirfd, &db);
	size_t i;

	json_begin(&s->json, '{');
	for (i = 0; r == 0 && i < sizeof(pragmas) / sizeof(pragmas[0]); i++)
		put_pragma(s, db, pragmas[i]);
	json_key(&s->json, "tables");
	json_begin(&s->json, '[');
	if (r == 0)
		r = database_prepare(db, &tables,
				     "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql "
				     "NOT LIKE 'CREATE VIRTUAL%' ORDER BY name");
	while (r == 0 && database_step(tables) == 1) {
		const char *name = (const char *)sqlite3_column_text(tables, 0);

		if (name)
			put_table(s, db, name);
	}
	sqlite3_finalize(tables);
	json_end(&s->json, ']');
	json_put_text(&s->json, "error", r < 0 ? symbol_of_error(-r) : NULL);
	json_end(&s->json, '}');
	sqlite3_close(db);
	return 0;
}

/* What a program announces is a reason, too. */
static void put_reason(struct support *s, const char *reason)
{
	static const char *const own[] = {"manual",  "schedule", "schema", "bulk",   "remove",
					  "restore", "recover",	 "stop",   "damage", "start"};
	size_t i;

	for (i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (reason && !strcmp(own[i], reason)) {
			json_put_text(&s->json, "reason", reason);
			return;
		}
	support_put_hash(s, "reason", reason);
}

static int make_snapshots(struct support *s)
{
	const struct snapshots *list = &s->in.snapshots;
	struct json *j = &s->json;
	size_t i, c;

	json_begin(j, '[');
	for (i = 0; i < list->count; i++) {
		const struct manifest *m = &list->list[i];

		json_begin(j, '{');
		json_put_uint(j, "id", m->header.id);
		support_put_time(j, "time", m->header.time);
		json_put_text(j, "state", snapshot_state_name(m->header.state));
		put_reason(s, m->reason);
		json_put_uint(j, "size", manifest_total_size(m));
		json_put_uint(j, "changes_since", digest_records_since(s->d, m->header.time));
		json_key(j, "collections");
		json_begin(j, '[');
		for (c = 0; c < m->collection_count; c++) {
			json_begin(j, '{');
			support_put_hash(s, "name", m->collections[c].name);
			json_put_uint(j, "records", m->collections[c].records);
			json_end(j, '}');
		}
		json_end(j, ']');
		json_end(j, '}');
	}
	json_end(j, ']');
	return 0;
}

/* ---- the bundle ---- */

static const struct member members[] = {
    {"versions.json", "versions of chromashim, its libraries and the kernel; the file system",
     make_versions},
    {"settings.json", "the settings, and where each is from; paths hashed", make_settings},
    {"findings.json", "the codes of what check finds", make_findings},
    {"tables.json", "tables of the database: their columns, and how many rows", make_tables},
    {"snapshots.json", "snapshots: when, why, how large", make_snapshots},
    {"log.json", "the log in numbers: durations, files, collections, statements, processes",
     support_make_log},
    {"acts.jsonl", "the newest 20000 acts of the log: what, when, how long, how much",
     support_make_acts},
};
#define MEMBERS (sizeof(members) / sizeof(members[0]))

static void put_readme(FILE *out)
{
	size_t i;

	fputs("A bundle of `chromashim support`, to help with a Chroma directory from afar.\n\n",
	      out);
	for (i = 0; i < MEMBERS; i++)
		fprintf(out, "%-16s %s\n", members[i].name, members[i].says);
	fputs(
	    "\nNames of collections, paths, command lines and words of SQL that are not Chroma's "
	    "own "
	    "are\nhashes (x- and 16 digits), the same for the same name. Whoever has the directory "
	    "finds one\nby `chromashim support --hash NAME DIR`. There are no documents, vectors, "
	    "metadata or ids.\n",
	    out);
}

/* One member, made in memory, since its size stands before it. 0 or -errno. */
static int add_member(struct support *s, const char *name, const char *says,
		      int (*make)(struct support *))
{
	char *data = NULL, text[32];
	size_t size = 0;
	FILE *out = open_memstream(&data, &size);
	int r = 0;

	if (!out)
		return -ENOMEM;
	s->json = (struct json){.out = out};
	if (make)
		r = make(s);
	else
		put_readme(out);
	if (fclose(out) != 0 && r == 0)
		r = -ENOMEM;
	if (r == 0)
		r = tar_put(s->tar, name, data, size, clock_read(CLOCK_REALTIME) / SECOND);
	if (r == 0 && !s->quiet)
		fprintf(s->told, "%10s  %-16s %s\n", format_bytes(text, sizeof(text), size), name,
			says);
	free(data);
	return r;
}

static int write_bundle(struct support *s, const char *path)
{
	struct output o;
	size_t i;
	int r = output_open(&o, path, true);

	if (r < 0)
		return output_fail(r, path);
	s->tar = o.stream;
	r = add_member(s, "README.txt", "this list", NULL);
	for (i = 0; r == 0 && i < MEMBERS; i++)
		r = add_member(s, members[i].name, members[i].says, members[i].make);
	if (r == 0)
		r = tar_end(s->tar);
	if (r < 0) {
		output_abort(&o);
		return output_fail(r, path);
	}
	r = output_close(&o);
	if (r < 0)
		return output_fail(r, path);
	if (!s->quiet)
		fprintf(s->told, "Names, paths and command lines in it are hashes; documents, "
				 "vectors, metadata and "
				 "ids are not in it.\n");
	return s->in.lost || s->in.damaged || s->in.unreadable ? EXIT_WARNINGS : EXIT_DONE;
}

static int print_hash(struct support *s, const char *dir, const char *text)
{
	char hashed[CONCEAL_SIZE];
	int status = data_directory_open(&s->in.data, dir, true);

	if (status == 0) {
		memcpy(s->conceal.key, s->in.data.store_id, sizeof(s->conceal.key));
		puts(conceal_text(&s->conceal, text, hashed));
	}
	data_directory_close(&s->in.data);
	return status;
}

static int make_bundle(struct support *s, const char *path, const char *dir,
		       const struct digest_options *o)
{
	int status = digest_input_open(&s->in, dir, o);

	if (status == 0) {
		s->d = s->in.digest;
		s->told = strcmp(path, "-") == 0 ? stderr : stdout;
		memcpy(s->conceal.key, s->in.data.store_id, sizeof(s->conceal.key));
		status = write_bundle(s, path);
	}
	digest_input_close(&s->in);
	return status;
}

int command_support(int argc, char **argv)
{
	enum { SINCE = 256, UNTIL, HASH };
	static const struct option options[] = {
	    {"output", required_argument, NULL, 'o'},  {"since", required_argument, NULL, SINCE},
	    {"until", required_argument, NULL, UNTIL}, {"hash", required_argument, NULL, HASH},
	    {"quiet", no_argument, NULL, 'q'},	       {NULL, 0, NULL, 0}};
	struct digest_options digest = {.tables = true};
	const char *output = NULL, *hash = NULL;
	struct support s = {.quiet = false};
	int option;

	while ((option = getopt_long(argc, argv, "o:q", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("support");
		if ((option == SINCE || option == UNTIL) &&
		    !parse_time(optarg, option == SINCE ? &digest.since : &digest.until))
			return fail(EXIT_USAGE, 0, "See `chromashim help support`.",
				    "'%s' is not a time (10m, 2h30m, 2026-01-31T10:00:00Z)",
				    optarg);
		output = option == 'o' ? optarg : output;
		hash = option == HASH ? optarg : hash;
		s.quiet = s.quiet || option == 'q';
	}
	if (argc - optind > 1)
		return fail(EXIT_USAGE, 0, "See `chromashim help support`.",
			    "support takes one directory, and there are %d", argc - optind);
	if (hash)
		return print_hash(&s, argv[optind], hash);
	if (!output)
		return fail(EXIT_USAGE, 0, "Say where the bundle goes: -o bundle.tar.zst",
			    "support needs a name for its output");
	return make_bundle(&s, output, argv[optind], &digest);
}
