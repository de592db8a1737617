/* SPDX-License-Identifier: MIT
 *
 * report.html: what is drawn. A figure is rows of strips: a name, a stretched SVG without words,
 * and a number; below it the time, and the same as a table.
 */
#include "command/report/strips.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "core/oplog/oplog.h"

#define HEAT_ROWS 24
#define FILE_ROWS 60
#define GROWTH_ROWS 24

/* ---- files against time ---- */

static uint64_t by_written(const struct digest_row *row)
{
	return row->written;
}

/* The files of an index are one row: they are written together. */
struct heat_row {
	char name[DIGEST_TEXT];
	uint64_t bytes;
	struct digest_series by_time;
};

static void name_heat_row(struct page *p, const char *path, char out[DIGEST_TEXT])
{
	const char *slash = strchr(path, '/');
	char directory[DIGEST_TEXT], name[DIGEST_TEXT];

	if (!slash) {
		page_name(p, path, out);
		return;
	}
	snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path), path);
	page_name(p, directory, name);
	snprintf(out, DIGEST_TEXT, "%.200s%s", name, strcmp(name, directory) ? ": index" : "/");
}

static struct heat_row *find_heat_row(struct heat_row *list, size_t *count, const char *name)
{
	size_t i;

	for (i = 0; i < *count; i++)
		if (!strcmp(list[i].name, name))
			return &list[i];
	snprintf(list[*count].name, DIGEST_TEXT, "%s", name);
	return &list[(*count)++];
}

static int compare_heat_rows(const void *a, const void *b)
{
	const struct heat_row *x = a, *y = b;

	return x->bytes > y->bytes ? -1 : x->bytes < y->bytes;
}

/* Of what was written, or of how much they grew: the busiest first; how many. The caller's to free.
 */
static size_t make_heat_rows(struct page *p, bool grown, struct heat_row **out)
{
	const struct digest_rows *rows = &p->d->tables[DIGEST_FILES];
	struct heat_row *list = calloc(rows->count + 1, sizeof(*list)), *row;
	size_t count = 0, i;
	char name[DIGEST_TEXT];
	unsigned b;

	for (i = 0; list && i < rows->count; i++) {
		const struct digest_row *file = rows->list[i];
		const struct digest_series *s = grown ? &file->grown_by_time : &file->by_time;

		if (!file->written || (grown && !s->at[strip_busiest(s, DIGEST_BUCKETS)]))
			continue;
		name_heat_row(p, rows->list[i]->name, name);
		row = find_heat_row(list, &count, name);
		for (b = 0; b < DIGEST_BUCKETS; b++) {
			row->by_time.at[b] += s->at[b];
			row->bytes += s->at[b];
		}
	}
	if (list)
		qsort(list, count, sizeof(*list), compare_heat_rows);
	*out = list;
	return count;
}

static void put_heat_row(struct page *p, const struct heat_row *row, uint64_t greatest,
			 const char *what)
{
	unsigned at = strip_busiest(&row->by_time, digest_buckets(p->d));
	char says[2 * DIGEST_TEXT], bytes[24], most[24], when[40];

	snprintf(says, sizeof(says), "%s: %s %s, most of it at %.8s: %s", row->name,
		 format_bytes(bytes, sizeof(bytes), row->bytes), what,
		 format_time(when, sizeof(when), strip_time(p->d, at), p->utc) + 11,
		 format_bytes(most, sizeof(most), row->by_time.at[at]));
	strip_begin(p, row->name, digest_buckets(p->d), 10, "heat", says);
	strip_cells(p, &row->by_time, greatest, true);
	strip_end_bytes(p, row->bytes);
}

static void put_heat(struct page *p, const struct heat_row *list, size_t count, const char *what,
		     const char *legend)
{
	uint64_t greatest = 1;
	size_t i;

	for (i = 0; i < count; i++) {
		uint64_t n =
		    list[i].by_time.at[strip_busiest(&list[i].by_time, digest_buckets(p->d))];

		greatest = n > greatest ? n : greatest;
	}
	page_put(p, "<figure><figcaption>Bytes %T, by file and time</figcaption>\n", what);
	for (i = 0; i < count; i++)
		put_heat_row(p, &list[i], greatest, what);
	strip_axis(p);
	page_put(p, "</figure>\n");
	strip_legend(p, legend);
}

