/* SPDX-License-Identifier: MIT
 *
 * Names that are not given away: each is a hash that only who has the store can make, the same for
 * the same name. What is Chroma's own (files, tables, columns) and what is SQL's stays readable.
 */
#ifndef COMMAND_CONCEAL_H
#define COMMAND_CONCEAL_H

#include <stddef.h>
#include <stdint.h>

#include "core/store/store.h"

struct conceal {
	uint8_t key[STORE_ID_SIZE];
};

#define CONCEAL_SIZE 24 /* "x-" and 16 digits */

/* Any name or text. Returns out. */
char *conceal_text(const struct conceal *c, const char *text, char out[CONCEAL_SIZE]);
/* A path in the directory: each part that is not Chroma's own. */
char *conceal_path(const struct conceal *c, const char *path, char *out, size_t room);
/* A statement or the name of a table or column: words that stand in Chroma's migrations or are
 * SQL's stay, literals become ?, all else is hashed. */
char *conceal_sql(const struct conceal *c, const char *sql, char *out, size_t room);

#endif
