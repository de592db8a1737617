/* SPDX-License-Identifier: MIT
 *
 * The tables of Chroma's own.
 */
#ifndef CORE_OWN_TABLES_H
#define CORE_OWN_TABLES_H

#include <stdbool.h>

#include "core/chroma/migrations.h"

/* From which migration on they are there; 0: made before all of them. */
struct chroma_table {
	const char *name;
	enum migration_dir dir;
	unsigned since;
	bool needed;
};
extern const struct chroma_table chroma_tables[];
extern const unsigned chroma_tables_count;

/* Those, SQLite's, and what the full-text index keeps. */
bool chroma_is_own_table(const char *name);

#endif
