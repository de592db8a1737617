/* SPDX-License-Identifier: MIT
 *
 * Rows without which Chroma does not find a collection, and settings that it cannot read.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/check/internal.h"
#include "core/sqlite/database.h"

/* The tables of tenants are whole: a first start that is cut off goes on at the next one. */
#define MIGRATED "EXISTS (SELECT 1 FROM migrations WHERE dir = 'sysdb' AND version > 4)"

/* Each row: the collection or NULL, and what it is. What a release does not have is passed over. */
static const struct {
	enum diagnose_code code;
	const char *sql;
} asked[] = {
    {DIAGNOSE_OWNER_ROW, "SELECT name, 'database ' || database_id FROM collections WHERE "
			 "database_id NOT IN (SELECT id FROM databases) AND " MIGRATED},
    {DIAGNOSE_OWNER_ROW, "SELECT NULL, 'tenant ' || tenant_id FROM databases WHERE tenant_id NOT "
			 "IN (SELECT id FROM tenants) AND " MIGRATED},
    {DIAGNOSE_OWNER_ROW,
     "SELECT NULL, 'there is no database at all' WHERE NOT EXISTS (SELECT 1 "
     "FROM databases) AND NOT EXISTS (SELECT 1 FROM collections) AND " MIGRATED},
    {DIAGNOSE_SETTINGS, "SELECT NULL, 'embeddings_queue_config' FROM embeddings_queue_config "
			"WHERE NOT " CHROMA_QUEUE_CONFIG_FITS},
    {DIAGNOSE_SETTINGS, "SELECT name, 'config_json_str' FROM collections WHERE config_json_str "
			"NOTNULL AND NOT json_valid(config_json_str)"},
    {DIAGNOSE_SETTINGS, "SELECT name, 'schema_str' FROM collections WHERE schema_str NOTNULL AND "
			"NOT " CHROMA_SCHEMA_FITS},
    {DIAGNOSE_SETTINGS,
     "SELECT c.name, 'type of its ' || scope || ' segment' FROM segments s JOIN "
     "collections c ON c.id = s.collection WHERE scope IN ('VECTOR', 'METADATA') "
     "AND NOT s." CHROMA_SEGMENT_TYPE_FITS},
};

/* SQLite calls a text no JSON also where its memory does not suffice for the look at it. */
static bool has_memory(void)
{
	void *volatile room = malloc(1u << 20);
	bool has = room != NULL;

	free(room);
	return has;
}

static int report_rows(struct diagnosis *d, enum diagnose_code code, sqlite3_stmt *rows)
{
	int r;

	while ((r = database_step(rows)) == 1) {
		struct diagnose_place place = {.collection =
						   (const char *)sqlite3_column_text(rows, 0)};

		if (!has_memory())
			return -ENOMEM;
		diagnose_report(d, code, place, "%s", (const char *)sqlite3_column_text(rows, 1));
	}
	return r;
}

int diagnose_rows(struct diagnosis *d)
{
	unsigned i;
	int r = 0;

	for (i = 0; i < sizeof(asked) / sizeof(asked[0]) && r != -ENOMEM; i++) {
		sqlite3_stmt *rows = NULL;

		r = database_prepare(d->db, &rows, asked[i].sql);
		if (r == 0)
			r = report_rows(d, asked[i].code, rows);
		sqlite3_finalize(rows);
	}
	return r == -ENOMEM ? r : 0;
}
