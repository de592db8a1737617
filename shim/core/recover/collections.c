/* SPDX-License-Identifier: MIT
 *
 * Collections whose own row is lost, while their records are there: the row comes from the newest
 * snapshot that has it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/check/unlisted.h"
#include "core/recover/internal.h"
#include "core/salvage/salvage.h"
#include "core/snapshot/read.h"

struct asking {
	struct recovery *r;
	struct salvage *s;
	bool knows_all; /* no newer snapshot has been read */
};

#define LACKS(table) "coalesce((SELECT lacks FROM damage WHERE name = '" table "'), 0)"

/*
 * ?1 the segment, ?2 its collection, ?3 its name, ?4 its database; whether then ?5 it had records
 * and ?6 a mark, and ?7 whether this is the newest snapshot: what that has not was deleted before.
 * Where a whole table here does not tell of it any more, it has been deleted since.
 */
static const char need_sql[] =
    "INSERT OR IGNORE INTO need SELECT ?2, 0 WHERE (?2 IN (SELECT id FROM lost_collection) AND ?2 "
    "NOT "
    "IN (SELECT id FROM collections)) OR (" LACKS(
	"segments") " AND ?1 NOT IN (SELECT id FROM segments) AND ?1 IN (SELECT segment_id FROM "
		    "embeddings)) UNION ALL SELECT ?2, 1 WHERE ?7 AND " LACKS(
			"collections") " AND " LACKS("segments") " AND ?2 NOT IN (SELECT id FROM "
								 "collections)";
static const char made_again_sql[] =
    " AND NOT EXISTS (SELECT 1 FROM collections WHERE name = ?3%s)";
static const char gone_sql[] = "INSERT OR IGNORE INTO gone SELECT ?2 WHERE (NOT " LACKS(
    "embeddings") " AND ?5 AND ?1 NOT IN (SELECT segment_id FROM embeddings)) OR "
		  "(NOT " LACKS("max_seq_id") " AND ?6 AND ?1 NOT IN (SELECT segment_id "
					      "FROM max_seq_id))";

static int prepare_need(struct asking *a, sqlite3_stmt **need, sqlite3_stmt **gone)
{
	bool has_database = database_has_column(a->s->to, "collections", "database_id") == 1;
	char *end = sqlite3_mprintf(made_again_sql, has_database ? " AND database_id IS ?4" : "");
	char *sql = end ? sqlite3_mprintf("%s%s", need_sql, end) : NULL;
	int error =
	    salvage_sql(a->s, "CREATE TEMP TABLE IF NOT EXISTS need(collection TEXT PRIMARY "
			      "KEY, is_told_here_only INTEGER); DELETE FROM need;"
			      "CREATE TEMP TABLE IF NOT EXISTS gone(collection TEXT PRIMARY "
			      "KEY); DELETE FROM gone");

	if (error == 0)
		error = sql ? database_prepare(a->s->to, need, sql) : -ENOMEM;
	if (error == 0)
		error = database_prepare(a->s->to, gone, gone_sql);
	sqlite3_free(sql);
	sqlite3_free(end);
	return error;
}

/* Its rows as need_sql has them. */
static int prepare_segments(sqlite3 *from, sqlite3_stmt **rows)
{
	bool has_database = database_has_column(from, "collections", "database_id") == 1;
	char sql[320];

	snprintf(sql, sizeof(sql),
		 "SELECT s.id, s.collection, c.name, %s, EXISTS (SELECT 1 FROM embeddings e WHERE "
		 "e.segment_id = s.id), EXISTS (SELECT 1 FROM max_seq_id m WHERE m.segment_id = "
		 "s.id) FROM segments s JOIN collections c ON c.id = s.collection",
		 has_database ? "c.database_id" : "NULL");
	return database_prepare(from, rows, sql);
}

static int run_for_row(sqlite3_stmt *put, sqlite3_stmt *row, bool is_newest)
{
	int i, error;

	for (i = 0; i < sqlite3_column_count(row); i++)
		if (i + 1 <= sqlite3_bind_parameter_count(put))
			sqlite3_bind_value(put, i + 1, sqlite3_column_value(row, i));
	if (sqlite3_bind_parameter_count(put) > i)
		sqlite3_bind_int(put, i + 1, is_newest);
	error = database_step(put);
	sqlite3_reset(put);
	return error;
}

