/* SPDX-License-Identifier: MIT
 *
 * Writing JSON to a stream.
 */
#include "command/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command/terminal.h"

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

static void put_string(struct json *j, const char *text, size_t size)
{
	size_t at = 0;

	fputc('"', j->out);
	while (at < size) {
		size_t n = utf8_length(text + at, size - at);
		unsigned char c = (unsigned char)text[at];

		if (n == 0) {
			fputs("\xef\xbf\xbd", j->out);
			n = 1;
		} else if (c == '"' || c == '\\') {
			fprintf(j->out, "\\%c", c);
		} else if (c == '\n') {
			fputs("\\n", j->out);
		} else if (c == '\t') {
			fputs("\\t", j->out);
		} else if (c < 0x20 || c == 0x7f) {
			fprintf(j->out, "\\u%04x", c);
		} else {
			fwrite(text + at, 1, n, j->out);
		}
		at += n;
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

void json_newline(struct json *j)
{
	fputc('\n', j->out);
	j->comma = false;
}
