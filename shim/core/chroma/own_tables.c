/* SPDX-License-Identifier: MIT
 *
 * The tables of Chroma's own.
 */
#include "core/chroma/own_tables.h"

#include <string.h>

#include "core/sqlite/fulltext.h"

const struct chroma_table chroma_tables[] = {
    {"migrations", MIGRATION_SYSDB, 0, false},
    {"acquire_write", MIGRATION_SYSDB, 0, false},
    {"collections", MIGRATION_SYSDB, 1, true},
    {"collection_metadata", MIGRATION_SYSDB, 1, true},
    {"segments", MIGRATION_SYSDB, 2, true},
    {"segment_metadata", MIGRATION_SYSDB, 2, true},
    {"tenants", MIGRATION_SYSDB, 4, true},
    {"databases", MIGRATION_SYSDB, 4, true},
    {"maintenance_log", MIGRATION_SYSDB, 8, true},
    {"embeddings", MIGRATION_METADB, 1, true},
    {"embedding_metadata", MIGRATION_METADB, 1, true},
    {"embedding_metadata_array", MIGRATION_METADB, 6, true},
    {"max_seq_id", MIGRATION_METADB, 1, true},
    {FULLTEXT_TABLE, MIGRATION_METADB, 3, true},
    {"embeddings_queue", MIGRATION_QUEUE, 1, true},
    {"embeddings_queue_config", MIGRATION_QUEUE, 2, true},
};
const unsigned chroma_tables_count = sizeof(chroma_tables) / sizeof(chroma_tables[0]);

bool chroma_is_own_table(const char *name)
{
	unsigned i;

	/* FTS5 keeps its own tables under its name; so did the index of 0.4.0 to 0.4.5. */
	if (strncmp(name, "sqlite_", 7) == 0 || strncmp(name, "embedding_fulltext", 18) == 0)
		return true;
	for (i = 0; i < chroma_tables_count; i++)
		if (strcmp(name, chroma_tables[i].name) == 0)
			return true;
	return false;
}
