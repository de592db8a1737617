/* SPDX-License-Identifier: MIT
 *
 * What else tells of documents and metadata than their rows, as queries.
 */
#ifndef CORE_TEXTS_H
#define CORE_TEXTS_H

/*
 * Records that lack the document that the full-text index has of them: id and segment_id. Not where
 * that has rows of no record: the migration that made it (0.4.6) gave it other numbers, or it is
 * the records that are lost.
 */
#define CHROMA_TEXTS_LOST                                                                          \
	"SELECT e.id, e.segment_id FROM embedding_fulltext_search_docsize f JOIN embeddings e ON " \
	"e.id = f.id WHERE NOT EXISTS (SELECT 1 FROM embedding_metadata m WHERE m.id = f.id AND "  \
	"m.key = 'chroma:document') AND NOT EXISTS (SELECT 1 FROM embedding_metadata m JOIN "      \
	"embedding_fulltext_search_content c ON c.id = f.id WHERE m.rowid = f.id AND "             \
	"m.string_value = c.c0) AND NOT EXISTS (SELECT 1 FROM embedding_fulltext_search_docsize "  \
	"WHERE id NOT IN (SELECT id FROM embeddings))"

/*
 * temp.told: what the queue has set of records that are there, as far as it was applied, and is not
 * damaged itself, or mended (U+FFFD). An `add` of a record that was there is ignored by Chroma.
 * is_made: it made the record. That the queue's row before it tells which speaks of the same id; an
 * `add` has done so, too, if the record names it. Only where neither tells, the times have to allow
 * it, which have whole seconds, and the order: records get their numbers in that of the queue, and
 * one whose number is below an earlier row's was there before.
 */
#define CHROMA_NUMBER_OF(e)                                                                    \
	"CASE typeof(" e ".seq_id) WHEN 'blob' THEN hex(" e ".seq_id) ELSE printf('%016X', " e \
	".seq_id) END"
#define CHROMA_TOLD                                                                                \
	"DROP TABLE IF EXISTS temp.told; CREATE TEMP TABLE told(id INTEGER, seq TEXT, is_made "    \
	"INTEGER, is_gone INTEGER, metadata TEXT, PRIMARY KEY (id, seq)) WITHOUT ROWID; DROP "     \
	"TABLE IF "                                                                                \
	"EXISTS temp.earlier; CREATE TEMP TABLE earlier(seq INTEGER PRIMARY KEY, operation "       \
	"INTEGER); "                                                                               \
	"INSERT INTO temp.earlier SELECT seq_id, lag(operation) OVER (PARTITION BY topic, id "     \
	"ORDER BY "                                                                                \
	"seq_id) FROM embeddings_queue WHERE operation IN (0, 2, 3); INSERT INTO temp.told "       \
	"SELECT e.id, "                                                                            \
	"printf('%016X', q.seq_id), q.operation IN (0, 2) AND CASE WHEN b.operation NOTNULL THEN " \
	"b.operation = 3 WHEN q.operation = 0 AND printf('%016X', q.seq_id) = " CHROMA_NUMBER_OF(  \
	    "e") " THEN 1 ELSE q.created_at <= e.created_at AND coalesce(max(e.id) OVER "          \
		 "(PARTITION BY "                                                                  \
		 "e.segment_id ORDER BY q.seq_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 "          \
		 "PRECEDING), 0) < e.id "                                                          \
		 "END, q.operation = 3, CASE WHEN json_valid(q.metadata) AND "                     \
		 "mended_text(q.metadata, '_') "                                                   \
		 "ISNULL AND instr(q.metadata, char(65533)) = 0 THEN q.metadata ELSE '{}' END "    \
		 "FROM "                                                                           \
		 "embeddings_queue q CROSS JOIN segments s ON s.collection = substr(q.topic, "     \
		 "-36) AND s.scope = "                                                             \
		 "'METADATA' CROSS JOIN embeddings e ON e.segment_id = s.id AND e.embedding_id = " \
		 "q.id LEFT JOIN "                                                                 \
		 "temp.earlier b ON b.seq = q.seq_id WHERE printf('%016X', q.seq_id) "             \
		 "<= " CHROMA_NUMBER_OF("e") " AND (q.operation <> 0 OR CASE WHEN b.operation "    \
					     "NOTNULL THEN b.operation = 3 ELSE "                  \
					     "q.created_at <= e.created_at OR printf('%016X', "    \
					     "q.seq_id) = " CHROMA_NUMBER_OF("e") " END)"

/* What a later row of the queue does not set otherwise. */
#define CHROMA_NOT_TOLD_LATER                                                                    \
	"NOT t.is_gone AND NOT EXISTS (SELECT 1 FROM temp.told n WHERE n.id = t.id AND n.seq > " \
	"t.seq AND (n.is_gone OR EXISTS (SELECT 1 FROM json_each(n.metadata) k WHERE k.key = "   \
	"j.key)))"
/* Of temp.told what lacks: id, key, type, value. */
#define CHROMA_VALUES_LOST                                                                      \
	"SELECT t.id, j.key, j.type, j.value FROM temp.told t, json_each(t.metadata) j WHERE "  \
	"j.type IN ('text', 'integer', 'real', 'true', 'false') AND NOT EXISTS (SELECT 1 FROM " \
	"embedding_metadata m WHERE m.id = t.id AND m.key = j.key) AND " CHROMA_NOT_TOLD_LATER
/* The same of arrays, from 1.5 on: id, key, value. Their elements have a table of their own, where
 * nothing tells which of them a remaining one is: all of an array lack if one does. */
#define CHROMA_ARRAYS_LOST                                                                      \
	"SELECT t.id, j.key, j.value FROM temp.told t, json_each(t.metadata) j WHERE j.type = " \
	"'array' AND (SELECT count(*) FROM embedding_metadata_array a WHERE a.id = t.id AND "   \
	"a.key = j.key) < json_array_length(j.value) AND " CHROMA_NOT_TOLD_LATER

/* An expression: no text in UTF-8. mended_text() is in chroma/queue_json.h. */
#define CHROMA_ID_UNFIT(id) "(typeof(" id ") <> 'text' OR mended_text(" id ", '_') NOTNULL)"

/* Values of metadata that are no text in UTF-8: n, id, key. */
#define CHROMA_TEXTS_UNFIT                                                                        \
	"SELECT rowid AS n, id, key FROM embedding_metadata WHERE typeof(string_value) = 'blob' " \
	"OR mended_text(string_value, '_') NOTNULL"

#endif
