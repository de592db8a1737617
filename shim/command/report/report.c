/* SPDX-License-Identifier: MIT
 *
 * `chromashim report`: what happened, in one page.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/output.h"
#include "command/base/terminal.h"
#include "command/report/page.h"
#include "core/chroma/chroma.h"
#include "core/sqlite/database.h"

const char report_usage[] =
    "Usage: chromashim report [OPTION]... -o FILE [DIR]\n"
    "\n"
    "Writes one page of HTML about what happened in a Chroma directory: on top what ended the\n"
    "backend, what was acknowledged last, what was under way, who else was there, and what a\n"
    "snapshot would lose; then which files were written when, how long things took, what grew,\n"
    "and what to change. The page needs no network and no scripts, and can be printed. It has\n"
    "names of collections, command lines and statements without values, but no documents,\n"
    "vectors, metadata or ids. DIR is CHROMASHIM_DIR or ./chroma_data if not given.\n"
    "\n"
    "  -o, --output FILE   where it goes; - is standard output\n"
    "      --since TIME, --until TIME  an age (10m, 1h30m, 2d) or RFC 3339\n"
    "      --no-check      do not look through the files as they are now\n"
    "      --utc           times in UTC\n"
    "  -q, --quiet         no word about it\n"
    "\n"
    "Exit status: 0 done, 3 done but of the log something is damaged or lost, 10 no store, 12 no\n"
    "such directory or no Chroma directory, 13 no space.\n";

/* ---- what the directory says now ---- */