static void put_file_numbers(struct page *p, const struct digest_row *const *rows, size_t count)
{
	char name[DIGEST_TEXT];
	size_t i;

	page_table_below(p, "The same in numbers",
			 "Files: what was written, how much they grew, and how long they waited "
			 "for the disk",
			 "File|#Written|#Writes|#Grew|#Syncs|#Time in syncs|#Time in all calls");
	for (i = 0; i < count; i++) {
		const struct digest_row *row = rows[i];

		page_put(p,
			 "<tr><th scope=\"row\">%T</th><td class=\"n\" data-n=\"%d\">%B</td>"
			 "<td class=\"n\" data-n=\"%d\">%N</td>",
			 page_name(p, row->name, name), row->written, row->written, row->writes,
			 row->writes);
		if (row->size_known)
			page_put(p, "<td class=\"n\" data-n=\"%d\">%B</td>", row->grown,
				 row->grown);
		else
			page_put(p, "<td class=\"n\">not known</td>");
		page_put(
		    p,
		    "<td class=\"n\" data-n=\"%d\">%N</td><td class=\"n\" data-n=\"%d\">%D</td>"
		    "<td class=\"n\" data-n=\"%d\">%D</td></tr>\n",
		    row->syncs, row->syncs, row->sync_ns, row->sync_ns, row->call_ns, row->call_ns);
	}
	page_table_below_end(p);
}

void page_heat_map(struct page *p)
{
	const struct digest_row *rows[FILE_ROWS];
	size_t files = digest_best(p->d, DIGEST_FILES, by_written, rows, FILE_ROWS), count;
	struct heat_row *list;

	page_section(p, "files", "Which files were written, and when",
		     "One row for each file, the busiest first; time runs from left to right. A "
		     "collection's vectors are in files of their own (its index), everything else "
		     "is in chroma.sqlite3. A journal is what SQLite needs to undo a transaction.");
	count = make_heat_rows(p, false, &list);
	if (count)
		put_heat(p, list, count < HEAT_ROWS ? count : HEAT_ROWS, "written",
			 "Bytes written");
	else
		page_put(p, "<p>No file was written in this time, as far as the log goes.</p>\n");
	if (count > HEAT_ROWS)
		page_put(p, "<p>The %N busiest of %N are shown.</p>\n", (uint64_t)HEAT_ROWS,
			 (uint64_t)count);
	if (files)
		put_file_numbers(p, rows, files);
	free(list);
	page_section_end(p);
}

/* ---- how long things took ---- */

#define DECADES 8 /* from 1 µs to 100 s */

/* 0 to 1000 over the decades from 1 µs on. */
static unsigned place_of(uint64_t ns)
{
	uint64_t from = 1000;
	unsigned decade = 0;

	while (decade < DECADES && ns >= from * 10) {
		from *= 10;
		decade++;
	}
	if (ns < from)
		return 0;
	if (decade >= DECADES)
		return 1000;
	/* Within a decade by its tenths: near enough for a picture. */
	return decade * 1000 / DECADES + (unsigned)((ns - from) * 1000 / DECADES / (from * 9));
}

static void put_latency(struct page *p, const char *name, const struct latency *l, bool told)
{
	unsigned a = place_of(latency_percentile(l, 50)), b = place_of(latency_percentile(l, 99)),
		 c = place_of(l->max);
	char says[200], p50[24], p99[24];

	snprintf(says, sizeof(says), "%s: half within %s, 99 of 100 within %s", name,
		 format_duration(p50, sizeof(p50), latency_percentile(l, 50)),
		 format_duration(p99, sizeof(p99), latency_percentile(l, 99)));
	strip_begin(p, name, 1000, 10, told ? "span told" : "span", says);
	page_put(
	    p,
	    "<rect class=\"h3\" x=\"%d\" width=\"%d\" y=\"3\" height=\"4\"/><rect class=\"h4\" "
	    "x=\"%d\" width=\"%d\" height=\"10\"/><rect class=\"half\" x=\"%d\" width=\"4\" "
	    "height=\"10\"><title>%T</title></rect>",
	    (uint64_t)b, (uint64_t)(c > b ? c - b : 0), (uint64_t)a, (uint64_t)(b > a ? b - a : 4),
	    (uint64_t)a, says);
	strip_end_text(p, p99);
}

