/* SPDX-License-Identifier: MIT
 *
 * Documents and metadata whose rows are lost, of records whose own row is there. The full-text
 * index has its own copy of each document; the queue still has what its rows have set, each key as
 * the last of them says. The rest is for snapshots (records.c).
 */
#include <errno.h>
#include <inttypes.h>

#include "core/chroma/queue_json.h"
#include "core/chroma/texts.h"
#include "core/recover/internal.h"
#include "core/sqlite/database.h"

/* Which lack something, and of which more may be gone than the queue tells of: all of their
 * metadata is, or values of it. */
static const char lacking_sql[] =
    "CREATE TEMP TABLE IF NOT EXISTS lacking(id INTEGER PRIMARY KEY); INSERT OR IGNORE INTO "
    "temp.lacking SELECT id FROM (" CHROMA_TEXTS_LOST ") UNION SELECT id FROM (" CHROMA_VALUES_LOST
    "); CREATE TEMP TABLE IF NOT EXISTS lost_text(id INTEGER PRIMARY KEY); INSERT OR IGNORE INTO "
    "temp.lost_text SELECT id FROM temp.lacking l WHERE NOT EXISTS (SELECT 1 FROM "
    "embedding_metadata m WHERE m.id = l.id) UNION SELECT id FROM (" CHROMA_VALUES_LOST
    ") WHERE key <> 'chroma:document'";
/* Of which the full-text index has a better one, and what is left of the others. */
static const char better_sql[] =
    "DELETE FROM embedding_metadata WHERE rowid IN (SELECT u.n FROM (" CHROMA_TEXTS_UNFIT
    ") u JOIN embedding_fulltext_search_content f ON f.id = u.id WHERE u.key = 'chroma:document' "
    "AND typeof(f.c0) = 'text' AND mended_text(f.c0, '_') ISNULL)";
static const char unfit_sql[] =
    "CREATE TEMP TABLE IF NOT EXISTS unfit_text(n INTEGER PRIMARY KEY, id INTEGER); INSERT OR "
    "IGNORE INTO temp.unfit_text SELECT n, id FROM (" CHROMA_TEXTS_UNFIT "); UPDATE "
    "embedding_metadata SET string_value = coalesce(mended_text(CAST(string_value AS TEXT), "
    "char(65533)), CAST(string_value AS TEXT)) WHERE rowid IN (SELECT n FROM temp.unfit_text)";
static const char documents_sql[] =
    "INSERT OR IGNORE INTO embedding_metadata(id, key, string_value) SELECT e.id, "
    "'chroma:document', f.c0 FROM (" CHROMA_TEXTS_LOST
    ") e JOIN embedding_fulltext_search_content f ON f.id = e.id WHERE typeof(f.c0) = 'text'";
static const char values_sql[] =
    "INSERT OR IGNORE INTO embedding_metadata(id, key, string_value, int_value, float_value, "
    "bool_value) SELECT id, key, iif(type = 'text', value, NULL), iif(type = 'integer', value, "
    "NULL), iif(type = 'real', value, NULL), iif(type IN ('true', 'false'), value, NULL) FROM "
    "(" CHROMA_VALUES_LOST ")";

static const char arrays_lacking_sql[] =
    "CREATE TEMP TABLE IF NOT EXISTS lost_array(id INTEGER, key TEXT, value TEXT, PRIMARY KEY (id, "
    "key)) WITHOUT ROWID; INSERT OR REPLACE INTO temp.lost_array " CHROMA_ARRAYS_LOST "; INSERT OR "
    "IGNORE INTO temp.lacking SELECT id FROM temp.lost_array; INSERT OR IGNORE INTO temp.lost_text "
    "SELECT id FROM temp.lost_array; DELETE FROM embedding_metadata_array WHERE EXISTS (SELECT 1 "
    "FROM temp.lost_array l WHERE l.id = embedding_metadata_array.id AND l.key = "
    "embedding_metadata_array.key)";
