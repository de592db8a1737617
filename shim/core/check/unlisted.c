/* SPDX-License-Identifier: MIT
 *
 * Collections that have lost their own row and those of their segments.
 */
#include "core/check/unlisted.h"

#include <errno.h>

#include "core/chroma/chroma.h"
#include "core/chroma/collection_names.h"
#include "core/chroma/texts.h"
#include "core/sqlite/database.h"

#define UNLISTED                                                                                \
	"substr(topic, -36) NOT IN (SELECT id FROM collections) AND substr(topic, -36) NOT IN " \
	"(SELECT collection FROM segments WHERE collection NOTNULL) AND substr(topic, -37, 1) " \
	"= '/' AND " CHROMA_IS_UUID("substr(topic, -36)")

/*
 * And whether it has records: the queue has a row of it that left its number in one of those that
 * belong to nobody. A deletion takes either out: the records, or, since 0.5.6, the queue. What an
 * older Chroma has left in the queue is told by the settings of those that came after it: only
 * where there was none it is purged from the beginning, and not after the first vacuum.
 */
static const char purged[] =
    "WITH purged AS (SELECT EXISTS (SELECT 1 FROM embeddings_queue_config WHERE CASE WHEN "
    "json_valid(config_json_str) THEN json_extract(config_json_str, '$.automatically_purge') END) "
    "AND NOT EXISTS (SELECT 1 FROM maintenance_log) AS always)";
static const char queued[] = ", ownerless AS (SELECT e.embedding_id AS id, " CHROMA_NUMBER_OF(
    "e") " AS number FROM embeddings e WHERE e.segment_id NOT IN (SELECT id FROM segments) AND "
	 "(typeof(e.seq_id) = 'integer' OR (SELECT always FROM purged))) SELECT DISTINCT "
	 "substr(topic, -36), topic IN (SELECT q.topic FROM embeddings_queue q JOIN ownerless o ON "
	 "o.id = q.id AND o.number = printf('%016X', q.seq_id)) FROM embeddings_queue "
	 "WHERE " UNLISTED;

static int prepare_queued(sqlite3 *db, sqlite3_stmt **rows)
{
	bool tells = database_has_table(db, "embeddings_queue_config") == 1 &&
		     database_has_table(db, "maintenance_log") == 1;
	char *sql =
	    sqlite3_mprintf("%s%s", tells ? purged : "WITH purged AS (SELECT 0 AS always)", queued);
	int r = sql ? database_prepare(db, rows, sql) : -ENOMEM;

	sqlite3_free(sql);
	return r;
}

static int put(sqlite3 *db, const char *id)
{
	char *sql = sqlite3_mprintf("INSERT OR IGNORE INTO temp.unlisted VALUES (%Q)", id);
	int r = sql ? database_error(sqlite3_exec(db, sql, NULL, NULL, NULL)) : -ENOMEM;

	sqlite3_free(sql);
	return r;
}

int unlisted_find(sqlite3 *db, int storefd)
{
	struct collection_names *names =
	    storefd > 0 ? collection_names_open(storefd, NULL, -1) : NULL;
	sqlite3_stmt *rows = NULL;
	int r = database_error(sqlite3_exec(
	    db, "CREATE TEMP TABLE IF NOT EXISTS unlisted(collection TEXT PRIMARY KEY)", NULL, NULL,
	    NULL));

	if (r == 0)
		r = prepare_queued(db, &rows);
	while (rows && r == 0 && (r = database_step(rows)) == 1) {
		const char *id = (const char *)sqlite3_column_text(rows, 0);
		bool is_known = sqlite3_column_int(rows, 1) ||
				(names && collection_names_find(names, id) != NULL);

		r = is_known && !(names && collection_names_is_deleted(names, id)) ? put(db, id)
										   : 0;
	}
	sqlite3_finalize(rows);
	collection_names_close(names);
	return r == -ENOENT ? 0 : r;
}
