/* SPDX-License-Identifier: MIT
 *
 * What one release of Chroma writes and another refuses: metadata in the queue that is no JSON, and
 * settings of an index in a collection's metadata.
 */
#include <inttypes.h>

#include "core/chroma/queue_json.h"
#include "core/recover/internal.h"

int recover_queue(struct recovery *r)
{
	int error = queue_json_register(r->db);
	int64_t rows;

	if (error == 0)
		error =
		    recover_sql(r, "UPDATE embeddings_queue SET metadata = mended_json(metadata) "
				   "WHERE mended_json(metadata) NOTNULL");
	rows = sqlite3_changes64(r->db);
	if (error < 0 || rows == 0)
		return error;
	r->healed++;
	recover_say(r, RECOVER_QUEUE, NULL,
		    "%" PRId64
		    " rows of the queue had metadata that is no JSON (NaN, Infinity, half a "
		    "surrogate): null and U+FFFD stand in their places",
		    rows);
	return 0;
}

/* ---- settings ---- */

static int say_each(struct recovery *r, const char *sql, const char *what)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(r->db, &rows, sql);

	while (error == 0 && (error = database_step(rows)) == 1) {
		error = 0;
		r->healed++;
		recover_say(r, RECOVER_PARAMETERS, (const char *)sqlite3_column_text(rows, 0),
			    "%s: %.100s %s", (const char *)sqlite3_column_text(rows, 1),
			    (const char *)sqlite3_column_text(rows, 2), what);
	}
	sqlite3_finalize(rows);
	return error;
}

#define SAY                                                                                    \
	"SELECT c.name, m.key, coalesce(m.str_value, m.int_value, m.float_value, '') FROM "    \
	"collection_metadata m JOIN collections c ON c.id = m.collection_id WHERE m.key GLOB " \
	"'hnsw:*' AND NOT " CHROMA_PARAMETER_FITS

/* "Cosine" and "32" are what they mean; what nobody knows goes. */
int recover_parameters(struct recovery *r)
{
	int error = recover_sql(
	    r,
	    "UPDATE collection_metadata SET str_value = lower(trim(str_value)) WHERE key = "
	    "'hnsw:space' AND str_value NOTNULL;"
	    "UPDATE collection_metadata SET int_value = CAST(coalesce(str_value, float_value) AS "
	    "INTEGER), str_value = NULL, float_value = NULL WHERE key GLOB 'hnsw:*' AND key NOT IN "
	    "('hnsw:space', 'hnsw:resize_factor') AND int_value ISNULL AND CAST(CAST(coalesce("
	    "str_value, float_value) AS INTEGER) AS REAL) = CAST(coalesce(str_value, "
	    "float_value) AS REAL) AND CAST(coalesce(str_value, float_value) AS INTEGER) > 0");

	r->healed += error == 0 && sqlite3_changes64(r->db) > 0;
	if (error == 0)
		error = say_each(r, SAY, "was taken out: no Chroma knows it");
	return error < 0 ? error
			 : recover_sql(r, "DELETE FROM collection_metadata WHERE rowid IN (SELECT "
					  "m.rowid FROM collection_metadata m WHERE m.key GLOB "
					  "'hnsw:*' AND NOT " CHROMA_PARAMETER_FITS ")");
}
