/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --stats`: counts, bytes and latencies, by operation and by file.
 *
 * Latencies are kept in classes 3 percent wide, so that memory does not grow with the log; a
 * percentile is the upper end of its class, the maximum is exact.
 */
#include "command/log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/sys/tree.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "core/oplog/oplog.h"

#define STEPS 32 /* classes from one power of two to the next */
#define CLASSES (STEPS * 60)

struct stats_row {
	RB_ENTRY(stats_row) link;
	char *name;
	uint64_t count, failed, in_flight;
	uint64_t read, written;	    /* bytes */
	uint64_t timed, total, max; /* ns */
	uint32_t *classes;
};

RB_HEAD(stats_tree, stats_row);

struct stats_sink {
	struct log_sink sink;
	struct stats_tree ops, files;
	uint64_t records, first, last;
	bool json, utc;
};

static int compare_rows(struct stats_row *a, struct stats_row *b)
{
	return strcmp(a->name, b->name);
}

RB_GENERATE_INTERNAL(stats_tree, stats_row, link, compare_rows, static __attribute__((unused)))

/* ---- latencies ---- */

static unsigned class_of(uint64_t ns)
{
	unsigned power;

	if (ns < STEPS)
		return (unsigned)ns;
	power = 63u - (unsigned)__builtin_clzll(ns);
	return (power - 4) * STEPS + (unsigned)(ns >> (power - 5) & (STEPS - 1));
}

/* Gives the greatest duration that falls into a class. */
static uint64_t top_of(unsigned class)
{
	unsigned power = class / STEPS + 4;

	if (class < STEPS)
		return class;
	return ((UINT64_C(1) << 5 | class % STEPS) + 1) * (UINT64_C(1) << (power - 5)) - 1;
}

static uint64_t percentile(const struct stats_row *row, unsigned percent)
{
	uint64_t rank = (row->timed * percent + 99) / 100, seen = 0;
	unsigned i;

	for (i = 0; i < CLASSES; i++) {
		seen += row->classes[i];
		if (seen >= rank && seen)
			return top_of(i) < row->max ? top_of(i) : row->max;
	}
	return row->max;
}

/* ---- counting ---- */

static struct stats_row *row_of(struct stats_tree *tree, const char *name)
{
	struct stats_row key = {.name = (char *)(uintptr_t)name}, *row;

	row = RB_FIND(stats_tree, tree, &key);
	if (row)
		return row;
	row = calloc(1, sizeof(*row));
	if (!row)
		return NULL;
	row->name = strdup(name);
	row->classes = calloc(CLASSES, sizeof(*row->classes));
	if (!row->name || !row->classes) {
		free(row->classes);
		free(row->name);
		free(row);
		return NULL;
	}
	RB_INSERT(stats_tree, tree, row);
	return row;
}

static void count_bytes(struct stats_row *row, const struct oplog_entry *e)
{
	uint64_t bytes = e->result > 0 ? (uint64_t)e->result : 0;

	if (e->in_flight)
		return;
	if (e->op >= OP_READ && e->op <= OP_PREADV)
		row->read += bytes;
	else if (e->op >= OP_WRITE && e->op <= OP_SPLICE)
		row->written += bytes;
	else if (e->op == OP_TXN_COMMIT)
		row->written += e->length;
}

static void count(struct stats_row *row, const struct oplog_entry *e)
{
	unsigned class;

	row->count++;
	row->failed += log_has_failed(e);
	count_bytes(row, e);
	if (e->in_flight) {
		row->in_flight++;
		return;
	}
	class = class_of(e->duration);
	row->classes[class < CLASSES ? class : CLASSES - 1]++;
	row->timed++;
	row->total += e->duration;
	if (e->duration > row->max)
		row->max = e->duration;
}

static int stats_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct stats_sink *s = (struct stats_sink *)sink;
	struct log_meaning m;
	struct stats_row *row;

	log_explain(e, &m);
	row = row_of(&s->ops, m.op);
	if (!row)
		return -ENOMEM;
	count(row, e);
	if (s->records++ == 0)
		s->first = e->time;
	s->last = e->time;
	/* What SQLite and transactions say would count a file's bytes twice. */
	if (!m.path || e->kind != OPLOG_NAME_FILE || e->op >= OP_SQL_COPY)
		return 0;
	row = row_of(&s->files, m.path);
	if (!row)
		return -ENOMEM;
	count(row, e);
	return 0;
}

/* ---- printing ---- */

static void print_json_rows(struct json *j, const char *key, const char *name_key,
			    struct stats_tree *tree)
{
	struct stats_row *row;

	json_key(j, key);
	json_begin(j, '[');
	RB_FOREACH (row, stats_tree, tree) {
		struct {
			const char *key;
			uint64_t value;
		} numbers[] = {
		    {"count", row->count},
		    {"failed", row->failed},
		    {"in_flight", row->in_flight},
		    {"bytes_read", row->read},
		    {"bytes_written", row->written},
		    {"total_ns", row->total},
		    {"p50_ns", percentile(row, 50)},
		    {"p99_ns", percentile(row, 99)},
		    {"max_ns", row->max},
		};
		size_t i;

		json_begin(j, '{');
		json_key(j, name_key);
		json_string(j, row->name);
		for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
			json_key(j, numbers[i].key);
			json_uint(j, numbers[i].value);
		}
		json_end(j, '}');
	}
	json_end(j, ']');
}

static void print_json(struct stats_sink *s)
{
	struct json j = {.out = stdout};
	char when[40];

	json_begin(&j, '{');
	json_key(&j, "schema_version");
	json_uint(&j, SCHEMA_VERSION);
	json_key(&j, "records");
	json_uint(&j, s->records);
	json_key(&j, "first");
	json_string(&j, s->records ? format_time_utc(when, sizeof(when), s->first) : NULL);
	json_key(&j, "last");
	json_string(&j, s->records ? format_time_utc(when, sizeof(when), s->last) : NULL);
	print_json_rows(&j, "operations", "op", &s->ops);
	print_json_rows(&j, "files", "path", &s->files);
	json_end(&j, '}');
	json_newline(&j);
}

/* printf() pads by bytes, and a µ has two. */
static void put_right(const char *text, size_t columns)
{
	size_t n = terminal_columns(text);

	printf("%*s%s", (int)(n < columns ? columns - n : 0), "", text);
}

static void print_rows(const char *title, struct stats_tree *tree)
{
	int width = terminal_width();
	size_t room = width > 90 ? (size_t)width - 68 : 22;
	struct stats_row *row;
	char name[4200], number[32];

	if (RB_EMPTY(tree))
		return;
	printf("%s%10s %8s %12s %11s %11s %11s  %s%s\n", terminal_colour(COLOUR_BOLD), "count",
	       "failed", "bytes", "p50", "p99", "max", title, terminal_colour(COLOUR_PLAIN));
	RB_FOREACH (row, stats_tree, tree) {
		printf("%10" PRIu64 " ", row->count);
		if (row->failed)
			printf("%s%8" PRIu64 "%s ", terminal_colour(COLOUR_RED), row->failed,
			       terminal_colour(COLOUR_PLAIN));
		else
			printf("%8s ", "-");
		put_right(row->read + row->written
			      ? format_bytes(number, sizeof(number), row->read + row->written)
			      : "-",
			  12);
		putchar(' ');
		put_right(format_duration(number, sizeof(number), percentile(row, 50)), 11);
		putchar(' ');
		put_right(format_duration(number, sizeof(number), percentile(row, 99)), 11);
		putchar(' ');
		put_right(format_duration(number, sizeof(number), row->max), 11);
		terminal_fit(name, sizeof(name), row->name, width ? room : 0);
		printf("  %s\n", name);
	}
}

static int stats_end(struct log_sink *sink)
{
	struct stats_sink *s = (struct stats_sink *)sink;
	char first[40], last[40];

	if (s->json) {
		print_json(s);
		return 0;
	}
	if (!s->records) {
		printf("no records\n");
		return 0;
	}
	printf("%" PRIu64 " records, %s to %s\n\n", s->records,
	       format_time(first, sizeof(first), s->first, s->utc),
	       format_time(last, sizeof(last), s->last, s->utc));
	print_rows("operation", &s->ops);
	putchar('\n');
	print_rows("file", &s->files);
	return 0;
}

static void free_tree(struct stats_tree *tree)
{
	struct stats_row *row;

	while ((row = RB_ROOT(tree))) {
		RB_REMOVE(stats_tree, tree, row);
		free(row->name);
		free(row->classes);
		free(row);
	}
}

static void stats_free(struct log_sink *sink)
{
	struct stats_sink *s = (struct stats_sink *)sink;

	free_tree(&s->ops);
	free_tree(&s->files);
	free(s);
}

struct log_sink *log_stats_sink(const struct log_options *options)
{
	struct stats_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->sink.entry = stats_entry;
	s->sink.end = stats_end;
	s->sink.free = stats_free;
	s->json = options->json;
	s->utc = options->utc;
	return &s->sink;
}