static uint64_t size_of_index(const struct page *p, const char *segment)
{
	static const char *const names[] = {"header.bin", "data_level0.bin", "length.bin",
					    "link_lists.bin", "index_metadata.pickle"};
	uint64_t sum = 0;
	char path[128];
	struct stat st;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]) && *segment; i++) {
		snprintf(path, sizeof(path), "%s/%s", segment, names[i]);
		if (fstatat(p->in->data.dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
			sum += (uint64_t)st.st_size;
	}
	return sum;
}

static int note_collection(void *context, const struct chroma_collection *c)
{
	struct page *p = context;
	struct page_collection *list = realloc(p->collections,
					       (p->collection_count + 1) * sizeof(*list)),
			       *one;

	if (!list)
		return -ENOMEM;
	p->collections = list;
	one = &list[p->collection_count++];
	memset(one, 0, sizeof(*one));
	strlcpy(one->id, c->id, sizeof(one->id));
	strlcpy(one->vector_segment, c->vector_segment, sizeof(one->vector_segment));
	digest_text(one->name, sizeof(one->name), c->name ? c->name : "",
		    c->name ? strlen(c->name) : 0);
	one->sync_threshold = c->sync_threshold;
	one->dimension = c->dimension;
	one->bytes = size_of_index(p, c->vector_segment);
	return 0;
}

static void count_records(struct page *p, sqlite3 *db)
{
	size_t i;

	for (i = 0; i < p->collection_count; i++) {
		int64_t n = 0;

		if (database_number(db,
				    "SELECT count(*) FROM embeddings e JOIN segments s ON s.id = "
				    "e.segment_id WHERE s.collection = ?",
				    p->collections[i].id, &n) == 0 &&
		    n > 0)
			p->collections[i].records = (uint64_t)n;
	}
}

static void look_at_database(struct page *p)
{
	int64_t size = 0, free_pages = 0;
	sqlite3 *db = NULL;
	struct stat st;

	if (fstatat(p->in->data.dirfd, CHROMA_DATABASE, &st, 0) == 0)
		p->database_bytes = (uint64_t)st.st_size;
	if (database_open_now(p->in->data.dir, p->in->data.dirfd, &db) == 0) {
		chroma_each_collection(db, note_collection, p);
		count_records(p, db);
		if (database_number(db, "PRAGMA page_size", NULL, &size) == 0 &&
		    database_number(db, "PRAGMA freelist_count", NULL, &free_pages) == 0)
			p->free_bytes = (uint64_t)size * (uint64_t)free_pages;
	}
	sqlite3_close(db);
}

static void note_finding(void *context, const struct diagnose_finding *f)
{
	struct page *p = context;
	struct page_finding *one;
	char where[1024];

	if (p->finding_count == PAGE_FINDINGS)
		return;
	one = &p->findings[p->finding_count++];
	one->code = f->code;
	snprintf(where, sizeof(where), "%.300s%s%.300s", f->collection ? f->collection : "",
		 f->collection && f->file ? ", " : "", f->file ? f->file : "");
	digest_text(one->where, sizeof(one->where), where, strlen(where));
	digest_text(one->detail, sizeof(one->detail), f->detail ? f->detail : "",
		    f->detail ? strlen(f->detail) : 0);
}

static void look_at_directory(struct page *p, bool check)
{
	const struct data_directory *t = &p->in->data;
	struct diagnose_options options = {
	    .storefd = t->storefd, .strayfd = t->strayfd, .report = note_finding, .context = p};
	struct statvfs room;

	if (fstatvfs(t->dirfd, &room) == 0) {
		p->disk_total = (uint64_t)room.f_blocks * room.f_frsize;
		p->disk_free = (uint64_t)room.f_bavail * room.f_frsize;
	}
	look_at_database(p);
	p->findings = check ? calloc(PAGE_FINDINGS, sizeof(*p->findings)) : NULL;
	if (p->findings)
		p->checked = diagnose_directory(t->dir, t->dirfd, &options, &p->summary) == 0;
}

/* ---- the page ---- */

static void write_page(struct page *p)
{
	page_head(p);
	page_answers(p);
	page_advice(p);
	page_heat_map(p);
	page_time_line(p);
	page_latencies(p);
	page_growth(p);
	page_transactions(p);
	page_callers(p);
	page_snapshots(p);
	page_processes(p);
	page_findings(p);
	page_words(p);
	page_foot(p);
}

struct arguments {
	struct digest_options digest;
	const char *output, *dir;
	bool check, utc, quiet;
};

static int write_report(struct digest_input *in, const struct arguments *a)
{
	struct page p = {.in = in, .d = in->digest, .utc = a->utc};
	struct output o;
	int r = output_open(&o, a->output, false);

	if (r < 0)
		return output_fail(r, a->output);
	p.out = o.stream;
	look_at_directory(&p, a->check);
	r = answers_find(&p.answers, in);
	if (r == 0)
		write_page(&p);
	answers_free(&p.answers);
	free(p.findings);
	free(p.collections);
	if (r < 0) {
		output_abort(&o);
		return fail(exit_code_of(r), r, "Try again with more memory free.",
			    "cannot write the report on '%s'", in->data.dir);
	}
	r = output_close(&o);
	if (r < 0)
		return output_fail(r, a->output);
	if (!a->quiet && strcmp(a->output, "-") != 0)
		printf("report on %s written to %s\n", in->data.dir, a->output);
	return in->lost || in->damaged || in->unreadable ? EXIT_WARNINGS : EXIT_DONE;
}

static int parse_arguments(struct arguments *a, int argc, char **argv)
{
	enum { SINCE = 256, UNTIL, NO_CHECK, UTC };
	static const struct option options[] = {{"output", required_argument, NULL, 'o'},
						{"since", required_argument, NULL, SINCE},
						{"until", required_argument, NULL, UNTIL},
						{"no-check", no_argument, NULL, NO_CHECK},
						{"utc", no_argument, NULL, UTC},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	int option;

	*a = (struct arguments){.check = true, .digest.tables = true};
	while ((option = getopt_long(argc, argv, "o:q", options, NULL)) != -1) {
		switch (option) {
		case 'o':
			a->output = optarg;
			break;
		case SINCE:
		case UNTIL:
			if (!parse_time(optarg,
					option == SINCE ? &a->digest.since : &a->digest.until))
				return fail(EXIT_USAGE, 0, "See `chromashim help report`.",
					    "'%s' is not a time (10m, 2h30m, 2026-01-31T10:00:00Z)",
					    optarg);
			break;
		case NO_CHECK:
			a->check = false;
			break;
		case UTC:
			a->utc = true;
			break;
		case 'q':
			a->quiet = true;
			break;
		default:
			return fail_usage("report");
		}
	}
	if (argc - optind > 1)
		return fail(EXIT_USAGE, 0, "See `chromashim help report`.",
			    "report takes one directory, and there are %d", argc - optind);
	if (!a->output)
		return fail(EXIT_USAGE, 0, "Say where the page goes: -o report.html",
			    "report needs a name for its output");
	a->dir = argv[optind];
	return 0;
}

int command_report(int argc, char **argv)
{
	struct arguments a;
	struct digest_input in;
	int status = parse_arguments(&a, argc, argv);

	if (status)
		return status;
	status = digest_input_open(&in, a.dir, &a.digest);
	if (status == 0 && !in.digest->entries)
		status = digest_input_nothing(&in);
	if (status == 0)
		status = write_report(&in, &a);
	digest_input_close(&in);
	return status;
}
