/* SPDX-License-Identifier: MIT
 *
 * Metadata in Chroma's queue as Python writes it: JSON, but for NaN, Infinity, -Infinity and halves
 * of surrogate pairs, which Chroma >= 1.0 refuses.
 */
#ifndef CORE_QUEUE_JSON_H
#define CORE_QUEUE_JSON_H

#include <sqlite3.h>
#include <stddef.h>

/*
 * The text with null and U+FFFD in their places; anything else as it is. out has room for twice the
 * size. Returns how many places.
 */
size_t queue_json_mend(const char *text, size_t size, char *out, size_t *size_out);

/* The same as mended_json(text) in SQL, and mended_text(text, other) with `other` for each byte
 * that is no UTF-8: NULL where there is nothing to mend. 0 or -errno. */
int queue_json_register(sqlite3 *db);

#endif
