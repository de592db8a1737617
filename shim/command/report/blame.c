/* SPDX-License-Identifier: MIT
 *
 * `chromashim blame`: what made the directory grow, what made it slow, what made it sync.
 *
 * Each question is asked of files, collections, tables, statements and processes apart: what a
 * transaction took is in its statement's time as well as in its process's.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "command/digest/input.h"
#include "core/base/json.h"
#include "core/oplog/oplog.h"

const char blame_usage[] =
    "Usage: chromashim blame [OPTION]... [DIR]\n"
    "\n"
    "Tells what made a Chroma directory grow, what made it slow, and what made it sync (wait for\n"
    "the disk): which files, collections, tables, statements and processes, the greatest first,\n"
    "with their share; with CHROMASHIM_LOG_CALLER=python also which lines of the program. DIR is\n"
    "CHROMASHIM_DIR or ./chroma_data if not given.\n"
    "\n"
    "      --since TIME, --until TIME  an age (10m, 1h30m, 2d) or RFC 3339\n"
    "      --top N           so many of each (default 5)\n"
    "      --json            one JSON object\n"
    "      --utc             times in UTC\n"
    "\n"
    "Exit status: 0 done, 3 done but of the log something is damaged or lost, 10 no store, 12 no\n"
    "such directory, no Chroma directory, or nothing in that time.\n";

#define TOP_DEFAULT 5
#define TOP_MAX 100

enum unit { UNIT_BYTES, UNIT_TIME, UNIT_NUMBER };

struct culprit {
	uint64_t value;
	char name[DIGEST_TEXT];
	char note[160];
};

struct blame {
	struct digest_input in;
	const struct digest *d;
	uint32_t top;
	bool json, utc, any;
	struct json out;
};

/* ---- telling ---- */

static const char *format_value(char *out, size_t room, enum unit unit, uint64_t value)
{
	if (unit == UNIT_BYTES)
		return format_bytes(out, room, value);
	if (unit == UNIT_TIME)
		return format_duration(out, room, value);
	snprintf(out, room, "%" PRIu64, value);
	return out;
}

static void text_row(const struct culprit *c, enum unit unit, uint64_t total)
{
	char value[32], name[2 * DIGEST_TEXT];
	int width = terminal_width();
	size_t columns;

	format_value(value, sizeof(value), unit, c->value);
	columns = terminal_columns(value);
	terminal_fit(name, sizeof(name), c->name, width > 60 ? (size_t)width - 40 : 0);
	printf("  %*s%s %4" PRIu64 " %%  %s", columns < 10 ? (int)(10 - columns) : 0, "", value,
	       total ? c->value * 100 / total : 0, name);
	if (c->note[0])
		printf("  (%s)", c->note);
	putchar('\n');
}

static void json_row(struct blame *b, const struct culprit *c, enum unit unit)
{
	static const char *const keys[] = {"bytes", "ns", "count"};

	json_begin(&b->out, '{');
	json_put_text(&b->out, "name", c->name);
	json_put_uint(&b->out, keys[unit], c->value);
	json_put_text(&b->out, "note", c->note);
	json_end(&b->out, '}');
}

static int compare_culprits(const void *a, const void *b)
{
	const struct culprit *x = a, *y = b;

	return x->value > y->value ? -1 : x->value < y->value;
}

/* One list of a question; nothing of one in which nothing is. */
static void tell(struct blame *b, const char *what, enum unit unit, struct culprit *list,
		 size_t count)
{
	uint64_t total = 0;
	size_t i;

	for (i = 0; i < count; i++)
		total += list[i].value;
	qsort(list, count, sizeof(*list), compare_culprits);
	if (b->json) {
		json_key(&b->out, what);
		json_begin(&b->out, '[');
	} else if (total) {
		printf("by %s:\n", what);
	}
	for (i = 0; i < count && i < b->top && list[i].value; i++) {
		if (b->json)
			json_row(b, &list[i], unit);
		else
			text_row(&list[i], unit, total);
	}
	if (b->json)
		json_end(&b->out, ']');
	else if (total && count > b->top)
		printf("  %10s         and %zu more\n", "", count - b->top);
	b->any = b->any || total;
}

