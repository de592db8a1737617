/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --stats`: counts, bytes and latencies, by operation and by file.
 */
#include "command/log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/sys/tree.h>

#include "command/base/command.h"
#include "command/base/latency.h"
#include "command/base/terminal.h"
#include "core/oplog/oplog.h"

struct stats_row {
	RB_ENTRY(stats_row) link;
	char *name;
	uint64_t count, failed, in_flight;
	uint64_t read, written; /* bytes */
	struct latency latency;
};

RB_HEAD(stats_tree, stats_row);

struct stats_sink {
	struct log_sink sink;
	struct stats_tree ops, files;
	uint64_t records, first, last;
	const struct log_options *options;
};

static int compare_rows(struct stats_row *a, struct stats_row *b)
{
	return strcmp(a->name, b->name);
}

RB_GENERATE_INTERNAL(stats_tree, stats_row, link, compare_rows, static __attribute__((unused)))

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
	if (!row->name) {
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

static int count(struct stats_row *row, const struct oplog_entry *e)
{
	row->count++;
	row->failed += log_has_failed(e);
	count_bytes(row, e);
	if (e->in_flight) {
		row->in_flight++;
		return 0;
	}
	return latency_add(&row->latency, e->duration);
}

static int stats_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct stats_sink *s = (struct stats_sink *)sink;
	struct log_meaning m;
	struct stats_row *row;

	log_explain(e, &m);
	row = row_of(&s->ops, m.op);
	if (!row || count(row, e) < 0)
		return -ENOMEM;
	if (s->records++ == 0)
		s->first = e->time;
	s->last = e->time;
	/* What SQLite and transactions say would count a file's bytes twice. */
	if (!m.path || e->kind != OPLOG_NAME_FILE || e->op >= OP_SQL_COPY)
		return 0;
	row = row_of(&s->files, m.path);
	return row && count(row, e) == 0 ? 0 : -ENOMEM;
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
		    {"total_ns", row->latency.total},
		    {"p50_ns", latency_percentile(&row->latency, 50)},
		    {"p99_ns", latency_percentile(&row->latency, 99)},
		    {"max_ns", row->latency.max},
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

/* Of a file of a segment. */
static void put_collection(const struct stats_sink *s, const char *path)
{
	struct collection_names *names = s->options->filter.names;
	const char *name = names ? collection_names_find(names, path) : NULL;
	char shown[256];

	if (name) {
		terminal_fit(shown, sizeof(shown), name, 32);
		printf(" [%s]", shown);
	}
}

static void print_rows(const struct stats_sink *s, const char *title, struct stats_tree *tree)
{
	int width = terminal_width();
	size_t room = width > 90 ? (size_t)width - 68 : 22;
	struct stats_row *row;
	char name[4200], number[32];

	if (RB_EMPTY(tree))
		return;
	printf("%s%10s %8s %12s %11s %11s %11s  %s%s\n", terminal_colour(COLOUR_BOLD), "count",
	       "failed", "bytes", "p50 ms", "p99 ms", "max ms", title,
	       terminal_colour(COLOUR_PLAIN));
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
		printf("%11.3f %11.3f %11.3f", (double)latency_percentile(&row->latency, 50) / 1e6,
		       (double)latency_percentile(&row->latency, 99) / 1e6,
		       (double)row->latency.max / 1e6);
		terminal_fit(name, sizeof(name), row->name, width ? room : 0);
		printf("  %s", name);
		put_collection(s, row->name);
		putchar('\n');
	}
}

static int compare_totals(const void *a, const void *b)
{
	const struct stats_row *x = *(struct stats_row *const *)a;
	const struct stats_row *y = *(struct stats_row *const *)b;

	return x->latency.total != y->latency.total ? (x->latency.total < y->latency.total ? 1 : -1)
						    : strcmp(x->name, y->name);
}

static void print_count(const char *name, uint64_t total, uint64_t whole, uint64_t calls,
			uint64_t failed)
{
	char errors[24] = "";

	if (failed)
		snprintf(errors, sizeof(errors), "%" PRIu64, failed);
	printf("%6.2f %11.6f %11" PRIu64 " %9" PRIu64 " %9s %s\n",
	       whole ? 100.0 * (double)total / (double)whole : 0.0, (double)total / 1e9,
	       calls ? total / calls / 1000 : 0, calls, errors, name);
}

/* As `strace -c` prints it. 0 or -ENOMEM. */
static int print_counts(struct stats_sink *s)
{
	uint64_t whole = 0, calls = 0, failed = 0;
	struct stats_row *row, **rows;
	size_t n = 0, i;

	RB_FOREACH (row, stats_tree, &s->ops) {
		whole += row->latency.total;
		calls += row->count;
		failed += row->failed;
		n++;
	}
	rows = calloc(n + 1, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	n = 0;
	RB_FOREACH (row, stats_tree, &s->ops)
		rows[n++] = row;
	qsort(rows, n, sizeof(*rows), compare_totals);
	printf("%% time     seconds  usecs/call     calls    errors operation\n"
	       "------ ----------- ----------- --------- --------- ----------------\n");
	for (i = 0; i < n; i++)
		print_count(rows[i]->name, rows[i]->latency.total, whole, rows[i]->count,
			    rows[i]->failed);
	printf("------ ----------- ----------- --------- --------- ----------------\n");
	print_count("total", whole, whole, calls, failed);
	free(rows);
	return 0;
}

static int stats_end(struct log_sink *sink)
{
	struct stats_sink *s = (struct stats_sink *)sink;
	char first[40], last[40];

	if (s->options->json) {
		print_json(s);
		return 0;
	}
	if (s->options->counts)
		return print_counts(s) < 0 ? EXIT_FAILED : 0;
	if (!s->records) {
		printf("no records\n");
		return 0;
	}
	printf("%" PRIu64 " records, %s to %s\n\n", s->records,
	       format_time(first, sizeof(first), s->first, s->options->utc),
	       format_time(last, sizeof(last), s->last, s->options->utc));
	print_rows(s, "operation", &s->ops);
	putchar('\n');
	print_rows(s, "file", &s->files);
	return 0;
}

static void free_tree(struct stats_tree *tree)
{
	struct stats_row *row;

	while ((row = RB_ROOT(tree))) {
		RB_REMOVE(stats_tree, tree, row);
		free(row->name);
		latency_free(&row->latency);
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
	s->options = options;
	return &s->sink;
}
