/* SPDX-License-Identifier: MIT
 *
 * `chromashim top`: how it is shown: a screen, a line, or JSON.
 */
#include "command/top/top.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/json.h"

static uint64_t rate(const struct top_view *v, uint64_t n)
{
	return (uint64_t)((double)n * (double)SECOND / (double)v->took + 0.5);
}

/* Of the interval, how much was spent in syncs; several threads may be at it. */
static uint64_t sync_percent(const struct top_view *v)
{
	return v->in.sync_ns * 100 / v->took;
}

static const char *clock_text(char out[40], uint64_t ns, bool utc)
{
	format_time(out, 40, ns, utc);
	out[19] = '\0';
	return out + 11;
}

/* ---- a line ---- */

void top_line(const struct top *t)
{
	const struct top_view *v = &t->view;
	char when[40], text[32], name[DIGEST_TEXT * 4];

	printf("%s  %" PRIu64 " acts/s", clock_text(when, v->now, t->utc), rate(v, v->in.acts));
	if (t->in.digest->has_acts)
		printf("  %" PRIu64 " records/s", rate(v, v->in.records));
	printf("  %s/s", format_bytes(text, sizeof(text), rate(v, v->in.written)));
	printf("  %" PRIu64 " transactions/s", rate(v, v->in.commits));
	if (v->slowest)
		printf(" (slowest %s)", format_duration(text, sizeof(text), v->slowest));
	printf("  %" PRIu64 " syncs/s (%" PRIu64 " %%)", rate(v, v->in.syncs), sync_percent(v));
	if (v->persist[0]) {
		terminal_fit(name, sizeof(name), v->persist, 0);
		printf("  persist of %s for %s", name,
		       format_duration(text, sizeof(text), v->persist_ns));
	}
	if (v->writer)
		printf("  writer %" PRIu32, v->writer->header.pid);
	else
		printf("  no writer");
	if (v->memory)
		printf(" (%s)", format_bytes(text, sizeof(text), v->memory));
	if (v->in.refused)
		printf("  REFUSED %" PRIu64 ", the last time pid %" PRIu32, v->in.refused,
		       v->refusal ? v->refusal->pid : 0);
	printf("  %u of %u snapshots verified", v->verified, v->snapshots);
	if (v->copying)
		printf(" (copying %" PRIu64 ": %" PRIu64 " %%)", v->copying, v->progress);
	printf("  %s free\n", format_bytes(text, sizeof(text), v->disk_free));
}

/* ---- JSON ---- */

void top_json(const struct top *t)
{
	const struct top_view *v = &t->view;
	struct json j = {.out = stdout};
	char when[40];
	unsigned i;

	json_begin(&j, '{');
	json_put_uint(&j, "schema_version", SCHEMA_VERSION);
	json_put_text(&j, "time", format_time_utc(when, sizeof(when), v->now));
	json_put_uint(&j, "interval_ns", v->took);
	json_put_uint(&j, "entries", v->in.entries);
	json_put_uint(&j, "acts", v->in.acts);
	json_key(&j, "records"); /* null: this log does not tell of records */
	if (t->in.digest->has_acts)
		json_uint(&j, v->in.records);
	else
		json_null(&j);
	json_put_uint(&j, "bytes_written", v->in.written);
	json_put_uint(&j, "transactions", v->in.commits);
	json_put_uint(&j, "slowest_transaction_ns", v->slowest);
	json_put_uint(&j, "syncs", v->in.syncs);
	json_put_uint(&j, "sync_ns", v->in.sync_ns);
	json_put_uint(&j, "refused", v->in.refused);
	json_put_text(&j, "persist", v->persist);
	json_put_uint(&j, "persist_ns", v->persist_ns);
	json_put_uint(&j, "transaction_open_ns", v->transaction_ns);
	json_put_uint(&j, "writer", v->writer ? v->writer->header.pid : 0);
	json_put_uint(&j, "writer_memory", v->memory);
	json_put_uint(&j, "snapshots", v->snapshots);
	json_put_uint(&j, "snapshots_verified", v->verified);
	json_put_uint(&j, "snapshot_copying", v->copying);
	json_put_uint(&j, "snapshot_progress", v->progress);
	json_put_uint(&j, "disk_free", v->disk_free);
	json_put_uint(&j, "database_bytes", v->database);
	json_key(&j, "collections");
	json_begin(&j, '[');
	for (i = 0; i < v->collection_count; i++) {
		json_begin(&j, '{');
		json_put_text(&j, "name", v->collections[i].name);
		json_put_uint(&j, "records", v->collections[i].records);
		json_end(&j, '}');
	}
	json_end(&j, ']');
	json_end(&j, '}');
	json_newline(&j);
}

/* ---- the screen ---- */

/* Lines that end with what clears their rest; none beyond the last row, which would scroll. */
struct canvas {
	unsigned columns, left;
};

static void put_line(struct canvas *c, const char *label, const char *text)
{
	char shown[4 * 1024];
	size_t n = strlen(label) ? 14 : 0;

	if (!c->left)
		return;
	terminal_fit(shown, sizeof(shown), text, c->columns > n + 1 ? c->columns - n - 1 : 1);
	printf("%s%-*s%s%s\x1b[K\r\n", terminal_colour(COLOUR_BOLD), (int)n, label,
	       terminal_colour(COLOUR_PLAIN), shown);
	c->left--;
}

