/* SPDX-License-Identifier: MIT
 *
 * Finding the meaning of an error text, as people paste it: a piece of a log, with the prefixes of
 * who collected it, boxes drawn around it, and lines broken where a terminal ended.
 */
#include "core/chroma/explain.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct explain_text texts[] = {
#define TEXT(pattern, means, helps, codes) {pattern, means, helps, codes, EXPLAIN_CAUSE},
#define GENERAL(pattern, means, helps, codes) {pattern, means, helps, codes, EXPLAIN_GENERAL},
#define HARMLESS(pattern, means, helps, codes) {pattern, means, helps, codes, EXPLAIN_HARMLESS},
#include "core/chroma/explain_texts.def"
#undef TEXT
#undef GENERAL
#undef HARMLESS
};
#define TEXTS (sizeof(texts) / sizeof(texts[0]))

#define GAP_MAX 160	/* bytes that a star stands for */
#define BROKEN_WIDTH 60 /* a line that was broken is at least as long */

const struct explain_text *explain_all(size_t *count_out)
{
	*count_out = TEXTS;
	return texts;
}

/* ---- the text as it was before it was collected ---- */

/* Line ends: '\n' where another message begins, ' ' where one was broken. */
struct plain {
	char *text;
	size_t size;
};

/* "Nov 30 10:11:12 host chroma[1234]: " of journald and syslog, or with a date in digits. */
static const char *skip_journal(const char *line, const char *end)
{
	const char *p = memmem(line, (size_t)(end - line < 120 ? end - line : 120), "]: ", 3), *pid;

	for (pid = p; pid && pid > line && isdigit((unsigned char)pid[-1]);)
		pid--;
	if (!p || pid == p || pid == line || pid[-1] != '[')
		return line;
	return isdigit((unsigned char)*line) || (isupper((unsigned char)*line) && line[3] == ' ')
		   ? p + 2
		   : line;
}

/* "chroma-1  | " of Docker Compose, "0|chroma  | " of pm2, and the bars of a box. */
static const char *skip_prefix(const char *line, const char *end)
{
	const char *bar = memchr(line, '|', (size_t)(end - line)), *p;

	if (bar && bar + 1 < end && bar - line <= 4 && isdigit((unsigned char)*line))
		bar = memchr(bar + 1, '|', (size_t)(end - bar - 1)); /* pm2 has two */
	if (!bar || bar - line > 40 || (bar > line && bar[-1] != ' '))
		return line;
	for (p = line; p < bar; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-_.| ", *p))
			return line;
	return bar + 1;
}

/* U+2500 to U+257F, three bytes of UTF-8. */
static bool is_bar(const char *p, const char *end)
{
	return end - p >= 3 && (unsigned char)p[0] == 0xe2 &&
	       ((unsigned char)p[1] == 0x94 || (unsigned char)p[1] == 0x95);
}

static void put_line(struct plain *out, const char *p, const char *end)
{
	while (p < end) {
		if (is_bar(p, end)) {
			out->text[out->size++] = ' ';
			p += 3;
		} else if (p[0] == '\\' && p + 1 < end && p[1] == 'n') { /* of JSON */
			out->text[out->size++] = '\n';
			p += 2;
		} else {
			out->text[out->size++] = *p++;
		}
	}
	while (out->size && strchr(" \t\r", out->text[out->size - 1]))
		out->size--;
}

/* A date or a time, which collectors put before a broken line as well. */
static const char *skip_time(const char *line, const char *end)
{
	const char *p = line;
	int digits = 0;

	for (; p < end && (isdigit((unsigned char)*p) || strchr("-:.,TZ+/[] \t", *p)); p++)
		digits += isdigit((unsigned char)*p) != 0;
	return digits >= 4 && p - line >= 8 ? p : line;
}

static bool begins_message(const char *line)
{
	static const char *const words[] = {"INFO",  "WARN",	 "ERROR", "DEBUG", "Traceback",
					    "FATAL", "CRITICAL", "{",	  "["};
	unsigned i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strncmp(line, words[i], strlen(words[i])) == 0)
			return true;
	return false;
}

