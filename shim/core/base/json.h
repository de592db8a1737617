/* SPDX-License-Identifier: MIT
 *
 * Writing JSON to a stream. Bytes that are no UTF-8 come out as U+FFFD; a NULL string as null.
 *
 *	json_begin(out, '{'); json_key(out, "pid"); json_uint(out, 7); json_end(out, '}');
 */
#ifndef CORE_JSON_H
#define CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json {
	FILE *out;
	bool comma; /* before the next value or key */
};

void json_begin(struct json *j, char bracket);
void json_end(struct json *j, char bracket);
void json_key(struct json *j, const char *key);

void json_string(struct json *j, const char *text);
void json_bytes(struct json *j, const char *text, size_t size);
void json_int(struct json *j, int64_t value);
void json_uint(struct json *j, uint64_t value);
void json_bool(struct json *j, bool value);
void json_null(struct json *j);
/* As short as reads back the same; always with a point or exponent. null if not finite. */
void json_double(struct json *j, double value);

/* Length of the valid UTF-8 sequence at text, 0 if there is none. */
size_t utf8_length(const char *text, size_t size);

/* Members of an object; a text that is NULL or empty is null. */
void json_put_text(struct json *j, const char *key, const char *text);
void json_put_uint(struct json *j, const char *key, uint64_t value);

/* Ends a line of JSON Lines. */
void json_newline(struct json *j);

#endif
