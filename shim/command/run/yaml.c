/* SPDX-License-Identifier: MIT
 *
 * One value out of a YAML file, for the configuration that `chroma run FILE` reads.
 *
 * The text is terminated by a zero byte, which ends every loop. What this does not understand is
 * said to be so, never guessed.
 */
#include "command/run/yaml.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct reader {
	const char *p;
	const char *start; /* of the text */
	bool lost;	   /* something was not understood */
};

struct text {
	char *out;
	size_t room, n;
	bool full;
};

static void put(struct text *t, char c)
{
	if (t->n + 1 >= t->room)
		t->full = true;
	else
		t->out[t->n++] = c;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_end(char c)
{
	return c == '\0' || c == '\n' || c == '\r';
}

static void skip_blanks(struct reader *r)
{
	while (is_blank(*r->p))
		r->p++;
}

static void skip_line(struct reader *r)
{
	r->p += strcspn(r->p, "\n");
	r->p += *r->p == '\n';
}

/* Skips blanks, ends of lines and comments. */
static void skip_space(struct reader *r)
{
	for (;;) {
		while (is_blank(*r->p) || *r->p == '\n' || *r->p == '\r')
			r->p++;
		if (*r->p != '#' || (r->p > r->start && !is_blank(r->p[-1]) && r->p[-1] != '\n'))
			return;
		r->p += strcspn(r->p, "\n");
	}
}

/* "!!str", "&name": they change nothing here. */
static void skip_properties(struct reader *r)
{
	while (*r->p == '!' || *r->p == '&') {
		while (!is_blank(*r->p) && !is_end(*r->p))
			r->p++;
		skip_blanks(r);
	}
}

/* ---- scalars ---- */

/* A line's end within quotes is a blank, and each empty line behind it a line's end. */
static void fold(struct reader *r, struct text *t)
{
	unsigned lines = 0;

	while (t->n && is_blank(t->out[t->n - 1]))
		t->n--;
	for (; is_blank(*r->p) || *r->p == '\n' || *r->p == '\r'; r->p++)
		lines += *r->p == '\n';
	put(t, lines > 1 ? '\n' : ' ');
	while (lines-- > 2)
		put(t, '\n');
}

static void put_code(struct reader *r, struct text *t, unsigned digits)
{
	uint32_t code = 0;

	for (; digits; digits--, r->p++) {
		char c = *r->p, lower = (char)(c | 0x20);

		if (c >= '0' && c <= '9')
			code = code * 16 + (uint32_t)(c - '0');
		else if (lower >= 'a' && lower <= 'f')
			code = code * 16 + (uint32_t)(lower - 'a' + 10);
		else
			break;
	}
	/* Surrogates of JSON come in pairs. */
	if (digits || !code || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff) {
		r->lost = true;
	} else if (code < 0x80) {
		put(t, (char)code);
	} else if (code < 0x800) {
		put(t, (char)(0xc0 | code >> 6));
		put(t, (char)(0x80 | (code & 0x3f)));
	} else if (code < 0x10000) {
		put(t, (char)(0xe0 | code >> 12));
		put(t, (char)(0x80 | (code >> 6 & 0x3f)));
		put(t, (char)(0x80 | (code & 0x3f)));
	} else {
		put(t, (char)(0xf0 | code >> 18));
		put(t, (char)(0x80 | (code >> 12 & 0x3f)));
		put(t, (char)(0x80 | (code >> 6 & 0x3f)));
		put(t, (char)(0x80 | (code & 0x3f)));
	}
}

/* Reads what stands behind a backslash. */
static void read_escape(struct reader *r, struct text *t)
{
	static const char from[] = "\\\"/ tnrabefv", to[] = "\\\"/ \t\n\r\a\b\033\f\v";
	const char *at = *r->p ? strchr(from, *r->p) : NULL;
	char c = *r->p;

	if (!c)
		return;
	r->p++;
	if (at)
		put(t, to[at - from]);
	else if (c == 'x' || c == 'u' || c == 'U')
		put_code(r, t, c == 'x' ? 2 : c == 'u' ? 4 : 8);
	else if (c == '\n')
		while (is_blank(*r->p))
			r->p++;
	else
		r->lost = true;
}

static void read_quoted(struct reader *r, struct text *t)
{
	char quote = *r->p++;

	while (*r->p && !r->lost) {
		char c = *r->p++;

		if (c == quote && quote == '\'' && *r->p == '\'')
			put(t, *r->p++);
		else if (c == quote)
			return;
		else if (c == '\\' && quote == '"')
			read_escape(r, t);
		else if (c == '\n' || (c == '\r' && *r->p == '\n'))
			fold(r, t);
		else
			put(t, c);
	}
	r->lost = true; /* it has no end */
}

/* In a flow, brackets and commas end it as well. */
static void read_plain(struct reader *r, struct text *t, bool flow)
{
	const char *start = r->p;

	for (; !is_end(*r->p); r->p++) {
		if (*r->p == '#' && r->p > start && is_blank(r->p[-1]))
			break;
		if (*r->p == ':' &&
		    (is_blank(r->p[1]) || is_end(r->p[1]) || (flow && strchr(",[]{}", r->p[1]))))
			break;
		if (flow && strchr(",[]{}", *r->p))
			break;
		put(t, *r->p);
	}
	while (t->n && is_blank(t->out[t->n - 1]))
		t->n--;
}

static unsigned indent_of(const char *line)
{
	unsigned n = 0;

	while (line[n] == ' ')
		n++;
	return n;
}

static unsigned column_of(const struct reader *r)
{
	const char *line = r->p;

	while (line > r->start && line[-1] != '\n')
		line--;
	return (unsigned)(r->p - line);
}

/* The lines of "|" and ">" that are further in than the key; the ends of lines behind them go. */
static void read_block(struct reader *r, struct text *t, unsigned outer)
{
	char style = *r->p, between = '\0';
	unsigned indent = 0;

	/* Without "-" the value ends in a line's end: a name that nobody means. */
	r->lost |= !memchr(r->p, '-', strcspn(r->p, "\n#"));
	for (skip_line(r); *r->p; skip_line(r)) {
		unsigned here = indent_of(r->p);

		if (is_end(r->p[here])) {
			between = '\n';
			continue;
		}
		if (here <= outer)
			return;
		indent = indent ? indent : here;
		if (between)
			put(t, between);
		for (r->p += indent < here ? indent : here; !is_end(*r->p); r->p++)
			put(t, *r->p);
		between = style == '|' ? '\n' : ' ';
	}
}

/* ---- collections ---- */

/* Skips from a bracket to behind the one that closes it. */
static void skip_flow(struct reader *r)
{
	char dump[4];
	unsigned depth = 0;

	do {
		skip_space(r);
		if (*r->p == '"' || *r->p == '\'') {
			struct text t = {.out = dump, .room = sizeof(dump)};

			read_quoted(r, &t);
			continue;
		}
		if (!*r->p) {
			r->lost = true;
			return;
		}
		depth += *r->p == '{' || *r->p == '[';
		depth -= *r->p == '}' || *r->p == ']';
		r->p++;
	} while (depth && !r->lost);
}

/* The value at r->p, which is that of the key that is looked for. */
static enum yaml_answer read_value(struct reader *r, struct text *t, unsigned outer, bool flow)
{
	t->n = 0;
	skip_blanks(r);
	skip_properties(r);
	if (flow || is_end(*r->p) || *r->p == '#') {
		skip_space(r);
		if (!flow && column_of(r) <= outer)
			return YAML_NONE; /* the next key */
		skip_properties(r);
	}
	if (!*r->p || *r->p == '*' || *r->p == '{' || *r->p == '[')
		return *r->p ? YAML_NOT_UNDERSTOOD : YAML_NONE;
	if (*r->p == '"' || *r->p == '\'') {
		read_quoted(r, t);
	} else if (!flow && (*r->p == '|' || *r->p == '>')) {
		read_block(r, t, outer);
	} else {
		read_plain(r, t, flow);
		t->out[t->n] = '\0';
		if (!t->n || !strcmp(t->out, "~") || !strcmp(t->out, "null"))
			return YAML_NONE;
		/* A plain text that goes on in the next line. */
		skip_blanks(r);
		if (!flow && *r->p != '#' && is_end(*r->p) && *r->p) {
			skip_line(r);
			if (indent_of(r->p) > outer && !is_end(r->p[indent_of(r->p)]) &&
			    r->p[indent_of(r->p)] != '#')
				return YAML_NOT_UNDERSTOOD;
		}
	}
	t->out[t->n] = '\0';
	return r->lost || t->full ? YAML_NOT_UNDERSTOOD : t->n ? YAML_FOUND : YAML_NONE;
}

static void read_key(struct reader *r, struct text *t, bool flow)
{
	t->n = 0;
	skip_properties(r);
	if (*r->p == '"' || *r->p == '\'')
		read_quoted(r, t);
	else
		read_plain(r, t, flow);
	t->full = false; /* a long key is another one */
	t->out[t->n] = '\0';
}

static enum yaml_answer find_in_flow(struct reader *r, const char *key, struct text *t)
{
	r->p++;
	for (;;) {
		skip_space(r);
		if (*r->p == '}')
			return YAML_NONE;
		if (*r->p == '?')
			r->p++;
		skip_space(r);
		read_key(r, t, true);
		skip_space(r);
		if (r->lost || (*r->p != ':' && *r->p != ',' && *r->p != '}'))
			return YAML_NOT_UNDERSTOOD;
		if (*r->p == ':') {
			r->p++;
			if (!strcmp(t->out, key))
				return read_value(r, t, 0, true);
			skip_space(r);
			skip_properties(r);
			if (*r->p == '{' || *r->p == '[')
				skip_flow(r);
			else
				read_key(r, t, true);
			skip_space(r);
		}
		if (r->lost || (*r->p != ',' && *r->p != '}'))
			return YAML_NOT_UNDERSTOOD;
		r->p += *r->p == ',';
	}
}

/* Behind the value of a key that is not looked for; what is further in belongs to it. */
static void skip_value(struct reader *r, struct text *t)
{
	skip_blanks(r);
	skip_properties(r);
	t->n = 0;
	if (*r->p == '{' || *r->p == '[')
		skip_flow(r);
	else if (*r->p == '"' || *r->p == '\'')
		read_quoted(r, t);
	skip_line(r);
}

static enum yaml_answer find_in_block(struct reader *r, const char *key, struct text *t)
{
	unsigned outer = indent_of(r->p);

	while (*r->p && !r->lost) {
		unsigned here = indent_of(r->p);
		const char *line = r->p + here;
		bool asks = *line == '?' && is_blank(line[1]);

		if (!strncmp(r->p, "---", 3) || !strncmp(r->p, "...", 3))
			return YAML_NONE; /* the next document */
		if (here > outer || is_end(*line) || *line == '#' || *line == '-') {
			skip_line(r);
			continue;
		}
		if (here < outer || *line == '\t' || *line == '*')
			return YAML_NOT_UNDERSTOOD;
		r->p = line + (asks ? 2 : 0);
		skip_blanks(r);
		read_key(r, t, false);
		skip_blanks(r);
		if (asks) {
			skip_space(r);
			asks = *r->p == ':';
		}
		if (*r->p != ':')
			return YAML_NOT_UNDERSTOOD;
		r->p++;
		if (!strcmp(t->out, key))
			return read_value(r, t, outer, false);
		skip_value(r, t);
	}
	return r->lost ? YAML_NOT_UNDERSTOOD : YAML_NONE;
}

enum yaml_answer yaml_find(const char *text, const char *key, char *out, size_t room)
{
	static const char mark[] = "\xef\xbb\xbf";
	struct reader r = {.p = text, .start = text};
	struct text t = {.out = out, .room = room};

	if (!strncmp(r.p, mark, sizeof(mark) - 1))
		r.p += sizeof(mark) - 1;
	r.start = r.p;
	for (;;) {
		const char *line;

		skip_space(&r);
		for (line = r.p; line > r.start && line[-1] == ' '; line--)
			;
		if (*r.p == '%') {
			skip_line(&r);
		} else if (!strncmp(r.p, "---", 3) && (is_blank(r.p[3]) || is_end(r.p[3]))) {
			r.p += 3;
			skip_blanks(&r);
			skip_properties(&r);
		} else if (*r.p == '{') {
			return find_in_flow(&r, key, &t);
		} else {
			r.p = line;
			return find_in_block(&r, key, &t);
		}
	}
}