static void put_latency_numbers(struct page *p, const char *name, const struct latency *l,
				uint64_t failed)
{
	page_put(
	    p,
	    "<tr><th scope=\"row\">%T</th><td class=\"n\" data-n=\"%d\">%N</td><td class=\"n\" "
	    "data-n=\"%d\">%D</td><td class=\"n\">%D</td><td class=\"n\" data-n=\"%d\">%D</td>"
	    "<td class=\"n\" data-n=\"%d\">%D</td><td class=\"n\" data-n=\"%d\">%D</td><td "
	    "class=\"n\" data-n=\"%d\">%N</td></tr>\n",
	    name, l->count, l->count, latency_percentile(l, 50), latency_percentile(l, 50),
	    latency_percentile(l, 90), latency_percentile(l, 99), latency_percentile(l, 99), l->max,
	    l->max, l->total, l->total, failed, failed);
}

#define LATENCY_ROWS 12

/* The operations that took most time together; a transaction holds others, and has its own row. */
static size_t worst_operations(const struct digest *d, unsigned out[LATENCY_ROWS])
{
	size_t count = 0, at;
	unsigned op;

	for (op = OP_OPEN; op < 256; op++) {
		if (!d->ops[op].count || op >= OP_TXN_BEGIN || digest_is_sync(op) ||
		    (op >= OP_SQL_COPY && op < OP_SQL_STEP))
			continue;
		for (at = count; at > 0 && d->ops[out[at - 1]].total < d->ops[op].total; at--)
			;
		if (at >= LATENCY_ROWS)
			continue;
		count += count < LATENCY_ROWS;
		memmove(out + at + 1, out + at, (count - at - 1) * sizeof(*out));
		out[at] = op;
	}
	return count;
}

static void put_decades(struct page *p)
{
	static const char *const words[] = {"1 \xc2\xb5s", "100 \xc2\xb5s", "10 ms", "1 s",
					    "100 s"};
	size_t i;

	page_put(p, "<div class=\"axis\" aria-hidden=\"true\"><span></span><span class=\"times\">");
	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		page_put(p, "<span>%T</span>", words[i]);
	page_put(p, "</span><span></span></div>\n");
}

void page_latencies(struct page *p)
{
	const struct digest *d = p->d;
	unsigned ops[LATENCY_ROWS];
	size_t count = worst_operations(d, ops), i;

	page_section(
	    p, "latency", "How long things took",
	    "A sync is when the program waits until the disk really has the data; a "
	    "transaction is a group of changes that counts wholly or not at all; the rest are "
	    "single calls to the system. The thick bar goes from what half of them took to what "
	    "99 of 100 took, which is also the number beside it, and the thin one to the slowest; "
	    "each mark below is a hundred times the one before.");
	page_put(p, "<figure><figcaption>Durations by operation</figcaption>\n");
	if (d->transaction.count)
		put_latency(p, "Transactions", &d->transaction, true);
	if (d->persist.count)
		put_latency(p, "Index writes (persists)", &d->persist, true);
	if (d->sync.count)
		put_latency(p, "Syncs", &d->sync, true);
	for (i = 0; i < count; i++)
		put_latency(p, oplog_op_name(ops[i]) ? oplog_op_name(ops[i]) : "?", &d->ops[ops[i]],
			    false);
	put_decades(p);
	page_put(p, "</figure>\n");
	page_table_below(
	    p, "The same in numbers", "Durations by operation",
	    "Operation|#Count|#Half within|#90 of 100|#99 of 100|#Slowest|#Together|#Failed");
	put_latency_numbers(p, "Transactions", &d->transaction, 0);
	put_latency_numbers(p, "Index writes (persists)", &d->persist, 0);
	put_latency_numbers(p, "Syncs", &d->sync, 0);
	for (i = 0; i < count; i++)
		put_latency_numbers(p, oplog_op_name(ops[i]) ? oplog_op_name(ops[i]) : "?",
				    &d->ops[ops[i]], d->op_failed[ops[i]]);
	page_table_below_end(p);
	page_section_end(p);
}

/* ---- growth ---- */

static const struct page_collection *collection_now(const struct page *p, const char *id)
{
	size_t i;

	for (i = 0; i < p->collection_count; i++)
		if (strstr(id, p->collections[i].id))
			return &p->collections[i];
	return NULL;
}