/* The last intervals as a row of blocks. */
static void put_history(char *out, size_t room, const struct top *t, const uint64_t *history)
{
	static const char *const blocks[] = {" ",
					     "\xe2\x96\x81",
					     "\xe2\x96\x82",
					     "\xe2\x96\x83",
					     "\xe2\x96\x84",
					     "\xe2\x96\x85",
					     "\xe2\x96\x86",
					     "\xe2\x96\x87",
					     "\xe2\x96\x88"};
	unsigned first = t->shown > TOP_HISTORY ? t->shown - TOP_HISTORY : 0, i;
	uint64_t most = 1;
	size_t n = 0;

	for (i = first; i < t->shown; i++)
		if (history[i % TOP_HISTORY] > most)
			most = history[i % TOP_HISTORY];
	*out = '\0';
	for (i = first; i < t->shown && n + 4 < room; i++) {
		uint64_t value = history[i % TOP_HISTORY];

		n += (size_t)snprintf(out + n, room - n, "%s",
				      blocks[value ? 1 + value * 7 / most : 0]);
	}
}

static void draw_rates(const struct top *t, struct canvas *c)
{
	const struct top_view *v = &t->view;
	char line[512], text[32], picture[4 * TOP_HISTORY + 4];

	put_history(picture, sizeof(picture), t, t->records_history);
	snprintf(line, sizeof(line), "%10" PRIu64 "/s  %s", rate(v, v->in.records), picture);
	if (t->in.digest->has_acts)
		put_line(c, "records", line);
	put_history(picture, sizeof(picture), t, t->written_history);
	snprintf(line, sizeof(line), "%10s/s  %s",
		 format_bytes(text, sizeof(text), rate(v, v->in.written)), picture);
	put_line(c, "written", line);
	snprintf(line, sizeof(line), "%10" PRIu64 "/s  slowest %s", rate(v, v->in.commits),
		 format_duration(text, sizeof(text), v->slowest));
	put_line(c, "transactions", line);
	snprintf(line, sizeof(line), "%10" PRIu64 "/s  %" PRIu64 " %% of the time",
		 rate(v, v->in.syncs), sync_percent(v));
	put_line(c, "syncs", line);
	snprintf(line, sizeof(line), "%10" PRIu64 "/s  of %" PRIu64 " calls/s", rate(v, v->in.acts),
		 rate(v, v->in.entries));
	put_line(c, "acts", line);
}

static void draw_writer(const struct top *t, struct canvas *c)
{
	const struct top_view *v = &t->view;
	char line[512], a[32], b[32], when[40];

	if (!v->writer) {
		put_line(c, "writer", "none: nobody writes now");
	} else {
		snprintf(line, sizeof(line), "%" PRIu32 ", memory %s: %.220s",
			 v->writer->header.pid,
			 v->memory ? format_bytes(a, sizeof(a), v->memory) : "not known",
			 v->writer->command);
		put_line(c, "writer", line);
	}
	if (v->persist[0])
		snprintf(line, sizeof(line), "persist of %.200s for %s", v->persist,
			 format_duration(a, sizeof(a), v->persist_ns));
	else if (v->transaction_ns)
		snprintf(line, sizeof(line), "a transaction, for %s",
			 format_duration(b, sizeof(b), v->transaction_ns));
	else
		snprintf(line, sizeof(line), "nothing");
	put_line(c, "under way", line);
	if (v->refusal)
		snprintf(line, sizeof(line), "%" PRIu64 ", last pid %" PRIu32 " at %s: %.200s",
			 t->sums.refused, v->refusal->pid,
			 clock_text(when, v->refusal->time, t->utc), v->refusal->text);
	else
		snprintf(line, sizeof(line), "nobody");
	put_line(c, "refused", line);
}

static void draw_around(const struct top *t, struct canvas *c)
{
	const struct top_view *v = &t->view;
	char line[512], a[32], b[32], d[32];
	size_t n;
	unsigned i;

	n = (size_t)snprintf(line, sizeof(line), "%u, %u verified", v->snapshots, v->verified);
	if (v->newest && v->now > v->newest)
		n += (size_t)snprintf(line + n, sizeof(line) - n, ", the newest %s old",
				      format_duration(a, sizeof(a), v->now - v->newest));
	if (v->copying)
		n += (size_t)snprintf(line + n, sizeof(line) - n,
				      ", number %" PRIu64 " is being copied: %" PRIu64 " %%",
				      v->copying, v->progress);
	if (v->broken)
		snprintf(line + n, sizeof(line) - n, ", %u broken", v->broken);
	put_line(c, "snapshots", line);
	snprintf(line, sizeof(line), "%s free of %s; chroma.sqlite3 has %s",
		 format_bytes(a, sizeof(a), v->disk_free),
		 format_bytes(b, sizeof(b), v->disk_total),
		 format_bytes(d, sizeof(d), v->database));
	put_line(c, "disk", line);
	put_line(c, "", "");
	for (i = 0; i < v->collection_count; i++) {
		snprintf(line, sizeof(line), "%10" PRIu64 "/s  %s",
			 rate(v, v->collections[i].records), v->collections[i].name);
		put_line(c, i ? "" : "collections", line);
	}
}

void top_draw(const struct top *t, unsigned columns, unsigned rows)
{
	struct canvas c = {.columns = columns, .left = rows > 1 ? rows - 1 : 0};
	char line[sizeof(t->in.data.dir) + 64], when[40];

	fputs("\x1b[H", stdout);
	snprintf(line, sizeof(line), "%s  %s  (q ends)", clock_text(when, t->view.now, t->utc),
		 t->in.data.dir);
	put_line(&c, "chromashim", line);
	put_line(&c, "", "");
	draw_rates(t, &c);
	put_line(&c, "", "");
	draw_writer(t, &c);
	draw_around(t, &c);
	fputs("\x1b[J", stdout);
	fflush(stdout);
}
