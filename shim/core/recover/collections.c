/* SPDX-License-Identifier: MIT
 *
 * Collections whose own row is lost, while their records are there: the row comes from the newest
 * snapshot that has it.
 */
#include <errno.h>

#include "core/recover/internal.h"
#include "core/salvage/salvage.h"
#include "core/snapshot/read.h"

struct asking {
	struct recovery *r;
	struct salvage *s;
};

/* temp.need: the collections of the snapshot that are missing, wholly or in part. */
static int find_needed(struct salvage *s, sqlite3 *from)
{
	sqlite3_stmt *rows = NULL, *put = NULL;
	int error = salvage_sql(s, "CREATE TEMP TABLE IF NOT EXISTS need(collection TEXT PRIMARY "
				   "KEY); DELETE FROM need");

	if (error == 0)
		error = database_prepare(
		    s->to, &put,
		    "INSERT OR IGNORE INTO need SELECT ?2 WHERE (?2 NOT IN (SELECT id FROM "
		    "collections) AND ?2 IN (SELECT collection FROM segments)) OR (?1 NOT IN "
		    "(SELECT id FROM segments) AND ?1 IN (SELECT segment_id FROM embeddings))");
	if (error == 0)
		error = database_prepare(from, &rows, "SELECT id, collection FROM segments");
	while (error == 0 && (error = database_step(rows)) == 1) {
		sqlite3_bind_value(put, 1, sqlite3_column_value(rows, 0));
		sqlite3_bind_value(put, 2, sqlite3_column_value(rows, 1));
		error = database_step(put);
		sqlite3_reset(put);
	}
	sqlite3_finalize(rows);
	sqlite3_finalize(put);
	return error;
}

/* Of each row of `ids`, the rows of the table whose column has it. */
static int copy_all_of(struct salvage *s, sqlite3 *from, const char *table, const char *column,
		       const char *ids)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(s->to, &rows, ids);

	while (error == 0 && (error = database_step(rows)) == 1)
		error = database_copy_rows(from, s->to, table, column,
					   (const char *)sqlite3_column_text(rows, 0), NULL, true);
	sqlite3_finalize(rows);
	return error;
}

static int copy_needed(struct salvage *s, sqlite3 *from)
{
	static const char needed[] = "SELECT collection FROM need";
	int error = copy_all_of(s, from, "segments", "collection", needed);

	if (error == 0)
		error = copy_all_of(s, from, "collections", "id", needed);
	if (error == 0)
		error = copy_all_of(s, from, "collection_metadata", "collection_id", needed);
	if (error == 0)
		error = copy_all_of(s, from, "segment_metadata", "segment_id",
				    "SELECT id FROM segments WHERE collection IN (SELECT "
				    "collection FROM need)");
	return error;
}

static int copy_from(void *context, const struct manifest *snapshot)
{
	struct asking *a = context;
	struct salvage *s = a->s;
	struct snapshot_database from = {.db = NULL};
	int64_t lacks = 0;
	int error = database_number(s->to, salvage_lacking, NULL, &lacks);

	if (error < 0 || !lacks)
		return error < 0 ? error : 1;
	error = snapshot_database_open(&from, a->r->options->snapshots, snapshot);
	if (error == 0)
		error = find_needed(s, from.db);
	if (error == 0)
		error = copy_needed(s, from.db);
	snapshot_database_close(&from);
	return error;
}

int recover_collections(void *context, struct salvage *s)
{
	struct asking asking = {.r = context, .s = s};
	int64_t before, after = 0;
	int error = database_number(s->to, salvage_lacking, NULL, &before);

	if (error == 0)
		error = recover_each_snapshot(asking.r, copy_from, &asking);
	if (error == 0)
		error = database_number(s->to, salvage_lacking, NULL, &after);
	if (error == 0 && after < before)
		salvage_say(s, NULL,
			    "rows of collections that are lost were taken from a snapshot");
	return error;
}