/* Whether a line goes on from the one before, which began at `start`. */
static bool goes_on(const struct plain *out, size_t start, const char *line, const char *end)
{
	const char *p = skip_time(line, end);

	if (out->size == start || p >= end)
		return false;
	if (p != line) /* indented behind its time */
		return strchr(" \t", p[-1]) && strchr(" \t", p[-2]) && !isupper((unsigned char)*p);
	if (strchr(" \t", *line))
		return true;
	return (out->text[out->size - 1] == ':' || out->size - start >= BROKEN_WIDTH) &&
	       !begins_message(line);
}

static void make_plain(const char *text, struct plain *out)
{
	size_t start = 0;

	while (*text) {
		const char *end = text + strcspn(text, "\n"), *line = skip_prefix(text, end);

		if (line == text)
			line = skip_journal(text, end);

		if (line > text && line < end && *line == ' ')
			line++;
		if (out->size) {
			bool soft = goes_on(out, start, line, end);

			out->text[out->size++] = soft ? ' ' : '\n';
			start = soft ? start : out->size;
			line = soft ? skip_time(line, end) : line;
		}
		put_line(out, line, end);
		text = *end ? end + 1 : end;
	}
	out->text[out->size] = '\0';
}

/* ---- matching ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/*
 * Where the pattern ends if it begins at `text`; NULL: it does not. A blank stands for any number
 * of them, "?" for a word, "*" for anything of the same message.
 */
static const char *match(const char *text, const char *pattern)
{
	for (; *pattern; pattern++) {
		if (*pattern == '*') {
			const char *gap;

			for (gap = text; gap - text < GAP_MAX; gap++) {
				const char *end = match(gap, pattern + 1);

				if (end || *gap == '\0' || *gap == '\n')
					return end;
			}
			return NULL;
		}
		if (*pattern == '?') {
			if (!*text || is_blank(*text))
				return NULL;
			while (*text && !is_blank(*text))
				text++;
		} else if (*pattern == ' ') {
			if (!is_blank(*text))
				return NULL;
			while (is_blank(*text))
				text++;
		} else if (tolower((unsigned char)*text++) != tolower((unsigned char)*pattern)) {
			return NULL;
		}
	}
	return text;
}

/* Not in the middle of a number: "code: 8" is not "code: 81". */
static bool ends_well(const char *end)
{
	return !(isdigit((unsigned char)end[-1]) && isdigit((unsigned char)*end));
}

static bool chroma_explain_find(const char *text, const char *pattern, size_t *at, size_t *to)
{
	const char *p;

	for (p = text; *p; p++) {
		const char *end = tolower((unsigned char)*p) == tolower((unsigned char)*pattern)
				      ? match(p, pattern)
				      : NULL;

		if (end && ends_well(end)) {
			*at = (size_t)(p - text);
			*to = (size_t)(end - text);
			return true;
		}
	}
	return false;
}

/* ---- which are told ---- */

struct found {
	const struct explain_text *text;
	size_t at, to;
};

/* What matches the same words: the first of the table is the special one. */
static void explain_add(struct found *list, size_t *count, const struct found *f)
{
	size_t i;

	for (i = 0; i < *count; i++)
		if (f->at < list[i].to && list[i].at < f->to)
			return;
	list[(*count)++] = *f;
}

static int by_place(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->text->kind != y->text->kind)
		return x->text->kind < y->text->kind ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

size_t explain_find(const char *text, const struct explain_text **out, size_t room)
{
	struct plain plain = {.text = malloc(strlen(text) + 2)};
	struct found *list = calloc(TEXTS, sizeof(*list)), f;
	size_t count = 0, i, told;

	if (plain.text && list) {
		make_plain(text, &plain);
		for (i = 0; i < TEXTS; i++) {
			f.text = &texts[i];
			if (chroma_explain_find(plain.text, texts[i].pattern, &f.at, &f.to))
				explain_add(list, &count, &f);
		}
		qsort(list, count, sizeof(*list), by_place);
	}
	/* Words around a cause, and what is harmless, only where there is no cause. */
	for (told = 0; told < count && told < room; told++) {
		if (list[told].text->kind != list[0].text->kind)
			break;
		out[told] = list[told].text;
	}
	free(plain.text);
	free(list);
	return told;
}
