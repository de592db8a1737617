/* SPDX-License-Identifier: MIT
 *
 * `chromashim log`: records as text for people, and as JSON Lines.
 */
#include "command/log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/string.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "command/log/longest.h"
#include "core/oplog/oplog.h"

struct text_sink {
	struct log_sink sink;
	const struct log_options *options;
	FILE *out;
	uint64_t last;		/* for -r */
	struct longest longest; /* --top */
	int (*put)(struct log_sink *sink, const struct oplog_entry *e);
	int width;
};

void log_put_time(const struct log_options *options, FILE *out, uint64_t time, uint64_t *last)
{
	char when[40];

	fputs(terminal_colour(COLOUR_DIM), out);
	if (options->relative)
		fprintf(out, "%12.6f", *last && time > *last ? (double)(time - *last) / 1e9 : 0.0);
	else
		fputs(format_time(when, sizeof(when), time, options->utc), out);
	fputs(terminal_colour(COLOUR_PLAIN), out);
	*last = time;
}

/* ---- text ---- */

/* A line that is being put together; too much is cut. */
struct line {
	char text[2048];
	size_t size;
};

static void text_add(struct line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void text_add(struct line *l, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(l->text + l->size, sizeof(l->text) - l->size, format, ap);
	va_end(ap);
	if (n > 0)
		l->size += (size_t)n;
	if (l->size >= sizeof(l->text))
		l->size = sizeof(l->text) - 1;
}

/* Puts what a record says after its path. */
static void text_describe(struct line *l, const struct oplog_entry *e, const struct log_meaning *m,
			  bool spent)
{
	char duration[32];
	unsigned i;

	if (m->has_offset)
		text_add(l, " @%" PRId64, m->offset);
	if (m->has_length && (m->length || m->has_offset || e->op == OP_FTRUNCATE))
		text_add(l, " +%" PRIu64, m->length);
	for (i = 0; i < m->details; i++) {
		const struct log_detail *d = &m->detail[i];

		if (d->is_text)
			text_add(l, " %s=%s", d->key, d->text);
		else
			text_add(l, " %s=%" PRId64, d->key, d->number);
	}
	if (e->in_flight) {
		text_add(l, "  %sin flight%s", terminal_colour(COLOUR_YELLOW),
			 terminal_colour(COLOUR_PLAIN));
		return;
	}
	if (m->error)
		text_add(l, "  %s= %s%s", terminal_colour(COLOUR_RED), m->error,
			 terminal_colour(COLOUR_PLAIN));
	else if (m->has_result)
		text_add(l, "  = %" PRId64, m->result);
	if (spent)
		text_add(l, " <%.6f>", (double)e->duration / 1e9);
	else if (e->duration)
		text_add(l, "  %s%s%s", terminal_colour(COLOUR_DIM),
			 format_duration(duration, sizeof(duration), e->duration),
			 terminal_colour(COLOUR_PLAIN));
}

static size_t visible_columns(const char *text)
{
	size_t n = 0;

	while (*text) {
		if (*text == '\033')
			text += strcspn(text, "m");
		else
			n += ((unsigned char)*text & 0xc0) != 0x80;
		text++;
	}
	return n;
}

/* Path, second path or statement, and texts; together at most `columns` wide if that is not 0. */
static void put_names(const struct text_sink *s, const struct oplog_entry *e,
		      const struct log_meaning *m, size_t columns)
{
	char shown[13312];
	const char *collection =
	    s->options->filter.names ? collection_names_of(s->options->filter.names, e) : NULL;
	const char *first = m->sql ? m->sql : m->path ? m->path : "";
	const char *second = m->path2 ? m->path2 : e->text_size ? e->text : NULL;
	size_t share = columns, used = terminal_columns(first);

	if (columns && second) {
		size_t rest = columns > used + 4 ? columns - used - 4 : columns / 2;

		share = *first ? columns - 4 - (rest < columns / 2 ? columns / 2 : rest) : 0;
		share = used < share ? used : share;
	}
	if (*first) {
		terminal_fit(shown, sizeof(shown), first, share);
		fputs(shown, s->out);
		used = terminal_columns(shown);
	} else {
		used = 0;
	}
	if (collection) {
		terminal_fit(shown, sizeof(shown), collection, 32);
		fprintf(s->out, " [%s]", shown);
	}
	if (!second)
		return;
	fputs(m->path2 ? " -> " : *first ? "  " : "", s->out);
	terminal_fit(shown, sizeof(shown), second,
		     columns > used + 8 ? columns - used - 4 : columns);
	fputs(shown, s->out);
}

static int text_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct text_sink *s = (struct text_sink *)sink;
	struct log_meaning m;
	struct line tail = {.size = 0};
	char head[64];
	size_t taken, columns = 0;

	log_explain(e, &m);
	text_describe(&tail, e, &m, s->options->spent);
	snprintf(head, sizeof(head), "  %" PRIu32 "/%" PRIu32 "  ", e->header->pid, e->tid);
	if (s->width) {
		taken = (s->options->relative ? 12 : 26) + strlen(head) + 11 +
			visible_columns(tail.text);
		columns = (size_t)s->width > taken + 16 ? (size_t)s->width - taken : 16;
	}
	log_put_time(s->options, s->out, e->time, &s->last);
	fprintf(s->out, "%s%s%-10s%s ", head, terminal_colour(COLOUR_BOLD), m.op,
		terminal_colour(COLOUR_PLAIN));
	put_names(s, e, &m, columns);
	fwrite(tail.text, 1, tail.size, s->out);
	if (s->options->filter.verbose)
		fprintf(s->out, "  %ssegment %" PRIu32 " slot %" PRIu32 "%s",
			terminal_colour(COLOUR_DIM), e->header->sequence, e->slot,
			terminal_colour(COLOUR_PLAIN));
	fputc('\n', s->out);
	return terminal_is_gone() ? -EPIPE : 0;
}

