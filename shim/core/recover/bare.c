/* SPDX-License-Identifier: MIT
 *
 * Records that the index has no vector of any more. What was applied may still be in the queue.
 * Then snapshots of the store are asked for the vectors of just those records, the newest first;
 * one is believed if the record has the same document there. What is left can be set aside:
 * Chroma's get() with vectors fails for a whole collection ("Error finding id") while there is such
 * a record in it.
 *
 * Both go by rows of Chroma's queue behind everything there is: an UPSERT without metadata, which
 * leaves the metadata as it is, and a DELETE.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/chroma/texts.h"
#include "core/export/export.h"
#include "core/recover/internal.h"
#include "core/snapshot/read.h"

struct bare {
	struct recovery *r;
	const struct chroma_collection *c;
	sqlite3_stmt *put;
	uint64_t found, queued, given; /* given: by snapshots */
};

/* ---- which ---- */

static void bind_record(struct bare *b, const struct export_record *record)
{
	const struct export_value *document = record->document;

	sqlite3_clear_bindings(b->put);
	sqlite3_bind_text(b->put, 1, record->id, (int)record->id_size, SQLITE_STATIC);
	if (document)
		sqlite3_bind_text(b->put, 2, document->text, (int)document->size, SQLITE_STATIC);
	else
		sqlite3_bind_null(b->put, 2);
}

static int note_record(void *context, const struct export_record *record)
{
	struct bare *b = context;
	int error;

	if (record->vector && !record->from_applied)
		return 0;
	bind_record(b, record);
	if (record->vector)
		sqlite3_bind_blob64(b->put, 3, record->vector, record->dimension * sizeof(float),
				    SQLITE_STATIC);
	b->queued += record->vector != NULL;
	error = database_step(b->put);
	sqlite3_reset(b->put);
	b->found++;
	return error;
}

/* To temporary tables: the export reads the database at the same time. */
static int find_records(struct bare *b)
{
	struct export_options options = {.collection = b->c->id,
					 .vectors = true,
					 .record = note_record,
					 .trouble = recover_ignore_trouble,
					 .context = b};
	struct export_summary summary;
	int error =
	    recover_sql(b->r, "DROP TABLE IF EXISTS temp.bare; CREATE TEMP TABLE "
			      "bare(id TEXT PRIMARY KEY, document TEXT, vector BLOB, until TEXT)");

	b->found = b->queued = b->given = 0;
	if (error == 0)
		error = database_prepare(b->r->db, &b->put,
					 "INSERT OR REPLACE INTO temp.bare VALUES (?1, ?2, ?3, "
					 "CASE WHEN ?3 NOTNULL THEN 'G' END)");
	if (error == 0)
		error = export_directory(b->r->path, b->r->dirfd, &options, &summary);
	sqlite3_finalize(b->put);
	b->put = NULL;
	return error;
}

/* ---- snapshots ---- */

static int take_vector(void *context, const struct export_record *record)
{
	struct bare *b = context;
	int error;

	if (!record->vector ||
	    (b->c->dimension > 0 && (uint64_t)b->c->dimension != record->dimension))
		return 0;
	bind_record(b, record);
	sqlite3_bind_blob64(b->put, 3, record->vector, record->dimension * sizeof(float),
			    SQLITE_STATIC);
	error = database_step(b->put);
	sqlite3_reset(b->put);
	if (error == 0)
		b->given += (uint64_t)sqlite3_changes64(b->r->db);
	return error;
}

/* Up to which number of the queue the snapshot has records: what it gave is of before that. */
static int bare_note_end(struct bare *b, const struct manifest *m)
{
	struct snapshot_database from = {.db = NULL};
	sqlite3_stmt *row = NULL;
	int error = snapshot_database_open(&from, b->r->options->snapshots, m);

	if (error == 0)
		error = database_prepare(from.db, &row,
					 "SELECT max(" CHROMA_NUMBER_OF("e") ") FROM embeddings e");
	if (error == 0)
		error = database_step(row);
	if (error == 1)
		error = RECOVER_CHANGE(b->r,
				       "UPDATE temp.bare SET until = coalesce(?1, '') WHERE vector "
				       "NOTNULL AND until IS NULL",
				       (const char *)sqlite3_column_text(row, 0));
	sqlite3_finalize(row);
	snapshot_database_close(&from);
	return error;
}

