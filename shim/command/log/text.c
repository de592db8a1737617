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
#include "core/oplog/oplog.h"

struct text_sink {
	struct log_sink sink;
	bool utc, verbose;
	int width;
};

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
static void text_describe(struct line *l, const struct oplog_entry *e, const struct log_meaning *m)
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
	if (e->duration)
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
static void put_names(const struct oplog_entry *e, const struct log_meaning *m, size_t columns)
{
	char shown[13312];
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
		fputs(shown, stdout);
		used = terminal_columns(shown);
	} else {
		used = 0;
	}
	if (!second)
		return;
	fputs(m->path2 ? " -> " : *first ? "  " : "", stdout);
	terminal_fit(shown, sizeof(shown), second,
		     columns > used + 8 ? columns - used - 4 : columns);
	fputs(shown, stdout);
}

static int text_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct text_sink *s = (struct text_sink *)sink;
	struct log_meaning m;
	struct line tail = {.size = 0};
	char when[40], head[128];
	size_t taken, columns = 0;

	log_explain(e, &m);
	text_describe(&tail, e, &m);
	snprintf(head, sizeof(head), "%s  %" PRIu32 "/%" PRIu32 "  %-10s ",
		 format_time(when, sizeof(when), e->time, s->utc), e->header->pid, e->tid, m.op);
	if (s->width) {
		taken = strlen(head) + visible_columns(tail.text);
		columns = (size_t)s->width > taken + 16 ? (size_t)s->width - taken : 16;
	}
	printf("%s%s%s  %" PRIu32 "/%" PRIu32 "  %s%-10s%s ", terminal_colour(COLOUR_DIM), when,
	       terminal_colour(COLOUR_PLAIN), e->header->pid, e->tid, terminal_colour(COLOUR_BOLD),
	       m.op, terminal_colour(COLOUR_PLAIN));
	put_names(e, &m, columns);
	fwrite(tail.text, 1, tail.size, stdout);
	if (s->verbose)
		printf("  %ssegment %" PRIu32 " slot %" PRIu32 "%s", terminal_colour(COLOUR_DIM),
		       e->header->sequence, e->slot, terminal_colour(COLOUR_PLAIN));
	fputc('\n', stdout);
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

static int json_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct json j = {.out = stdout};
	struct log_meaning m;
	char when[40];
	unsigned i;

	(void)sink;
	log_explain(e, &m);
	json_begin(&j, '{');
	json_key(&j, "schema_version");
	json_uint(&j, SCHEMA_VERSION);
	json_key(&j, "time");
	json_string(&j, format_time_utc(when, sizeof(when), e->time));
	json_key(&j, "pid");
	json_uint(&j, e->header->pid);
	json_key(&j, "tid");
	json_uint(&j, e->tid);
	json_key(&j, "op");
	json_string(&j, m.op);
	json_key(&j, "path");
	json_string(&j, m.path);
	if (m.path2) {
		json_key(&j, "path2");
		json_string(&j, m.path2);
	}
	if (m.sql) {
		json_key(&j, "sql");
		json_string(&j, m.sql);
	}
	json_number_or_null(&j, "offset", m.has_offset, m.offset);
	json_key(&j, "length");
	if (m.has_length)
		json_uint(&j, m.length);
	else
		json_null(&j);
	json_number_or_null(&j, "result", m.has_result, m.result);
	json_key(&j, "errno");
	json_string(&j, m.error);
	json_key(&j, "duration_ns");
	if (m.has_duration)
		json_uint(&j, e->duration);
	else
		json_null(&j);
	json_key(&j, "in_flight");
	json_bool(&j, e->in_flight);
	json_key(&j, "text");
	if (e->text_size)
		json_bytes(&j, e->text, e->text_size);
	else
		json_null(&j);
	for (i = 0; i < m.details; i++) {
		json_key(&j, m.detail[i].key);
		if (m.detail[i].is_text)
			json_string(&j, m.detail[i].text);
		else
			json_int(&j, m.detail[i].number);
	}
	json_end(&j, '}');
	json_newline(&j);
	return terminal_is_gone() ? -EPIPE : 0;
}

/* ---- both ---- */

static int end_nothing(struct log_sink *sink)
{
	(void)sink;
	return 0;
}

static void free_sink(struct log_sink *sink)
{
	free(sink);
}

struct log_sink *log_text_sink(const struct log_options *options)
{
	struct text_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->sink.entry = text_entry;
	s->sink.end = end_nothing;
	s->sink.free = free_sink;
	s->utc = options->utc;
	s->verbose = options->filter.verbose;
	s->width = terminal_width();
	return &s->sink;
}

struct log_sink *log_json_sink(const struct log_options *options)
{
	struct log_sink *sink = log_text_sink(options);

	if (sink)
		sink->entry = json_entry;
	return sink;
}