/* ---- JSON ---- */

static void json_number_or_null(struct json *j, const char *key, bool there, int64_t value)
{
	json_key(j, key);
	if (there)
		json_int(j, value);
	else
		json_null(j);
}

void log_put_members(struct json *j, const struct oplog_entry *e, const struct log_meaning *m)
{
	char when[40];
	unsigned i;

	json_key(j, "schema_version");
	json_uint(j, SCHEMA_VERSION);
	json_key(j, "time");
	json_string(j, format_time_utc(when, sizeof(when), e->time));
	json_put_uint(j, "pid", e->header->pid);
	json_put_uint(j, "tid", e->tid);
	json_key(j, "op");
	json_string(j, m->op);
	json_key(j, "path");
	json_string(j, m->path);
	if (m->path2) {
		json_key(j, "path2");
		json_string(j, m->path2);
	}
	if (m->sql) {
		json_key(j, "sql");
		json_string(j, m->sql);
	}
	json_number_or_null(j, "offset", m->has_offset, m->offset);
	json_key(j, "length");
	if (m->has_length)
		json_uint(j, m->length);
	else
		json_null(j);
	json_number_or_null(j, "result", m->has_result, m->result);
	json_key(j, "errno");
	json_string(j, m->error);
	json_key(j, "duration_ns");
	if (m->has_duration)
		json_uint(j, e->duration);
	else
		json_null(j);
	json_key(j, "in_flight");
	json_bool(j, e->in_flight);
	json_key(j, "text");
	if (e->text_size && e->op != OP_RECORDS)
		json_bytes(j, e->text, e->text_size);
	else
		json_null(j);
	for (i = 0; i < m->details; i++) {
		json_key(j, m->detail[i].key);
		if (m->detail[i].is_text)
			json_string(j, m->detail[i].text);
		else
			json_int(j, m->detail[i].number);
	}
}

static int json_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct text_sink *s = (struct text_sink *)sink;
	struct collection_names *names = s->options->filter.names;
	struct json j = {.out = s->out};
	const char *collection = names ? collection_names_of(names, e) : NULL;
	struct log_meaning m;

	log_explain(e, &m);
	json_begin(&j, '{');
	log_put_members(&j, e, &m);
	if (collection) {
		json_key(&j, "collection");
		json_string(&j, collection);
	}
	json_end(&j, '}');
	json_newline(&j);
	return terminal_is_gone() ? -EPIPE : 0;
}

/* ---- both ---- */

/* Of the longest only. */
static int top_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct text_sink *s = (struct text_sink *)sink;

	s->out = longest_begin(&s->longest, e->duration);
	if (!s->out)
		return 0;
	s->put(sink, e);
	return longest_end(&s->longest, e->duration);
}

static int end_text(struct log_sink *sink)
{
	longest_print(&((struct text_sink *)sink)->longest, stdout);
	return 0;
}

static void free_text(struct log_sink *sink)
{
	longest_free(&((struct text_sink *)sink)->longest);
	free(sink);
}

static struct log_sink *make_sink(const struct log_options *options,
				  int (*put)(struct log_sink *, const struct oplog_entry *))
{
	struct text_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->put = put;
	s->sink.entry = options->top ? top_entry : put;
	s->sink.end = end_text;
	s->sink.free = free_text;
	s->options = options;
	s->longest.max = options->top;
	s->out = options->out ? options->out : stdout;
	s->width = terminal_width();
	return &s->sink;
}

struct log_sink *log_text_sink(const struct log_options *options)
{
	return make_sink(options, text_entry);
}

struct log_sink *log_json_sink(const struct log_options *options)
{
	return make_sink(options, json_entry);
}
