/* SPDX-License-Identifier: MIT
 *
 * Collections that have lost their own row and those of their segments.
 */
#include "core/check/unlisted.h"

#include <errno.h>

#include "core/chroma/chroma.h"
#include "core/chroma/collection_names.h"
#include "core/sqlite/database.h"

#define UNLISTED                                                                                \
	"substr(topic, -36) NOT IN (SELECT id FROM collections) AND substr(topic, -36) NOT IN " \
	"(SELECT collection FROM segments WHERE collection NOTNULL) AND substr(topic, -37, 1) " \
	"= '/' AND " CHROMA_IS_UUID("substr(topic, -36)")

/* And whether it has records. Chroma >= 1.0, which alone writes numbers there, takes those of a
 * deleted one out. */
static const char queued[] =
    "WITH recorded AS (SELECT q.topic FROM embeddings e CROSS JOIN embeddings_queue q "
    "ON q.seq_id = e.seq_id AND q.id = e.embedding_id WHERE typeof(e.seq_id) = 'integer' AND "
    "e.segment_id NOT IN (SELECT id FROM segments)) SELECT DISTINCT substr(topic, -36), topic IN "
    "recorded FROM embeddings_queue WHERE " UNLISTED;

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
		r = database_prepare(db, &rows, queued);
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
