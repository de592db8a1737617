/* SPDX-License-Identifier: MIT
 *
 * Rows without which Chroma does not find a collection, and settings that it cannot read.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/check/internal.h"
#include "core/check/unlisted.h"
#include "core/chroma/queue_json.h"
#include "core/chroma/texts.h"
#include "core/sqlite/database.h"

/* The tables of tenants are whole: a first start that is cut off goes on at the next one. */
#define MIGRATED "EXISTS (SELECT 1 FROM migrations WHERE dir = 'sysdb' AND version > 4)"

/* Each row: the collection or NULL, and what it is. What a release does not have is passed over. */
static const struct {
	enum diagnose_code code;
	const char *sql;
} asked[] = {
    {DIAGNOSE_COLLECTION_ROW,
     "SELECT NULL, collection || ', ' || (SELECT count(*) FROM embeddings WHERE segment_id IN "
     "(SELECT id FROM segments s WHERE s.collection = t.collection)) || ' records' FROM "
     "(" CHROMA_TRACED ") t"},
    {DIAGNOSE_OWNER_ROW, "SELECT name, 'database ' || database_id FROM collections WHERE "
			 "database_id NOT IN (SELECT id FROM databases) AND " MIGRATED},
    {DIAGNOSE_OWNER_ROW, "SELECT NULL, 'tenant ' || tenant_id FROM databases WHERE tenant_id NOT "
			 "IN (SELECT id FROM tenants) AND " MIGRATED},
    {DIAGNOSE_OWNER_ROW,
     "SELECT NULL, 'there is no database at all' WHERE NOT EXISTS (SELECT 1 "
     "FROM databases) AND NOT EXISTS (SELECT 1 FROM collections) AND " MIGRATED},
    {DIAGNOSE_NAME_UNREADABLE, "SELECT NULL, 'collection ' || id FROM collections WHERE NOT "
			       "" CHROMA_NAME_FITS},
    {DIAGNOSE_NAME_REFUSED,
     "SELECT name, '' FROM collections WHERE " CHROMA_NAME_FITS " AND NOT " CHROMA_NAME_ALLOWED},
    {DIAGNOSE_ID_UNREADABLE,
     "SELECT name, 'database ' || database_id FROM collections WHERE NOT " CHROMA_IS_UUID(
	 "database_id")},
    {DIAGNOSE_ID_UNREADABLE,
     "SELECT NULL, 'database ' || name FROM databases WHERE NOT " CHROMA_IS_UUID("id")},
    {DIAGNOSE_ID_UNREADABLE, "SELECT NULL, coalesce(scope, '') || ' segment ' || id FROM segments "
			     "WHERE NOT " CHROMA_IS_UUID("id")},
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
    {DIAGNOSE_SEGMENT_TWICE,
     "SELECT c.name, count(*) || ' of scope ' || s.scope FROM segments s JOIN "
     "collections c ON c.id = s.collection WHERE s.scope IN ('VECTOR', "
     "'METADATA') GROUP BY c.id, s.scope HAVING count(*) > 1"},
    {DIAGNOSE_SEGMENT_SCOPE, "SELECT c.name, 'segment ' || s.id || ', scope ' || s.scope FROM "
			     "segments s JOIN collections c ON "
			     "c.id = s.collection WHERE NOT s." CHROMA_SEGMENT_SCOPE_FITS},
    {DIAGNOSE_RECORD_ID,
     "SELECT c.name, count(*) || ' records' FROM embeddings e JOIN segments s "
     "ON s.id = e.segment_id JOIN collections c ON c.id = s.collection WHERE " CHROMA_ID_UNFIT(
	 "e.embedding_id") " GROUP BY c.id"},
    {DIAGNOSE_SETTINGS,
     "SELECT c.name, 'hnsw:space of its VECTOR segment' FROM collections c JOIN segments s ON "
     "s.collection = c.id AND s.scope = 'VECTOR' WHERE " CHROMA_SPACE_LOST},
    {DIAGNOSE_TEXTS_LOST, "SELECT c.name, count(*) || ' documents' FROM (" CHROMA_TEXTS_LOST
			  ") t JOIN segments s ON s.id = t.segment_id JOIN collections c ON c.id = "
			  "s.collection GROUP BY c.id"},
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
		d->lacks_segment |= code == DIAGNOSE_ID_UNREADABLE; /* and none is left over */
	}
	return r;
}

static int ask(struct diagnosis *d, enum diagnose_code code, const char *sql)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(d->db, &rows, sql);

	if (r == 0)
		r = report_rows(d, code, rows);
	sqlite3_finalize(rows);
	return r;
}

static const char values_lost[] =
    "SELECT c.name, count(*) || ' values of metadata' FROM (" CHROMA_VALUES_LOST
    ") t JOIN embeddings e ON e.id = t.id JOIN segments s ON s.id = e.segment_id JOIN "
    "collections c ON c.id = s.collection GROUP BY c.id";

static const char arrays_lost[] =
    "SELECT c.name, count(*) || ' arrays of metadata' FROM (" CHROMA_ARRAYS_LOST
    ") t JOIN embeddings e ON e.id = t.id JOIN segments s ON s.id = e.segment_id JOIN "
    "collections c ON c.id = s.collection GROUP BY c.id";

static const char values_unfit[] =
    "SELECT c.name, count(*) || ' values that are no text' FROM (" CHROMA_TEXTS_UNFIT
    ") t JOIN embeddings e ON e.id = t.id JOIN segments s ON s.id = e.segment_id JOIN "
    "collections c ON c.id = s.collection GROUP BY c.id";

static const char unlisted[] = "SELECT NULL, collection || ', its queue is here, and its records "
			       "or the log tell of it' FROM temp.unlisted";

int diagnose_rows(struct diagnosis *d)
{
	unsigned i;
	int r = queue_json_register(d->db);

	for (i = 0; i < sizeof(asked) / sizeof(asked[0]) && r != -ENOMEM; i++)
		r = ask(d, asked[i].code, asked[i].sql);
	if (r != -ENOMEM && unlisted_find(d->db, d->options->storefd > 0 ? d->options->storefd
									 : d->options->logfd) == 0)
		r = ask(d, DIAGNOSE_COLLECTION_ROW, unlisted);
	/* Takes its time. */
	if (d->options->full && r != -ENOMEM &&
	    sqlite3_exec(d->db, CHROMA_TOLD, NULL, NULL, NULL) == SQLITE_OK) {
		r = ask(d, DIAGNOSE_TEXTS_LOST, values_lost);
		if (r != -ENOMEM && database_has_table(d->db, "embedding_metadata_array") == 1)
			r = ask(d, DIAGNOSE_TEXTS_LOST, arrays_lost);
	}
	if (d->options->full && r != -ENOMEM)
		r = ask(d, DIAGNOSE_TEXTS_LOST, values_unfit);
	return r == -ENOMEM ? r : 0;
}
