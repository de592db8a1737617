/* SPDX-License-Identifier: MIT
 *
 * Ids of records that are no text in UTF-8. The row of the queue that the record was last changed
 * by, which the record names, tells its id; else the index does, if it has just one that no record
 * has. Where nothing tells, it gets "_" for what is no text.
 */
#include <errno.h>
#include <inttypes.h>

#include "core/chroma/queue_json.h"
#include "core/chroma/texts.h"
#include "core/recover/internal.h"

/* One after the other: what is whole after one is left alone by the next. */
static const char *const known[] = {
    "UPDATE OR IGNORE embeddings SET embedding_id = CAST(embedding_id AS TEXT) WHERE "
    "typeof(embedding_id) <> 'text' AND mended_text(CAST(embedding_id AS TEXT), '_') ISNULL",
    "UPDATE OR IGNORE embeddings_queue SET id = CAST(id AS TEXT) WHERE typeof(id) <> 'text' AND "
    "mended_text(CAST(id AS TEXT), '_') ISNULL",
    "UPDATE OR IGNORE embeddings AS e SET embedding_id = coalesce((SELECT q.id FROM "
    "embeddings_queue q JOIN segments s ON s.id = e.segment_id WHERE substr(q.topic, -36) = "
    "s.collection AND printf('%016X', q.seq_id) = " CHROMA_NUMBER_OF(
	"e") " AND NOT " CHROMA_ID_UNFIT("q.id") "), embedding_id) WHERE " CHROMA_ID_UNFIT("embeddi"
											   "ng_id"),
    "UPDATE embeddings_queue AS q SET id = coalesce((SELECT e.embedding_id FROM embeddings e JOIN "
    "segments s ON s.id = e.segment_id WHERE s.collection = substr(q.topic, -36) AND "
    "printf('%016X', q.seq_id) = " CHROMA_NUMBER_OF("e") " AND NOT " CHROMA_ID_UNFIT(
	"e.embedding_id") "), id) WHERE " CHROMA_ID_UNFIT("id"),
};
static const char *const made_up[] = {
    "UPDATE OR IGNORE embeddings SET embedding_id = coalesce(mended_text(CAST(embedding_id AS "
    "TEXT), '_'), 'lost') WHERE " CHROMA_ID_UNFIT("embedding_id"),
    "UPDATE OR IGNORE embeddings SET embedding_id = 'lost-' || id WHERE " CHROMA_ID_UNFIT(
	"embedding_id"),
    "UPDATE embeddings_queue SET id = coalesce(mended_text(CAST(id AS TEXT), '_'), 'lost') "
    "WHERE " CHROMA_ID_UNFIT("id"),
};

static int run_all(struct recovery *r, const char *const *sql, size_t count)
{
	size_t i;
	int error = 0;

	for (i = 0; i < count && error == 0; i++)
		error = recover_sql(r, sql[i]);
	return error;
}

/* ---- from the index ---- */

static int put_id(void *context, const struct export_record *record)
{
	sqlite3_stmt *put = context;
	int error;

	if (!record->only_index)
		return 0;
	sqlite3_bind_text(put, 1, record->id, (int)record->id_size, SQLITE_STATIC);
	error = database_step(put);
	sqlite3_reset(put);
	return error;
}

static bool has_unfit(const struct recovery *r, const struct chroma_collection *c)
{
	int64_t count = 0;

	return database_number(r->db,
			       "SELECT count(*) FROM embeddings WHERE segment_id = ? AND "
			       "" CHROMA_ID_UNFIT("embedding_id"),
			       c->metadata_segment, &count) == 0 &&
	       count == 1;
}

