/* SPDX-License-Identifier: MIT
 *
 * Which rows of the queue have the vectors of a segment's records.
 */
#include "core/export/internal.h"
#include "core/sqlite/database.h"

/* With the big end first, as Chroma before 1.0 kept it: blobs compare as numbers do. */
static void bind_sequence_blob(sqlite3_stmt *s, int at, uint64_t sequence)
{
	unsigned char bytes[8];
	unsigned i;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(sequence >> (56 - 8 * i));
	sqlite3_bind_blob(s, at, bytes, sizeof(bytes), SQLITE_TRANSIENT);
}

/*
 * An `add` of an id that was there is ignored by Chroma; the one that made the record left its
 * number in the row, and later changes of the record theirs. So with a lower number the record is
 * older, whatever the pickle says, which may be another's. Where it is not known which ids the
 * index had, with a higher number the record is older if its time says so, or if a record that was
 * made after it has a number from before this `add`. A row that was lost and made again has the
 * number 0, which tells nothing: then Chroma does as the pickle says.
 */
static int was_ignored(struct export_vectors *v, struct exporter *x, sqlite3_stmt *row)
{
	static const char sql[] =
	    "SELECT e.seq_id, e.seq_id <> CASE typeof(e.seq_id) WHEN 'blob' THEN ?4 ELSE ?3 END "
	    "AND (e.created_at < q.created_at OR EXISTS (SELECT 1 FROM embeddings l WHERE "
	    "l.segment_id = ?1 AND l.id > e.id AND l.seq_id < CASE typeof(l.seq_id) WHEN 'blob' "
	    "THEN ?4 ELSE ?3 END)) FROM embeddings e JOIN embeddings_queue q ON q.seq_id = ?3 "
	    "WHERE e.segment_id = ?1 AND e.embedding_id = ?2";
	uint64_t mine = (uint64_t)sqlite3_column_int64(row, 0), sequence = 0;
	int r = v->ignored ? 0 : database_prepare(x->db, &v->ignored, sql);
	sqlite3_stmt *s = v->ignored;

	if (r == 0) {
		sqlite3_bind_text(s, 1, v->collection->metadata_segment, -1, SQLITE_STATIC);
		sqlite3_bind_value(s, 2, sqlite3_column_value(row, 2));
		sqlite3_bind_int64(s, 3, (sqlite3_int64)mine);
		bind_sequence_blob(s, 4, mine);
		r = database_step(s);
	}
	if (r == 1) {
		database_sequence(s, 0, &sequence);
		r = sequence == 0
			? v->labels_lost || mine <= v->mark
			: sequence < mine || ((v->labels_lost || mine <= v->mark) &&
					      sequence > mine && sqlite3_column_int(s, 1));
	}
	sqlite3_reset(s);
	return r;
}

int export_load_newer(struct export_vectors *v, struct exporter *x, uint64_t mark)
{
	static const char add[] =
	    "INSERT INTO temp.newer VALUES (?1, ?2) ON CONFLICT DO UPDATE SET seq = ?2";
	static const char is_there[] =
	    "SELECT coalesce((SELECT seq > 0 FROM temp.newer WHERE id = ?1), "
	    "EXISTS (SELECT 1 FROM temp.label WHERE id = ?1)), "
	    "EXISTS (SELECT 1 FROM temp.newer WHERE id = ?1)";
	sqlite3_stmt *rows = NULL, *put = NULL, *ask = NULL;
	int r = database_prepare(x->db, &rows,
				 "SELECT seq_id, operation, id, vector IS NOT NULL FROM "
				 "embeddings_queue WHERE topic = ? AND seq_id > ? ORDER BY seq_id");

	if (r == 0)
		r = database_prepare(x->db, &put, add);
	if (r == 0)
		r = database_prepare(x->db, &ask, is_there);
	if (r == 0) {
		sqlite3_bind_text(rows, 1, v->collection->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(rows, 2, (sqlite3_int64)mark);
	}
	while (r == 0 && (r = database_step(rows)) == 1) {
		int operation = sqlite3_column_int(rows, 1);
		bool has_vector = sqlite3_column_int(rows, 3), exists, known;

		sqlite3_bind_value(ask, 1, sqlite3_column_value(rows, 2));
		r = database_step(ask);
		exists = r == 1 && sqlite3_column_int(ask, 0);
		known = exists || (r == 1 && sqlite3_column_int(ask, 1));
		sqlite3_reset(ask);
		if (r < 0)
			break;
		r = 0;
		if (!known && operation == CHROMA_ADD && x->has_rows_by_id)
			exists = was_ignored(v, x, rows) > 0;
		if (operation == CHROMA_DELETE
			? !exists
			: !has_vector || (operation == CHROMA_ADD && exists) ||
			      (operation == CHROMA_UPDATE && !exists))
			continue;
		sqlite3_bind_value(put, 1, sqlite3_column_value(rows, 2));
		sqlite3_bind_int64(put, 2,
				   operation == CHROMA_DELETE ? 0 : sqlite3_column_int64(rows, 0));
		r = database_error(sqlite3_step(put));
		sqlite3_reset(put);
	}
	sqlite3_finalize(rows);
	sqlite3_finalize(put);
	sqlite3_finalize(ask);
	return r;
}

int export_load_applied(struct export_vectors *v, struct exporter *x)
{
	sqlite3_stmt *rows = NULL, *put = NULL;
	int r = database_prepare(x->db, &rows,
				 "SELECT seq_id, operation, id FROM embeddings_queue WHERE topic = "
				 "? AND seq_id <= ? AND (vector IS NOT NULL OR operation = 3) "
				 "ORDER BY seq_id");

	if (r == 0)
		r = database_prepare(x->db, &put,
				     "INSERT OR REPLACE INTO temp.applied VALUES (?, ?)");
	if (r == 0) {
		sqlite3_bind_text(rows, 1, v->collection->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(rows, 2, (sqlite3_int64)v->mark);
	}
	while (r == 0 && (r = database_step(rows)) == 1) {
		int operation = sqlite3_column_int(rows, 1);

		r = operation == CHROMA_ADD && x->has_rows_by_id ? was_ignored(v, x, rows) : 0;
		if (r == 0) {
			sqlite3_bind_value(put, 1, sqlite3_column_value(rows, 2));
			sqlite3_bind_int64(
			    put, 2, operation == CHROMA_DELETE ? 0 : sqlite3_column_int64(rows, 0));
			r = database_step(put);
			sqlite3_reset(put);
		}
		r = r > 0 ? 0 : r;
	}
	sqlite3_finalize(rows);
	sqlite3_finalize(put);
	return r;
}