/* temp.need: the collections of the snapshot that are missing, wholly or in part. */
static int find_needed(struct asking *a, sqlite3 *from)
{
	sqlite3_stmt *rows = NULL, *need = NULL, *gone = NULL;
	int error = prepare_need(a, &need, &gone);

	if (error == 0)
		error = prepare_segments(from, &rows);
	while (error == 0 && (error = database_step(rows)) == 1) {
		error = run_for_row(need, rows, a->knows_all);
		if (error == 0)
			error = run_for_row(gone, rows, false);
	}
	sqlite3_finalize(rows);
	sqlite3_finalize(need);
	sqlite3_finalize(gone);
	return error;
}

/* Of each row of `ids`, the rows of the table whose column has it. */
static int copy_all_of(sqlite3 *to, sqlite3 *from, const char *table, const char *column,
		       const char *ids)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(to, &rows, ids);

	while (error == 0 && (error = database_step(rows)) == 1)
		error = database_copy_rows(from, to, table, column,
					   (const char *)sqlite3_column_text(rows, 0), NULL, true);
	sqlite3_finalize(rows);
	return error;
}

/* Of what collections refer to. Before 0.4.15 there are none. */
static int copy_owners(sqlite3 *to, sqlite3 *from)
{
	int error;

	if (database_has_table(to, "databases") != 1 || database_has_table(from, "databases") != 1)
		return 0;
	error = copy_all_of(to, from, "databases", "id",
			    "SELECT DISTINCT database_id FROM collections WHERE database_id NOT IN "
			    "(SELECT id FROM databases)");
	return error < 0 ? error
			 : copy_all_of(to, from, "tenants", "id",
				       "SELECT DISTINCT tenant_id FROM databases WHERE tenant_id "
				       "NOT IN (SELECT id FROM tenants)");
}

static int copy_needed(sqlite3 *to, sqlite3 *from)
{
	static const char needed[] = "SELECT collection FROM need";
	int error = copy_all_of(to, from, "segments", "collection", needed);

	if (error == 0)
		error = copy_all_of(to, from, "collections", "id", needed);
	if (error == 0)
		error = copy_all_of(to, from, "collection_metadata", "collection_id", needed);
	if (error == 0)
		error = copy_all_of(to, from, "segment_metadata", "segment_id",
				    "SELECT id FROM segments WHERE collection IN (SELECT "
				    "collection FROM need)");
	return error < 0 ? error : copy_owners(to, from);
}

/* Nobody can tell any more that they were deleted since. */
static int tell_needed(struct asking *a, const struct manifest *snapshot)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(a->s->to, &rows,
				     "SELECT c.name, n.is_told_here_only FROM need n JOIN "
				     "collections c ON c.id = n.collection");

	while (error == 0 && (error = database_step(rows)) == 1) {
		const char *name = (const char *)sqlite3_column_text(rows, 0);

		error = 0;
		if (sqlite3_column_int(rows, 1))
			salvage_say(a->s, name,
				    "nothing but snapshot %llu tells of it any more, and it is "
				    "there as it was then; if it has been deleted since, delete "
				    "it again",
				    (unsigned long long)snapshot->header.id);
		else
			salvage_say(a->s, name,
				    "its rows, which are lost, are those of snapshot %llu",
				    (unsigned long long)snapshot->header.id);
	}
	sqlite3_finalize(rows);
	return error;
}

static int copy_from(void *context, const struct manifest *snapshot)
{
	struct asking *a = context;
	struct snapshot_database from = {.db = NULL};
	int error = snapshot_database_open(&from, a->r->options->snapshots, snapshot);

	if (error == 0)
		error = find_needed(a, from.db);
	if (error == 0)
		error = recover_forget_deleted(a->r, a->s->to);
	if (error == 0)
		error =
		    salvage_sql(a->s, "DELETE FROM need WHERE is_told_here_only AND collection IN "
				      "(SELECT collection FROM gone)");
	if (error == 0)
		error = copy_needed(a->s->to, from.db);
	if (error == 0)
		error = tell_needed(a, snapshot);
	snapshot_database_close(&from);
	a->knows_all = a->knows_all && error < 0;
	return error;
}

static int copy_name(struct recovery *r, sqlite3 *from, const char *id)
{
	sqlite3_stmt *row = NULL;
	int error = database_prepare(from, &row, "SELECT name FROM collections WHERE id = ?");

	if (error == 0) {
		sqlite3_bind_text(row, 1, id, -1, SQLITE_STATIC);
		error = database_step(row);
	}
	if (error == 1)
		error =
		    RECOVER_CHANGE(r, "UPDATE OR IGNORE collections SET name = ?1 WHERE id = ?2",
				   (const char *)sqlite3_column_text(row, 0), id);
	sqlite3_finalize(row);
	return error;
}