static const char arrays_sql[] =
    "INSERT INTO embedding_metadata_array(id, key, string_value, int_value, float_value, "
    "bool_value) SELECT l.id, l.key, iif(j.type = 'text', j.value, NULL), iif(j.type = 'integer', "
    "j.value, NULL), iif(j.type = 'real', j.value, NULL), iif(j.type IN ('true', 'false'), "
    "j.value, "
    "NULL) FROM temp.lost_array l, json_each(l.value) j ORDER BY l.id, l.key, j.key";

static int change(struct recovery *r, const char *sql, uint64_t *count)
{
	int error = recover_sql(r, sql);

	*count = error == 0 ? (uint64_t)sqlite3_changes64(r->db) : 0;
	return error;
}

/* Of a record that the queue has from its beginning all is there again. */
static int account_for(struct recovery *r)
{
	sqlite3_stmt *rows = NULL;
	int error =
	    !r->options->account
		? 0
		: database_prepare(r->db, &rows,
				   "SELECT s.collection, e.embedding_id, e.id IN (SELECT id FROM "
				   "temp.unfit_text) OR (e.id IN (SELECT id FROM temp.lost_text) "
				   "AND NOT EXISTS (SELECT 1 FROM temp.told t WHERE t.id = e.id "
				   "AND t.is_made)) FROM (SELECT id FROM temp.lacking UNION SELECT "
				   "id FROM temp.unfit_text) l JOIN embeddings e ON e.id = l.id "
				   "JOIN segments s ON s.id = e.segment_id");

	while (rows && error == 0 && (error = database_step(rows)) == 1) {
		const char *collection = (const char *)sqlite3_column_text(rows, 0);
		const char *id = (const char *)sqlite3_column_text(rows, 1);
		size_t size = (size_t)sqlite3_column_bytes(rows, 1);

		error = sqlite3_column_int(rows, 2)
			    ? recover_account_note(r->options->account, collection, id, size)
			    : recover_account_forget(r->options->account, collection, id, size);
	}
	sqlite3_finalize(rows);
	return error;
}

/* From 1.5 on. */
static int take_arrays(struct recovery *r, uint64_t *elements)
{
	int error;

	if (database_has_table(r->db, "embedding_metadata_array") != 1)
		return 0;
	error = recover_sql(r, arrays_lacking_sql);
	return error == 0 ? change(r, arrays_sql, elements) : error;
}

int recover_texts(struct recovery *r)
{
	uint64_t documents = 0, values = 0, elements = 0, better = 0, unfit = 0;
	int error = queue_json_register(r->db);

	if (error == 0)
		error = change(r, better_sql, &better);
	if (error == 0)
		error = change(r, unfit_sql, &unfit);
	if (error == 0)
		error = recover_sql(r, CHROMA_TOLD);
	if (error == 0)
		error = recover_sql(r, lacking_sql);
	if (error == 0)
		error = change(r, documents_sql, &documents);
	if (error == 0)
		error = change(r, values_sql, &values);
	if (error == 0)
		error = take_arrays(r, &elements);
	values += elements;
	if (error == 0)
		error = account_for(r);
	if (error < 0)
		return error == -ENOENT ? 0 : error;
	r->lost_texts = true;
	if (r->options->account)
		r->options->account->may_lack |= values > 0; /* of what the queue has no more */
	r->healed += documents || values || unfit;
	if (documents)
		recover_say(r, RECOVER_INDEXES, NULL,
			    "%" PRIu64 " documents were taken from the full-text index: their own "
			    "rows were lost",
			    documents);
	if (unfit)
		recover_say(r, RECOVER_INDEXES, NULL,
			    "%" PRIu64
			    " values of metadata were no text: U+FFFD stands for what was "
			    "none",
			    unfit);
	if (values)
		recover_say(r, RECOVER_INDEXES, NULL,
			    "%" PRIu64 " lost values of metadata were taken from the queue",
			    values);
	return 0;
}
