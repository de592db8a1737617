/* SPDX-License-Identifier: MIT
 *
 * What one release of Chroma writes and another refuses: metadata in the queue that is no JSON, and
 * settings of an index in a collection's metadata.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/chroma/queue_json.h"
#include "core/recover/internal.h"

static int mend_rows(struct recovery *r, const char *sql, const char *what)
{
	int error = recover_sql(r, sql);
	int64_t rows = sqlite3_changes64(r->db);

	if (error < 0 || rows == 0)
		return error;
	r->healed++;
	recover_say(r, RECOVER_QUEUE, NULL, "%" PRId64 " rows of the queue %s", rows, what);
	return 0;
}

/*
 * A row without the vector that it should have keeps all others from being applied: as a change of
 * metadata alone it does not. Which record has lost its vector by that is told later.
 */
static int take_out_vectors(void *context, const struct chroma_collection *c)
{
	struct recovery *r = context;
	char mark[24], dimension[24];
	int error;

	snprintf(mark, sizeof(mark), "%" PRIu64, chroma_mark_restore(c->vector_mark.value));
	snprintf(dimension, sizeof(dimension), "%" PRId64, c->dimension);
	error = RECOVER_CHANGE(
	    r,
	    "UPDATE embeddings_queue SET operation = 1, vector = NULL, encoding = NULL WHERE topic "
	    "= "
	    "?1 AND seq_id > CAST(?2 AS INTEGER) AND operation IN (0, 1, 2) AND CASE WHEN vector "
	    "IS "
	    "NULL THEN operation <> 1 ELSE length(vector) = 0 OR length(vector) % 4 <> 0 OR "
	    "coalesce(encoding, '') NOT IN ('FLOAT32', 'INT32') OR (CAST(?3 AS INTEGER) > 0 AND "
	    "length(vector) <> 4 * CAST(?3 AS INTEGER)) END",
	    c->topic, mark, dimension);
	if (error < 0 || sqlite3_changes64(r->db) == 0)
		return error;
	r->healed++;
	recover_say(r, RECOVER_QUEUE, c->name,
		    "%" PRId64
		    " rows of the queue have lost their vector, and change metadata alone",
		    (int64_t)sqlite3_changes64(r->db));
	return 0;
}

/* Of those the document is lost. */
static int note_unreadable(struct recovery *r)
{
	struct recover_account *a = r->options->account;
	sqlite3_stmt *rows = NULL;
	int error =
	    !a ? 0
	       : database_prepare(r->db, &rows,
				  "SELECT substr(topic, -36), id FROM embeddings_queue WHERE "
				  "metadata NOTNULL AND NOT json_valid(metadata)");

	while (rows && error == 0 && (error = database_step(rows)) == 1)
		error = recover_account_note(a, (const char *)sqlite3_column_text(rows, 0),
					     (const char *)sqlite3_column_text(rows, 1),
					     (size_t)sqlite3_column_bytes(rows, 1));
	sqlite3_finalize(rows);
	return error;
}

int recover_queue(struct recovery *r)
{
	int error = queue_json_register(r->db);

	if (error == 0)
		error = recover_ids(r);
	if (error == 0) /* by which its rows are judged */
		error = recover_dimensions(r);
	if (error == 0)
		error = mend_rows(
		    r,
		    "UPDATE embeddings_queue SET metadata = mended_text(metadata, char(65533)) "
		    "WHERE mended_text(metadata, '_') NOTNULL",
		    "had metadata that is no text: U+FFFD stands for what was none");
	if (error == 0)
		error = mend_rows(r,
				  "UPDATE embeddings_queue SET metadata = mended_json(metadata) "
				  "WHERE mended_json(metadata) NOTNULL",
				  "had metadata that is no JSON (NaN, Infinity, half a surrogate): "
				  "null and U+FFFD stand in their places");
	if (error == 0)
		error = note_unreadable(r);
	if (error == 0)
		error = mend_rows(r,
				  "UPDATE embeddings_queue SET metadata = '{}' WHERE metadata "
				  "NOTNULL AND NOT json_valid(metadata)",
				  "had metadata of which nothing can be read, and have none");
	return error < 0 ? error : chroma_each_collection(r->db, take_out_vectors, r);
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
