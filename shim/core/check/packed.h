/* SPDX-License-Identifier: MIT
 *
 * What a file is instead of one of Chroma's, by its beginning or its name.
 */
#ifndef CORE_CHECK_PACKED_H
#define CORE_CHECK_PACKED_H

#include <stdbool.h>
#include <stddef.h>

#define PACKED_LOOKED_AT 512 /* bytes are enough */

/* An archive or a compressed file, in words with the way out; NULL: it is none. */
const char *packed_kind(const unsigned char *p, size_t size);
/* What stands for a file that was not fetched, or an answer that came in its place; likewise. */
const char *pointer_kind(const unsigned char *p, size_t size);
/* The name under which the i-th of the clouds keeps the place of a file that it has not downloaded,
 * and what it is; whatever is in it. NULL: there is no such cloud, or the name is too long. */
const char *placeholder_name(unsigned i, const char *file, char *out, size_t room);
/* The beginning of any SQLite database. */
bool is_sqlite(const unsigned char *p, size_t size);

#endif
