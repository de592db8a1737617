/* SPDX-License-Identifier: MIT
 *
 * Finding and mending what is no JSON in the queue's metadata.
 */
#include "core/chroma/queue_json.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/sqlite/database.h"

/* "\uXXXX" at p; -1: it is none. */
static int unit_at(const char *p, const char *end)
{
	int value = 0, i;

	if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
		return -1;
	for (i = 2; i < 6; i++) {
		if (!isxdigit((unsigned char)p[i]))
			return -1;
		value = value * 16 + (isdigit((unsigned char)p[i])
					  ? p[i] - '0'
					  : tolower((unsigned char)p[i]) - 'a' + 10);
	}
	return value;
}

/* A string's characters from `p` on, copied to `out`; where it ends. */
static const char *mend_string(const char *p, const char *end, char **out, size_t *count)
{
	while (p < end && *p != '"') {
		int unit = unit_at(p, end), next = unit < 0 ? -1 : unit_at(p + 6, end);
		bool is_pair = unit >= 0xd800 && unit < 0xdc00 && next >= 0xdc00 && next < 0xe000;
		size_t n = is_pair ? 12 : unit >= 0 ? 6 : *p == '\\' && end - p > 1 ? 2 : 1;

		if (!is_pair && unit >= 0xd800 && unit < 0xe000) {
			memcpy(*out, "\\ufffd", 6);
			++*count;
		} else {
			memmove(*out, p, n);
		}
		*out += n;
		p += n;
	}
	return p;
}

static size_t word_at(const char *p, const char *end)
{
	static const char *const words[] = {"-Infinity", "Infinity", "-NaN", "NaN"};
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		size_t n = strlen(words[i]);

		if ((size_t)(end - p) >= n && memcmp(p, words[i], n) == 0)
			return n;
	}
	return 0;
}

size_t queue_json_mend(const char *text, size_t size, char *out, size_t *size_out)
{
	const char *p = text, *end = text + size;
	char *start = out;
	size_t count = 0;

	while (p < end) {
		size_t n = word_at(p, end);

		if (n) {
			memcpy(out, "null", 4);
			out += 4;
			p += n;
			count++;
		} else if (*p == '"') {
			*out++ = *p++;
			p = mend_string(p, end, &out, &count);
			if (p < end)
				*out++ = *p++;
		} else {
			*out++ = *p++;
		}
	}
	*size_out = (size_t)(out - start);
	return count;
}

static void mended_json(sqlite3_context *context, int count, sqlite3_value **values)
{
	const char *text = (const char *)sqlite3_value_text(values[0]);
	size_t size = (size_t)sqlite3_value_bytes(values[0]);
	char *out = text && count == 1 ? malloc(2 * size + 1) : NULL;

	if (!out) {
		if (text)
			sqlite3_result_error_nomem(context);
	} else if (queue_json_mend(text, size, out, &size)) {
		sqlite3_result_text64(context, out, size, SQLITE_TRANSIENT, SQLITE_UTF8);
	}
	free(out);
}

/* The second value for each byte that is no UTF-8. */
static void mended_text(sqlite3_context *context, int count, sqlite3_value **values)
{
	const char *text = sqlite3_value_blob(values[0]);
	size_t size = (size_t)sqlite3_value_bytes(values[0]), at = 0, n;
	const char *other = count == 2 ? (const char *)sqlite3_value_text(values[1]) : NULL;
	char *out, *p;

	while (at < size && (n = utf8_length(text + at, size - at)))
		at += n;
	if (at == size || !other)
		return; /* NULL */
	out = p = malloc(size * strlen(other) + size);
	if (!out) {
		sqlite3_result_error_nomem(context);
		return;
	}
	for (at = 0; at < size; at += n) {
		n = utf8_length(text + at, size - at);
		p = n ? mempcpy(p, text + at, n) : mempcpy(p, other, strlen(other));
		n = n ? n : 1;
	}
	sqlite3_result_text64(context, out, (sqlite3_uint64)(p - out), SQLITE_TRANSIENT,
			      SQLITE_UTF8);
	free(out);
}

int queue_json_register(sqlite3 *db)
{
	static const int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC;
	int error = database_error(
	    sqlite3_create_function(db, "mended_json", 1, flags, NULL, mended_json, NULL, NULL));

	return error < 0 ? error
			 : database_error(sqlite3_create_function(db, "mended_text", 2, flags, NULL,
								  mended_text, NULL, NULL));
}