/* A record that was written since may have got another vector then. */
static int bare_tell_older(struct bare *b)
{
	int64_t older = 0;
	int error = database_number(b->r->db,
				    "SELECT count(*) FROM temp.bare t JOIN embeddings e ON "
				    "e.embedding_id = t.id AND "
				    "e.segment_id = ? WHERE " CHROMA_NUMBER_OF("e") " > t.until",
				    b->c->metadata_segment, &older);

	if (error < 0 || !older)
		return error;
	if (b->r->options->account)
		b->r->options->account->may_differ = true;
	recover_say(b->r, RECOVER_BARE, b->c->name,
		    "%" PRId64
		    " of the records with a vector from a snapshot were written after it: "
		    "the vector may be an older one",
		    older);
	return error;
}

static int ask_snapshot(void *context, const struct manifest *m)
{
	struct bare *b = context;
	struct export_options options = {.collection = b->c->id,
					 .vectors = true,
					 .record = take_vector,
					 .trouble = recover_ignore_trouble,
					 .context = b};
	struct export_summary summary;
	uint64_t before = b->given;
	int error = 0;

	if (b->queued + b->given < b->found)
		error = export_snapshot(b->r->options->snapshots, m, &options, &summary);
	if (error == 0 && b->given > before)
		error = bare_note_end(b, m);
	return error;
}

static int ask_snapshots(struct bare *b)
{
	int error = database_prepare(b->r->db, &b->put,
				     "UPDATE temp.bare SET vector = ?3 WHERE id = ?1 AND "
				     "vector IS NULL AND document IS ?2");

	if (error == 0)
		error = recover_each_snapshot(b->r, ask_snapshot, b);
	sqlite3_finalize(b->put);
	b->put = NULL;
	if (error == 0)
		error = bare_tell_older(b);
	return error;
}

/* ---- to the queue ---- */

static int run_for(struct bare *b, const char *sql, int64_t number)
{
	const char *texts[] = {b->c->topic, b->c->name, b->c->metadata_segment};
	sqlite3_stmt *s = NULL;
	int i, error = database_prepare(b->r->db, &s, sql);

	for (i = 0; error == 0 && i < 3; i++)
		if (i + 1 <= sqlite3_bind_parameter_count(s))
			sqlite3_bind_text(s, i + 1, texts[i], -1, SQLITE_STATIC);
	if (error == 0 && sqlite3_bind_parameter_count(s) >= 4)
		sqlite3_bind_int64(s, 4, number);
	if (error == 0)
		error = database_step(s);
	sqlite3_finalize(s);
	return error < 0 ? error : 0;
}

static int find_end(struct bare *b, int64_t *out)
{
	const struct chroma_mark *marks[] = {&b->c->metadata_mark, &b->c->vector_mark};
	int i, error =
		   database_number(b->r->db, "SELECT max(seq_id) FROM embeddings_queue", NULL, out);

	for (i = 0; i < 2; i++)
		if (marks[i]->type != SQLITE_NULL && marks[i]->value < CHROMA_MARK_POISONED &&
		    (int64_t)marks[i]->value > *out)
			*out = (int64_t)marks[i]->value;
	return error;
}

