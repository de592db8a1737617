/* SPDX-License-Identifier: MIT
 *
 * Writing JSON to a stream.
 */
#include "core/base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t utf8_length(const char *text, size_t size)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t n, i;
	uint32_t code;

	if (size == 0)
		return 0;
	if (*p < 0x80)
		return 1;
	n = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : *p >= 0xc0 ? 2 : 0;
	if (n == 0 || *p > 0xf4 || n > size)
		return 0;
	code = *p & (0xffu >> (n + 1));
	for (i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3fu);
	}
	if (code < (n == 2   ? 0x80u
		    : n == 3 ? 0x800u
			     : 0x10000u) ||
	    code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 0;
	return n;
}

static void separate(struct json *j)
{
	if (j->comma)
		fputc(',', j->out);
	j->comma = true;
}

void json_begin(struct json *j, char bracket)
{
	separate(j);
	fputc(bracket, j->out);
	j->comma = false;
}

void json_end(struct json *j, char bracket)
{
	fputc(bracket, j->out);
	j->comma = true;
}

/* How many bytes from the first on stand in a string as they are. */
static size_t plain_length(const char *text, size_t size)
{
	size_t at = 0, n;

	while (at < size) {
		unsigned char c = (unsigned char)text[at];

		if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
			break;
		n = c < 0x80 ? 1 : utf8_length(text + at, size - at);
		if (n == 0)
			break;
		at += n;
	}
	return at;
}

/* One byte that does not. */
static void put_escaped(struct json *j, unsigned char c)
{
	if (c >= 0x80)
		fputs("\xef\xbf\xbd", j->out);
	else if (c == '"' || c == '\\')
		fprintf(j->out, "\\%c", c);
	else if (c == '\n')
		fputs("\\n", j->out);
	else if (c == '\t')
		fputs("\\t", j->out);
	else
		fprintf(j->out, "\\u%04x", c);
}

static void put_string(struct json *j, const char *text, size_t size)
{
	size_t at = 0;

	fputc('"', j->out);
	while (at < size) {
		size_t n = plain_length(text + at, size - at);

		fwrite(text + at, 1, n, j->out);
		at += n;
		if (at < size)
			put_escaped(j, (unsigned char)text[at++]);
	}
	fputc('"', j->out);
}

void json_key(struct json *j, const char *key)
{
	separate(j);
	put_string(j, key, strlen(key));
	fputc(':', j->out);
	j->comma = false;
}

void json_bytes(struct json *j, const char *text, size_t size)
{
	separate(j);
	put_string(j, text, size);
}

void json_string(struct json *j, const char *text)
{
	if (text)
		json_bytes(j, text, strlen(text));
	else
		json_null(j);
}

void json_int(struct json *j, int64_t value)
{
	separate(j);
	fprintf(j->out, "%" PRId64, value);
}

void json_uint(struct json *j, uint64_t value)
{
	separate(j);
	fprintf(j->out, "%" PRIu64, value);
}

void json_bool(struct json *j, bool value)
{
	separate(j);
	fputs(value ? "true" : "false", j->out);
}

void json_null(struct json *j)
{
	separate(j);
	fputs("null", j->out);
}

void json_double(struct json *j, double value)
{
	char text[32];

	if (!isfinite(value)) {
		json_null(j);
		return;
	}
	separate(j);
	snprintf(text, sizeof(text), "%.15g", value);
	if (strtod(text, NULL) != value)
		snprintf(text, sizeof(text), "%.17g", value);
	/* With a point, so that it is read back as a float. */
	fprintf(j->out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

void json_put_text(struct json *j, const char *key, const char *text)
{
	json_key(j, key);
	json_string(j, text && *text ? text : NULL);
}

void json_put_uint(struct json *j, const char *key, uint64_t value)
{
	json_key(j, key);
	json_uint(j, value);
}

void json_newline(struct json *j)
{
	fputc('\n', j->out);
	j->comma = false;
}