/* What took the disk, when. */
static void put_growth_of_files(struct page *p)
{
	struct heat_row *list;
	size_t count = make_heat_rows(p, true, &list);

	if (count)
		put_heat(p, list, count < GROWTH_ROWS ? count : GROWTH_ROWS, "grown",
			 "Bytes grown");
	free(list);
}

static void put_growth_numbers(struct page *p, const struct digest_row *const *rows, size_t count)
{
	char name[DIGEST_TEXT];
	size_t i;

	page_table(
	    p, "Collections: records changed in this time, and what is there now",
	    "Collection|#Added|#Updated|#Upserted|#Deleted|#Commits|#Records now|#Index on disk");
	for (i = 0; i < count; i++) {
		const struct digest_row *row = rows[i];
		const struct page_collection *now = collection_now(p, row->name);

		page_put(
		    p,
		    "<tr><th scope=\"row\">%T</th><td class=\"n\" data-n=\"%d\">%N</td><td "
		    "class=\"n\" data-n=\"%d\">%N</td><td class=\"n\" data-n=\"%d\">%N</td><td "
		    "class=\"n\" data-n=\"%d\">%N</td><td class=\"n\" data-n=\"%d\">%N</td>",
		    page_name(p, row->name, name), row->added, row->added, row->updated,
		    row->updated, row->upserted, row->upserted, row->deleted, row->deleted,
		    row->commits, row->commits);
		if (now)
			page_put(p,
				 "<td class=\"n\" data-n=\"%d\">%N</td><td class=\"n\" "
				 "data-n=\"%d\">%B</td></tr>\n",
				 now->records, now->records, now->bytes, now->bytes);
		else
			page_put(
			    p,
			    "<td class=\"n\">deleted</td><td class=\"n\">\xe2\x80\x93</td></tr>\n");
	}
	page_table_end(p);
}

static uint64_t by_changes(const struct digest_row *row)
{
	return digest_changes(row);
}

/* What was not touched in this time. */
static void put_others_now(struct page *p)
{
	size_t i, k;

	page_table(p, "Collections that were not changed in this time",
		   "Collection|#Records now|#Index on disk");
	for (i = 0; i < p->collection_count; i++) {
		const struct page_collection *c = &p->collections[i];
		const struct digest_rows *rows = &p->d->tables[DIGEST_COLLECTIONS];

		for (k = 0; k < rows->count && !strstr(rows->list[k]->name, c->id); k++)
			;
		if (k == rows->count)
			page_put(p,
				 "<tr><th scope=\"row\">%T</th><td class=\"n\">%N</td><td "
				 "class=\"n\">%B</td></tr>\n",
				 c->name, c->records, c->bytes);
	}
	page_table_end(p);
}

void page_growth(struct page *p)
{
	const struct digest_row *rows[GROWTH_ROWS];
	size_t count = digest_best(p->d, DIGEST_COLLECTIONS, by_changes, rows, GROWTH_ROWS), i;
	uint64_t greatest = strip_greatest(rows, count, digest_buckets(p->d));
	char name[DIGEST_TEXT], says[2 * DIGEST_TEXT];

	page_section(p, "growth", "What grew",
		     "A collection grows by the records that are put into it; its index is what "
		     "makes searching fast, and is kept in files of its own.");
	page_put(p,
		 "<p>The database (chroma.sqlite3) is %B now, of which %B are pages that hold "
		 "nothing.</p>\n",
		 p->database_bytes, p->free_bytes);
	if (count) {
		page_put(p, "<figure><figcaption>Records changed by collection and "
			    "time</figcaption>\n");
		for (i = 0; i < count; i++) {
			page_name(p, rows[i]->name, name);
			snprintf(says, sizeof(says), "%s: %" PRIu64 " records changed", name,
				 digest_changes(rows[i]));
			strip_begin(p, name, digest_buckets(p->d), 10, "heat", says);
			strip_cells(p, &rows[i]->by_time, greatest, false);
			strip_end_number(p, digest_changes(rows[i]));
		}
		strip_axis(p);
		page_put(p, "</figure>\n");
		strip_legend(p, "Records changed");
		put_growth_numbers(p, rows, count);
	} else {
		page_put(p, "<p>The log tells of no changes of records in this time.</p>\n");
	}
	if (p->collection_count > count)
		put_others_now(p);
	put_growth_of_files(p);
	page_section_end(p);
}