static void ask(struct blame *b, const char *key, const char *question)
{
	b->any = false;
	if (b->json) {
		json_key(&b->out, key);
		json_begin(&b->out, '{');
	} else {
		printf("\n%s%s%s\n", terminal_colour(COLOUR_BOLD), question,
		       terminal_colour(COLOUR_PLAIN));
	}
}

static void answered(struct blame *b)
{
	if (b->json)
		json_end(&b->out, '}');
	else if (!b->any)
		printf("  nothing, as far as the log tells\n");
}

/* ---- finding ---- */

typedef uint64_t row_note(const struct digest_row *row, char note[160]);

static int tell_rows(struct blame *b, const char *what, enum unit unit, enum digest_table table,
		     row_note *value_of)
{
	const struct digest_rows *rows = &b->d->tables[table];
	struct culprit *list = calloc(rows->count + 1, sizeof(*list));
	size_t count = 0, i;

	if (!list)
		return -ENOMEM;
	for (i = 0; i < rows->count; i++) {
		struct culprit *c = &list[count];

		c->note[0] = '\0';
		c->value = value_of(rows->list[i], c->note);
		if (!c->value)
			continue;
		digest_name(&b->in, rows->list[i]->name, c->name, sizeof(c->name));
		count++;
	}
	tell(b, what, unit, list, count);
	free(list);
	return 0;
}

typedef uint64_t process_note(const struct digest_process *p, char note[160]);

static int tell_processes(struct blame *b, enum unit unit, process_note *value_of)
{
	const struct digest *d = b->d;
	struct culprit *list = calloc(d->process_count + 1, sizeof(*list));
	size_t count = 0, i;

	if (!list)
		return -ENOMEM;
	for (i = 0; i < d->process_count; i++) {
		struct culprit *c = &list[count];

		c->note[0] = '\0';
		c->value = value_of(d->processes[i], c->note);
		if (!c->value)
			continue;
		snprintf(c->name, sizeof(c->name), "%" PRIu32 " %.220s",
			 d->processes[i]->header.pid, d->processes[i]->command);
		count++;
	}
	tell(b, "process", unit, list, count);
	free(list);
	return 0;
}

static uint64_t file_grown(const struct digest_row *row, char note[160])
{
	char text[32];

	snprintf(note, 160, "%s written", format_bytes(text, sizeof(text), row->written));
	return row->grown;
}

static uint64_t file_written(const struct digest_row *row, char note[160])
{
	snprintf(note, 160, "%" PRIu64 " writes%s", row->writes,
		 row->size_known ? "" : "; its size before is not known");
	return row->written;
}

static uint64_t collection_records(const struct digest_row *row, char note[160])
{
	snprintf(note, 160,
		 "%" PRIu64 " added, %" PRIu64 " updated, %" PRIu64 " upserted, %" PRIu64
		 " deleted, in %" PRIu64 " commit%s",
		 row->added, row->updated, row->upserted, row->deleted, row->commits,
		 row->commits == 1 ? "" : "s");
	return digest_changes(row);
}

static uint64_t caller_records(const struct digest_row *row, char note[160])
{
	snprintf(note, 160, "changes of records in %" PRIu64 " commit%s, %" PRIu64 " deleted",
		 row->commits, row->commits == 1 ? "" : "s", row->deleted);
	return digest_changes(row);
}

static uint64_t caller_time(const struct digest_row *row, char note[160])
{
	char most[32];

	snprintf(note, 160, "%" PRIu64 " transaction%s, %" PRIu64 " persist%s, slowest %s",
		 row->calls - row->syncs, row->calls - row->syncs == 1 ? "" : "s", row->syncs,
		 row->syncs == 1 ? "" : "s", format_duration(most, sizeof(most), row->max_ns));
	return row->call_ns;
}

static uint64_t caller_syncs(const struct digest_row *row, char note[160])
{
	snprintf(note, 160, "in %" PRIu64 " persist%s", row->syncs, row->syncs == 1 ? "" : "s");
	return row->sync_ns;
}

static uint64_t page_written(const struct digest_row *row, char note[160])
{
	snprintf(note, 160, "%" PRIu64 " pages", row->writes);
	return row->written;
}