static int copy_names_from(void *context, const struct manifest *snapshot)
{
	struct recovery *r = context;
	struct snapshot_database from = {.db = NULL};
	sqlite3_stmt *rows = NULL;
	int error = snapshot_database_open(&from, r->options->snapshots, snapshot);

	if (error == 0)
		error = database_prepare(r->db, &rows,
					 "SELECT id FROM collections WHERE NOT " CHROMA_NAME_FITS);
	while (error == 0 && (error = database_step(rows)) == 1)
		error = copy_name(r, from.db, (const char *)sqlite3_column_text(rows, 0));
	sqlite3_finalize(rows);
	snapshot_database_close(&from);
	return error;
}

int recover_names(struct recovery *r)
{
	static const char unfit[] = "SELECT count(*) FROM collections WHERE NOT " CHROMA_NAME_FITS;
	int64_t before, after = 0;
	int error = database_number(r->db, unfit, NULL, &before);

	if (error < 0 || !before)
		return error;
	error = recover_each_snapshot(r, copy_names_from, r);
	if (error == 0)
		error = database_number(r->db, unfit, NULL, &after);
	if (error == 0 && after < before) {
		r->healed++;
		recover_say(r, RECOVER_SEGMENTS, NULL,
			    "%" PRId64
			    " names of collections that were empty or no text are those of a "
			    "snapshot",
			    before - after);
	}
	return error;
}

static int copy_owners_from(void *context, const struct manifest *snapshot)
{
	struct recovery *r = context;
	struct snapshot_database from = {.db = NULL};
	int error = snapshot_database_open(&from, r->options->snapshots, snapshot);

	if (error == 0)
		error = copy_owners(r->db, from.db);
	snapshot_database_close(&from);
	return error;
}

int recover_owners(struct recovery *r)
{
	static const char rows[] =
	    "SELECT (SELECT count(*) FROM databases) + (SELECT count(*) FROM tenants)";
	int64_t before, after = 0;
	int error = database_number(r->db, rows, NULL, &before);

	if (error < 0) /* there are no such tables */
		return error == -ENOENT ? 0 : error;
	error = recover_each_snapshot(r, copy_owners_from, r);
	if (error == 0)
		error = database_number(r->db, rows, NULL, &after);
	if (error == 0 && after > before) {
		r->healed++;
		recover_say(r, RECOVER_SEGMENTS, NULL,
			    "%" PRId64 " rows of databases and tenants are those of a snapshot",
			    after - before);
	}
	return error;
}

int recover_collections(void *context, struct salvage *s)
{
	struct asking asking = {.r = context, .s = s, .knows_all = true};

	return recover_each_snapshot(asking.r, copy_from, &asking);
}

static void say_row(void *context, const char *collection, const char *sentence)
{
	recover_say(context, RECOVER_SEGMENTS, collection, "%s", sentence);
}

int recover_lost_rows(struct recovery *r)
{
	const struct salvage_help help = {.context = r,
					  .find_collections =
					      r->options->snapshots ? recover_collections : NULL,
					  .say = say_row};
	struct salvage s = {.dirfd = r->dirfd, .to = r->db, .help = &help};
	int64_t lost = 0;
	int error = unlisted_find(r->db, r->options->storefd);

	if (error == 0)
		error = database_number(r->db,
					"SELECT count(*) FROM (" CHROMA_TRACED " UNION SELECT "
					"collection FROM temp.unlisted)",
					NULL, &lost);
	if (error < 0 || !lost)
		return error == -ENOENT ? 0 : error;
	error = salvage_sql(&s, "CREATE TEMP TABLE IF NOT EXISTS damage(name TEXT PRIMARY KEY, "
				"root INTEGER, lacks INTEGER, doubtful INTEGER)");
	if (error == 0)
		error = salvage_traced_collections(&s);
	if (error < 0)
		return error;
	r->healed++;
	if (r->options->account)
		r->options->account->nameless += s.nameless;
	recover_say(r, RECOVER_SEGMENTS, NULL,
		    "%" PRId64 " collections whose own row was gone have one again: their "
		    "segments and records were there. Chroma < 1.0 leaves that of a deleted "
		    "database, too",
		    lost);
	return 0;
}