static int ask_index(struct recovery *r, const struct chroma_collection *c)
{
	struct export_options options = {.collection = c->id,
					 .vectors = true, /* or else it is not asked */
					 .only_index = true,
					 .record = put_id,
					 .trouble = recover_ignore_trouble};
	struct export_summary summary;
	sqlite3_stmt *put = NULL;
	int error = recover_sql(r, "DROP TABLE IF EXISTS temp.rowless_id; CREATE TEMP TABLE "
				   "rowless_id(id TEXT PRIMARY KEY)");

	if (error == 0)
		error = database_prepare(r->db, &put,
					 "INSERT OR IGNORE INTO temp.rowless_id VALUES (?)");
	options.context = put;
	if (error == 0)
		error = export_directory(r->path, r->dirfd, &options, &summary);
	sqlite3_finalize(put);
	return error < 0 ? error
			 : RECOVER_CHANGE(r,
					  "UPDATE OR IGNORE embeddings SET embedding_id = (SELECT "
					  "id FROM temp.rowless_id) WHERE segment_id = ?1 AND "
					  "" CHROMA_ID_UNFIT("embedding_id") " AND (SELECT "
									     "count(*) FROM "
									     "temp.rowless_id) = 1",
					  c->metadata_segment);
}

static int ask_indexes(struct recovery *r)
{
	struct recover_list list;
	int error = recover_list_collections(r, has_unfit, &list);
	size_t i;

	for (i = 0; i < list.count && error == 0; i++)
		error = ask_index(r, &list.list[i]);
	recover_list_free(&list);
	return error;
}

/* ---- all ---- */

/* What is known again was not lost. */
static int account_for(struct recovery *r)
{
	sqlite3_stmt *rows = NULL;
	int error = !r->options->account
			? 0
			: database_prepare(r->db, &rows,
					   "SELECT u.collection, u.id, e.embedding_id FROM "
					   "temp.unfit_id u JOIN embeddings e ON e.id = u.n WHERE "
					   "NOT " CHROMA_ID_UNFIT("e.embedding_id"));

	while (rows && error == 0 && (error = database_step(rows)) == 1)
		error = recover_account_rename(r->options->account,
					       (const char *)sqlite3_column_text(rows, 0),
					       (const char *)sqlite3_column_text(rows, 1),
					       (size_t)sqlite3_column_bytes(rows, 1),
					       (const char *)sqlite3_column_text(rows, 2));
	sqlite3_finalize(rows);
	return error;
}

int recover_ids(struct recovery *r)
{
	static const char unfit[] =
	    "SELECT (SELECT count(*) FROM embeddings WHERE " CHROMA_ID_UNFIT(
		"embedding_id") ") + (SELECT count(*) FROM embeddings_queue "
				"WHERE " CHROMA_ID_UNFIT("id") ")";
	int64_t before = 0, left = 0;
	int error = queue_json_register(r->db);

	if (error == 0)
		error = database_number(r->db, unfit, NULL, &before);
	if (error < 0 || !before)
		return error == -ENOENT ? 0 : error;
	error = recover_sql(r, "CREATE TEMP TABLE IF NOT EXISTS unfit_id(n INTEGER PRIMARY KEY, "
			       "collection TEXT, id TEXT); INSERT OR IGNORE INTO temp.unfit_id "
			       "SELECT e.id, s.collection, CAST(e.embedding_id AS TEXT) FROM "
			       "embeddings e JOIN segments s ON s.id = e.segment_id WHERE "
			       "" CHROMA_ID_UNFIT("e.embedding_id"));
	if (error == 0)
		error = run_all(r, known, sizeof(known) / sizeof(known[0]));
	if (error == 0)
		error = ask_indexes(r);
	if (error == 0)
		error = account_for(r);
	if (error == 0)
		error = database_number(r->db, unfit, NULL, &left);
	if (error == 0)
		error = run_all(r, made_up, sizeof(made_up) / sizeof(made_up[0]));
	if (error < 0)
		return error;
	r->healed++;
	recover_say(
	    r, RECOVER_QUEUE, NULL,
	    "%" PRId64 " ids of records were no text: %" PRId64
	    " are what they were, as the queue or the index has them, the others have \"_\" "
	    "for what was none",
	    before, before - left);
	return 0;
}