static uint64_t statement_time(const struct digest_row *row, char note[160])
{
	char text[32];

	snprintf(note, 160, "%" PRIu64 " runs, slowest %s", row->calls,
		 format_duration(text, sizeof(text), row->max_ns));
	return row->call_ns;
}

static uint64_t file_time(const struct digest_row *row, char note[160])
{
	char text[32], most[32];

	snprintf(note, 160, "%" PRIu64 " calls, of it %s in syncs, slowest %s", row->calls,
		 format_duration(text, sizeof(text), row->sync_ns),
		 format_duration(most, sizeof(most), row->max_ns));
	return row->call_ns;
}

static uint64_t persist_time(const struct digest_row *row, char note[160])
{
	char text[32], most[32];

	snprintf(note, 160, "%" PRIu64 " persists, of it %s waiting for the disk, slowest %s",
		 row->calls, format_duration(text, sizeof(text), row->sync_ns),
		 format_duration(most, sizeof(most), row->max_ns));
	return row->call_ns;
}

static uint64_t file_syncs(const struct digest_row *row, char note[160])
{
	snprintf(note, 160, "%" PRIu64 " syncs", row->syncs);
	return row->sync_ns;
}

static uint64_t persist_syncs(const struct digest_row *row, char note[160])
{
	snprintf(note, 160, "in %" PRIu64 " persists", row->calls);
	return row->sync_ns;
}

static uint64_t process_written(const struct digest_process *p, char note[160])
{
	snprintf(note, 160, "%" PRIu64 " changes of records", p->records);
	return p->written;
}

static uint64_t process_time(const struct digest_process *p, char note[160])
{
	snprintf(note, 160, "in %" PRIu64 " transactions", p->commits);
	return p->commit_ns;
}

static uint64_t process_syncs(const struct digest_process *p, char note[160])
{
	snprintf(note, 160, "%" PRIu64 " syncs in %" PRIu64 " transactions", p->syncs, p->commits);
	return p->sync_ns;
}

/* Operations outside of what other lists tell: waiting for locks, opening, removing. */
static int tell_operations(struct blame *b)
{
	const struct digest *d = b->d;
	struct culprit *list = calloc(256, sizeof(*list));
	size_t count = 0;
	unsigned op;

	if (!list)
		return -ENOMEM;
	for (op = OP_OPEN; op < OP_SQL_COPY; op++) {
		struct culprit *c = &list[count];
		char text[32];

		if (!d->ops[op].total || !oplog_op_name(op))
			continue;
		c->value = d->ops[op].total;
		snprintf(c->name, sizeof(c->name), "%s", oplog_op_name(op));
		snprintf(c->note, sizeof(c->note), "%" PRIu64 " calls, 99 of 100 within %s",
			 d->ops[op].count,
			 format_duration(text, sizeof(text), latency_percentile(&d->ops[op], 99)));
		count++;
	}
	tell(b, "operation", UNIT_TIME, list, count);
	free(list);
	return 0;
}

/* ---- the three questions ---- */

static int blame_growth(struct blame *b)
{
	int r;

	ask(b, "grow", "What made it grow");
	r = tell_rows(b, "file", UNIT_BYTES, DIGEST_FILES, file_grown);
	if (r == 0)
		r = tell_rows(b, "collection", UNIT_NUMBER, DIGEST_COLLECTIONS, collection_records);
	if (r == 0)
		r = tell_rows(b, "line", UNIT_NUMBER, DIGEST_CALLERS, caller_records);
	answered(b);
	if (r == 0) {
		ask(b, "write", "What wrote");
		r = tell_rows(b, "file", UNIT_BYTES, DIGEST_FILES, file_written);
	}
	if (r == 0)
		r = tell_rows(b, "table", UNIT_BYTES, DIGEST_PAGES, page_written);
	if (r == 0)
		r = tell_processes(b, UNIT_BYTES, process_written);
	answered(b);
	return r;
}