static int keep_rows(struct bare *b)
{
	char *metadata = recover_lost_metadata(b->r->db, "(SELECT e.id FROM embeddings e WHERE "
							 "e.segment_id = ?3 AND e.embedding_id = "
							 "b.id)");
	char *sql = sqlite3_mprintf("INSERT INTO lost.lost SELECT ?2, b.id, b.document, %s FROM "
				    "temp.bare b WHERE b.vector IS NULL AND ?1 IS NOT NULL",
				    metadata);
	int error = metadata && sql ? run_for(b, sql, 0) : -ENOMEM;

	sqlite3_free(sql);
	sqlite3_free(metadata);
	return error;
}

/* They are lost, whatever the queue says of them then. */
static int account_for_aside(struct bare *b)
{
	struct recover_account *account = b->r->options->account;
	sqlite3_stmt *rows = NULL;
	int error = account ? database_prepare(b->r->db, &rows,
					       "SELECT id FROM temp.bare WHERE vector IS NULL")
			    : 0;

	while (rows && error == 0 && (error = database_step(rows)) == 1)
		error = recover_account_note(account, b->c->id,
					     (const char *)sqlite3_column_text(rows, 0),
					     (size_t)sqlite3_column_bytes(rows, 0));
	sqlite3_finalize(rows);
	return error;
}

static int set_aside(struct bare *b, int64_t end)
{
	int error = recover_lost_open(b->r->db, b->r->path);

	if (error == 0)
		error = keep_rows(b);
	if (error == 0)
		error = account_for_aside(b);
	if (error == 0)
		error = run_for(b,
				"INSERT INTO embeddings_queue(seq_id, operation, topic, id) SELECT "
				"?4 + row_number() OVER (), 3, ?1, id FROM temp.bare WHERE "
				"vector IS NULL AND ?2 IS NOT NULL AND ?3 IS NOT NULL",
				end);
	return error;
}

static int write_rows(struct bare *b, bool aside)
{
	int64_t end;
	int error = find_end(b, &end);

	if (error == 0)
		error =
		    run_for(b,
			    "INSERT INTO embeddings_queue(seq_id, operation, topic, id, vector, "
			    "encoding, metadata) SELECT ?4 + row_number() OVER (), 2, ?1, id, "
			    "vector, 'FLOAT32', '{}' FROM temp.bare WHERE vector IS NOT NULL "
			    "AND ?2 IS NOT NULL AND ?3 IS NOT NULL",
			    end);
	if (error == 0 && aside)
		error = set_aside(b, end + (int64_t)(b->queued + b->given));
	return error;
}

static int heal_collection(void *context, const struct chroma_collection *c)
{
	struct bare *b = context;
	struct recovery *r = b->r;
	uint64_t left;
	bool aside;
	int error;

	if (!recover_finding_of(r->judgement, RECOVER_BARE, c->vector_segment))
		return 0;
	b->c = c;
	error = find_records(b);
	if (error == 0)
		error = ask_snapshots(b);
	left = b->found - b->queued - b->given;
	aside = left && r->options->set_aside;
	if (error < 0 || (!b->queued && !b->given && !aside))
		return error;
	error = write_rows(b, aside);
	if (error < 0)
		return error;
	r->healed++;
	if (b->queued)
		recover_say(r, RECOVER_BARE, c->name,
			    "%" PRIu64 " records got their vector back from the queue", b->queued);
	if (b->given)
		recover_say(r, RECOVER_BARE, c->name,
			    "%" PRIu64 " records got their vector back from snapshots", b->given);
	if (aside)
		recover_say(r, RECOVER_BARE, c->name,
			    "%" PRIu64 " records without a vector were set aside, with documents "
			    "and metadata, in " RECOVER_LOST_FILE,
			    left);
	return 0;
}

int recover_bare(struct recovery *r)
{
	struct bare b = {.r = r};
	int64_t again;
	int error = recover_replay(r, true, &again);

	if (error == 0 && again) {
		r->healed++;
		recover_say(r, RECOVER_BARE, NULL,
			    "%" PRId64 " collections apply again what the queue still has: a "
			    "deletion was there by half",
			    again);
	}
	return error < 0 ? error : chroma_each_collection(r->db, heal_collection, &b);
}