static int blame_time(struct blame *b)
{
	int r;

	ask(b, "slow", "What made it slow");
	r = tell_operations(b);
	if (r == 0)
		r = tell_rows(b, "file", UNIT_TIME, DIGEST_FILES, file_time);
	if (r == 0)
		r = tell_rows(b, "index", UNIT_TIME, DIGEST_SEGMENTS, persist_time);
	if (r == 0)
		r = tell_rows(b, "statement", UNIT_TIME, DIGEST_STATEMENTS, statement_time);
	if (r == 0)
		r = tell_rows(b, "line", UNIT_TIME, DIGEST_CALLERS, caller_time);
	if (r == 0)
		r = tell_processes(b, UNIT_TIME, process_time);
	answered(b);
	return r;
}

static int blame_syncs(struct blame *b)
{
	int r;

	ask(b, "sync", "What made it sync");
	r = tell_rows(b, "file", UNIT_TIME, DIGEST_FILES, file_syncs);
	if (r == 0)
		r = tell_rows(b, "index", UNIT_TIME, DIGEST_SEGMENTS, persist_syncs);
	if (r == 0)
		r = tell_rows(b, "line", UNIT_TIME, DIGEST_CALLERS, caller_syncs);
	if (r == 0)
		r = tell_processes(b, UNIT_TIME, process_syncs);
	answered(b);
	return r;
}

static void blame_begin(struct blame *b)
{
	const struct digest *d = b->d;
	char from[40], to[40], took[32];

	if (b->json) {
		b->out.out = stdout;
		json_begin(&b->out, '{');
		json_put_uint(&b->out, "schema_version", SCHEMA_VERSION);
		json_put_text(&b->out, "directory", b->in.data.dir);
		json_put_text(&b->out, "from", format_time_utc(from, sizeof(from), d->first));
		json_put_text(&b->out, "to", format_time_utc(to, sizeof(to), d->last));
		json_put_uint(&b->out, "entries", d->entries);
		return;
	}
	printf("%.19s to %.19s%s, %s: %" PRIu64 " entries of the log\n",
	       format_time(from, sizeof(from), d->first, b->utc),
	       format_time(to, sizeof(to), d->last, b->utc), b->utc ? " UTC" : "",
	       format_duration(took, sizeof(took), d->last - d->first), d->entries);
}

static int blame(struct blame *b)
{
	int r;

	b->d = b->in.digest;
	if (!b->d->entries)
		return digest_input_nothing(&b->in);
	blame_begin(b);
	r = blame_growth(b);
	if (r == 0)
		r = blame_time(b);
	if (r == 0)
		r = blame_syncs(b);
	if (b->json) {
		json_end(&b->out, '}');
		json_newline(&b->out);
	}
	if (r < 0)
		return fail(exit_code_of(r), r, "Try again with more memory free.",
			    "cannot go on with the log of '%s'", b->in.data.dir);
	return b->in.lost || b->in.damaged || b->in.unreadable ? EXIT_WARNINGS : EXIT_DONE;
}

int command_blame(int argc, char **argv)
{
	enum { SINCE = 256, UNTIL, TOP, JSON, UTC };
	static const struct option options[] = {
	    {"since", required_argument, NULL, SINCE}, {"until", required_argument, NULL, UNTIL},
	    {"top", required_argument, NULL, TOP},     {"json", no_argument, NULL, JSON},
	    {"utc", no_argument, NULL, UTC},	       {NULL, 0, NULL, 0}};
	struct digest_options digest = {.tables = true};
	struct blame b = {.top = TOP_DEFAULT};
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		bool good = option != '?';

		if (option == SINCE || option == UNTIL)
			good = parse_time(optarg, option == SINCE ? &digest.since : &digest.until);
		if (option == TOP)
			good = parse_number(optarg, &b.top) && b.top <= TOP_MAX;
		if (!good && option != '?')
			warn("'%s' is not %s", optarg,
			     option == TOP ? "a number up to 100"
					   : "a time (10m, 2h30m, 2026-01-31T10:00:00Z)");
		if (!good)
			return fail_usage("blame");
		b.json = b.json || option == JSON;
		b.utc = b.utc || option == UTC;
	}
	if (argc - optind > 1) {
		warn("blame takes one directory");
		return fail_usage("blame");
	}
	status = digest_input_open(&b.in, argv[optind], &digest);
	if (status == 0)
		status = blame(&b);
	digest_input_close(&b.in);
	return status;
}
