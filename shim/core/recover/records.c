/* SPDX-License-Identifier: MIT
 *
 * Records whose rows are lost while something else still tells of them. The vector index has id and
 * vector, of whatever the queue does not say that it was deleted; a snapshot has the whole record.
 * Both together go to the end of Chroma's queue. What a snapshot has and the index, whole and
 * newer, does not was deleted since.
 *
 * A record that is there, of which metadata may be lost, gets it from a snapshot. It is the same as
 * then if its last change is: the number of its last row in the queue tells that.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/recover/internal.h"
#include "core/segment/pickle.h"
#include "core/snapshot/read.h"
#include "core/sqlite/fulltext.h"

struct lost {
	struct recovery *r;
	const struct chroma_collection *c;
	sqlite3_stmt *put, *fill;
	bool is_whole;	/* the index knows all ids as of its mark */
	bool has_index; /* it can be read, whatever its mark */
	bool lost_rows; /* there may be records that lack */
	bool is_older;	/* a newer snapshot, verified, has the collection: what only this one has
			   was deleted before that */
	const struct manifest *snapshot;
	uint64_t older;	 /* that came from a snapshot and may have been changed since */
	uint64_t mended; /* values of metadata */
};

/* ---- that the index knows ---- */

static int put_indexed(void *context, const struct export_record *record)
{
	struct lost *l = context;
	int error;

	if (!record->only_index)
		return 0;
	sqlite3_bind_text(l->put, 1, record->id, (int)record->id_size, SQLITE_STATIC);
	recover_bind_vector(l->put, 2, record);
	error = database_step(l->put);
	sqlite3_reset(l->put);
	return error;
}

static int find_indexed(struct lost *l)
{
	struct export_options options = {.collection = l->c->id,
					 .vectors = true,
					 .only_index = true,
					 .record = put_indexed,
					 .trouble = recover_ignore_trouble,
					 .context = l};
	struct export_summary summary;
	int error = recover_sql(l->r, "DROP TABLE IF EXISTS temp.lost_record; CREATE TEMP TABLE "
				      "lost_record(id TEXT PRIMARY KEY, vector BLOB, metadata "
				      "TEXT, snapshot INTEGER, is_other INTEGER)");

	if (error < 0 || !l->lost_rows)
		return error;
	if (error == 0)
		error = database_prepare(l->r->db, &l->put,
					 "INSERT OR IGNORE INTO temp.lost_record(id, vector) "
					 "VALUES (?1, ?2)");
	if (error == 0)
		error = export_directory(l->r->path, l->r->dirfd, &options, &summary);
	sqlite3_finalize(l->put);
	l->put = NULL;
	return error;
}

/* ---- that a snapshot has ---- */

/* ?1 the id, ?5 the METADATA segment, ?6 the topic. Whatever the queue says, Chroma will do. */
static const char put_sql[] =
    "INSERT OR IGNORE INTO temp.lost_record SELECT ?1, ?2, ?3, ?4, 0 WHERE NOT EXISTS (SELECT 1 "
    "FROM "
    "embeddings WHERE segment_id = ?5 AND embedding_id = ?1) AND NOT EXISTS (SELECT 1 FROM "
    "embeddings_queue WHERE topic = ?6 AND id = ?1)";
static const char fill_sql[] =
    "UPDATE temp.lost_record SET is_other = vector NOTNULL AND ?2 NOTNULL AND NOT is_near(vector, "
    "?2), vector = coalesce(vector, ?2), metadata = ?3, snapshot = ?4 WHERE id = ?1 AND snapshot "
    "IS "
    "NULL";

/*
 * Of a record that neither rows nor queue nor index have: whether the index, which is newer than
 * the snapshot, would still have it. What was in the index then is in every later one.
 */
static bool was_deleted(const struct lost *l, const struct export_record *then)
{
	return l->is_older || (l->has_index && then->from_index) ||
	       (l->is_whole && l->c->vector_mark.value >= then->collection->metadata_mark.value);
}

static int run_for(struct lost *l, sqlite3_stmt *s, const struct export_record *record,
		   const char *metadata, size_t size)
{
	int error;

	sqlite3_bind_text(s, 1, record->id, (int)record->id_size, SQLITE_STATIC);
	recover_bind_vector(s, 2, record);
	sqlite3_bind_text64(s, 3, metadata, size, SQLITE_STATIC, SQLITE_UTF8);
	sqlite3_bind_int64(s, 4, (sqlite3_int64)l->snapshot->header.id);
	if (sqlite3_bind_parameter_count(s) > 4) {
		sqlite3_bind_text(s, 5, l->c->metadata_segment, -1, SQLITE_STATIC);
		sqlite3_bind_text(s, 6, l->c->topic, -1, SQLITE_STATIC);
	}
	error = database_step(s);
	sqlite3_reset(s);
	return error;
}

/* Whether the collection, and so perhaps this record, has been written to since. */
static bool is_changed(const struct lost *l, const struct chroma_collection *then)
{
	return l->c->metadata_mark.type == SQLITE_NULL ||
	       l->c->metadata_mark.value != then->metadata_mark.value;
}

static int take_record(void *context, const struct export_record *record)
{
	struct lost *l = context;
	char *metadata = NULL;
	size_t size = 0;
	int error = recover_format_metadata(record, &metadata, &size);

	if (error == 0)
		error = run_for(l, l->fill, record, metadata, size);
	if (error == 0 && sqlite3_changes64(l->r->db))
		l->older += is_changed(l, record->collection);
	if (error == 0 && sqlite3_changes64(l->r->db) == 0 && l->lost_rows &&
	    !was_deleted(l, record)) {
		error = run_for(l, l->put, record, metadata, size);
		if (error == 0 && sqlite3_changes64(l->r->db))
			l->older += record->vector && is_changed(l, record->collection);
	}
	free(metadata);
	return error;
}

/* ---- metadata of records that are there ---- */

/*
 * What lacks of it, key by key; elements of an array have no key of their own: all or none. One
 * that has been changed since and has nothing left but its document gets what it had then.
 */
struct mending {
	struct lost *l;
	sqlite3_stmt *then, *now, *values, *put, *elements, *put_element;
};

/* Rows of `get` for row `from` there, to row `to` here. */
static int copy_values(struct mending *m, sqlite3_stmt *get, sqlite3_stmt *put, sqlite3_int64 from,
		       sqlite3_int64 to)
{
	int i, error = 0;

	sqlite3_bind_int64(get, 1, from);
	while (error == 0 && (error = database_step(get)) == 1) {
		sqlite3_bind_int64(put, 1, to);
		for (i = 0; i < sqlite3_column_count(get); i++)
			sqlite3_bind_value(put, i + 2, sqlite3_column_value(get, i));
		error = database_step(put);
		sqlite3_reset(put);
		m->l->mended += error == 0 ? (uint64_t)sqlite3_changes64(m->l->r->db) : 0;
	}
	sqlite3_reset(get);
	return error;
}

static int mend_record(struct mending *m)
{
	const struct lost *l = m->l;
	sqlite3_int64 from = sqlite3_column_int64(m->then, 2), to;
	bool is_same, is_bare;
	int error;

	sqlite3_bind_text(m->now, 1, l->c->metadata_segment, -1, SQLITE_STATIC);
	sqlite3_bind_value(m->now, 2, sqlite3_column_value(m->then, 0));
	sqlite3_bind_value(m->now, 3, sqlite3_column_value(m->then, 1));
	sqlite3_bind_int(m->now, 4, l->r->lost_pages);
	error = database_step(m->now);
	to = error == 1 ? sqlite3_column_int64(m->now, 0) : 0;
	is_same = error == 1 && sqlite3_column_int(m->now, 1);
	is_bare = error == 1 && sqlite3_column_int(m->now, 2);
	sqlite3_reset(m->now);
	if (error <= 0 || (!is_same && !is_bare))
		return error < 0 ? error : 0;
	error = copy_values(m, m->values, m->put, from, to);
	if (error == 0 && m->elements && m->put_element)
		error = copy_values(m, m->elements, m->put_element, from, to);
	if (error < 0 || !is_same || !l->r->options->account)
		return error;
	return recover_account_forget(l->r->options->account, l->c->id,
				      (const char *)sqlite3_column_text(m->then, 0),
				      (size_t)sqlite3_column_bytes(m->then, 0));
}

#define VALUES "key, string_value, int_value, float_value, bool_value"

static int prepare_mending(struct mending *m, sqlite3 *from)
{
	sqlite3 *to = m->l->r->db;
	int error = database_prepare(from, &m->then,
				     "SELECT e.embedding_id, e.seq_id, e.id FROM embeddings e "
				     "JOIN segments s ON s.id = e.segment_id WHERE "
				     "s.collection = ?");

	if (error == 0)
		error = database_prepare(to, &m->now,
					 "SELECT id, seq_id IS ?3, NOT EXISTS (SELECT 1 FROM "
					 "embedding_metadata m WHERE m.id = e.id AND key <> "
					 "'chroma:document') AND (?4 OR id IN (SELECT id FROM "
					 "temp.lost_text)) FROM embeddings e WHERE segment_id = "
					 "?1 AND embedding_id = ?2");
	if (error == 0)
		error = database_prepare(from, &m->values,
					 "SELECT " VALUES " FROM embedding_metadata WHERE id = ?");
	if (error == 0)
		error = database_prepare(to, &m->put,
					 "INSERT OR IGNORE INTO embedding_metadata(id, " VALUES
					 ") VALUES (?, ?, ?, ?, ?, ?)");
	if (error < 0 || database_has_table(from, "embedding_metadata_array") != 1 ||
	    database_has_table(to, "embedding_metadata_array") != 1)
		return error;
	error =
	    database_prepare(from, &m->elements,
			     "SELECT " VALUES ", (SELECT count(*) FROM embedding_metadata_array "
			     "b WHERE b.id = a.id AND b.key = a.key) FROM "
			     "embedding_metadata_array a WHERE id = ? ORDER BY rowid");
	if (error == 0)
		error = database_prepare(
		    to, &m->put_element,
		    "INSERT INTO embedding_metadata_array(id, " VALUES ") SELECT ?1, ?2, ?3, ?4, "
		    "?5, ?6 WHERE (SELECT count(*) FROM embedding_metadata_array WHERE id = ?1 AND "
		    "key = ?2) < ?7");
	return error;
}

/* Before 0.4.4 there is no bool_value; such a database is left as it is. */
static int mend_metadata(struct lost *l, sqlite3 *from)
{
	struct mending m = {.l = l};
	int error =
	    recover_sql(l->r, "CREATE TEMP TABLE IF NOT EXISTS lost_text(id INTEGER PRIMARY "
			      "KEY)");

	if (error == 0)
		error = prepare_mending(&m, from);

	if (error == 0)
		sqlite3_bind_text(m.then, 1, l->c->id, -1, SQLITE_STATIC);
	while (error == 0 && (error = database_step(m.then)) == 1)
		error = mend_record(&m);
	sqlite3_finalize(m.then);
	sqlite3_finalize(m.now);
	sqlite3_finalize(m.values);
	sqlite3_finalize(m.put);
	sqlite3_finalize(m.elements);
	sqlite3_finalize(m.put_element);
	return error == -ENOENT ? 0 : error;
}

static int ask_snapshot(void *context, const struct manifest *m)
{
	struct lost *l = context;
	struct export_options options = {.collection = l->c->id,
					 .vectors = true,
					 .record = take_record,
					 .trouble = recover_ignore_trouble,
					 .context = l};
	struct snapshot_database from = {.db = NULL};
	struct export_summary summary;
	int error = 0;

	l->snapshot = m;
	if (l->r->lost_pages || l->r->lost_texts) {
		error = snapshot_database_open(&from, l->r->options->snapshots, m);
		if (error == 0)
			error = mend_metadata(l, from.db);
		snapshot_database_close(&from);
	}
	if (error == 0)
		error = export_snapshot(l->r->options->snapshots, m, &options, &summary);
	l->is_older |= error == 0 && m->header.state == SNAPSHOT_VERIFIED && summary.collections &&
		       !summary.troubles;
	return error;
}

static int ask_snapshots(struct lost *l)
{
	int error = recover_compare_vectors(l->r);

	if (error == 0)
		error = database_prepare(l->r->db, &l->put, put_sql);
	if (error == 0)
		error = database_prepare(l->r->db, &l->fill, fill_sql);
	if (error == 0)
		error = recover_each_snapshot(l->r, ask_snapshot, l);
	sqlite3_finalize(l->put);
	sqlite3_finalize(l->fill);
	l->put = l->fill = NULL;
	return error;
}

/* ---- that the queue has ---- */

/* What the queue has made before the index was persisted is all there again. A later `add` of what
 * the index has was ignored, and what it says is not the record's. */
static int account_for_applied(struct lost *l)
{
	static const char sql[] =
	    "SELECT id FROM (" CHROMA_LOST_RECORDS ") l WHERE EXISTS (SELECT 1 FROM "
	    "embeddings_queue a WHERE a.topic = ?3 AND a.id = l.id AND a.operation = 0 AND "
	    "a.seq_id <= ?6)";
	const struct chroma_collection *c = l->c;
	struct recover_account *account = l->r->options->account;
	sqlite3_stmt *rows = NULL;
	int error = account ? database_prepare(l->r->db, &rows, sql) : 0;

	if (rows) {
		sqlite3_bind_text(rows, 1, c->metadata_segment, -1, SQLITE_STATIC);
		sqlite3_bind_text(rows, 3, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(rows, 5, (sqlite3_int64)c->metadata_mark.value);
		sqlite3_bind_int64(rows, 6, (sqlite3_int64)c->vector_mark.value);
	}
	while (rows && error == 0 && (error = database_step(rows)) == 1)
		error = recover_account_forget(account, c->id,
					       (const char *)sqlite3_column_text(rows, 0),
					       (size_t)sqlite3_column_bytes(rows, 0));
	sqlite3_finalize(rows);
	return error;
}

/*
 * Chroma applies it again from the first record on that lacks its row: where a row is there, that
 * changes nothing. What was applied since the index was persisted is nowhere else.
 */
static int apply_again(struct lost *l)
{
	static const char sql[] = "SELECT count(*), min(first) - 1, (SELECT max(seq_id) FROM "
				  "embeddings_queue WHERE topic = "
				  "?3 AND seq_id <= ?5) FROM (" CHROMA_LOST_RECORDS ")";
	const struct chroma_collection *c = l->c;
	int64_t lost = 0, before = 0, last = 0;
	sqlite3_stmt *row = NULL;
	int error = database_prepare(l->r->db, &row, sql);

	if (error == 0) {
		sqlite3_bind_text(row, 1, c->metadata_segment, -1, SQLITE_STATIC);
		sqlite3_bind_text(row, 3, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(row, 5, (sqlite3_int64)c->metadata_mark.value);
		error = database_step(row);
	}
	if (error == 1) {
		lost = sqlite3_column_int64(row, 0);
		before = sqlite3_column_int64(row, 1);
		last = sqlite3_column_int64(row, 2);
	}
	sqlite3_finalize(row);
	if (error < 0)
		return error;
	if (!l->r->lost_pages && c->metadata_mark.value > c->vector_mark.value &&
	    (uint64_t)last < c->metadata_mark.value && l->r->options->account)
		l->r->options->account->may_lack = true;
	if (!lost)
		return 0;
	error = account_for_applied(l);
	if (error == 0)
		error = recover_set_mark(l->r, c->metadata_segment, before);
	l->r->healed += error == 0;
	if (error == 0)
		recover_say(l->r, RECOVER_RECORDS, c->name,
			    "%" PRId64 " records that the queue still has lack their rows: Chroma "
			    "applies it again from there",
			    lost);
	return error;
}

/* ---- back ---- */

static int record_give(struct lost *l)
{
	char end[24];
	int64_t last;
	int error = recover_find_end(l->r, &last);

	if (error < 0)
		return error;
	snprintf(end, sizeof(end), "%" PRId64, last);
	return RECOVER_CHANGE(l->r,
			      "INSERT INTO embeddings_queue(seq_id, operation, topic, id, vector, "
			      "encoding, metadata) SELECT CAST(?1 AS INTEGER) + row_number() OVER "
			      "(ORDER BY rowid), 2, ?2, id, vector, 'FLOAT32', coalesce(metadata, "
			      "'{}') FROM temp.lost_record WHERE vector IS NOT NULL",
			      end, l->c->topic);
}

/* All of them were there before; what no snapshot has has lost its document and metadata, and what
 * has got another vector since may have got others. */
static int account_for(struct lost *l)
{
	struct recover_account *account = l->r->options->account;
	sqlite3_stmt *rows = NULL;
	int error = !account ? 0
			     : database_prepare(l->r->db, &rows,
						"SELECT id, snapshot IS NULL OR is_other FROM "
						"temp.lost_record WHERE vector IS NOT NULL");

	while (rows && error == 0 && (error = database_step(rows)) == 1) {
		const char *id = (const char *)sqlite3_column_text(rows, 0);
		size_t size = (size_t)sqlite3_column_bytes(rows, 0);

		error = recover_account_insert(account, l->c->id, id, size);
		if (error == 0 && sqlite3_column_int(rows, 1))
			error = recover_account_note(account, l->c->id, id, size);
	}
	sqlite3_finalize(rows);
	return error;
}

static int record_tell(struct lost *l)
{
	int64_t all = 0, whole = 0;
	int error = database_number(
	    l->r->db, "SELECT count(*) FROM temp.lost_record WHERE vector IS NOT NULL", NULL, &all);

	if (error == 0)
		error = database_number(l->r->db,
					"SELECT count(*) FROM temp.lost_record WHERE vector IS NOT "
					"NULL AND snapshot IS NOT NULL",
					NULL, &whole);
	if (error < 0)
		return error;
	if (all)
		recover_say(l->r, RECOVER_RECORDS, l->c->name,
			    "%" PRId64 " records whose rows are lost were given to the queue: "
			    "%" PRId64 " as a snapshot has them, %" PRId64
			    " with id and vector alone, which the index had",
			    all, whole, all - whole);
	if (l->mended)
		recover_say(l->r, RECOVER_RECORDS, l->c->name,
			    "%" PRIu64 " lost values of metadata and documents were taken from "
			    "snapshots; records that were changed since are named below",
			    l->mended);
	l->r->healed += all || l->mended;
	return l->older && l->r->options->account
		   ? recover_account_older(l->r->options->account, l->c->id, l->older)
		   : 0;
}

static bool has_index(const struct recovery *r, const struct chroma_collection *c)
{
	char path[CHROMA_ID_SIZE + sizeof(PICKLE_FILE) + 1];

	snprintf(path, sizeof(path), "%s/" PICKLE_FILE, c->vector_segment);
	return !recover_finding_of(r->judgement, RECOVER_HNSW, c->vector_segment) &&
	       faccessat(r->dirfd, path, F_OK, 0) == 0;
}

static int heal_collection(struct recovery *r, const struct chroma_collection *c)
{
	struct lost l = {
	    .r = r,
	    .c = c,
	    .lost_rows = r->lost_rows ||
			 recover_finding_of(r->judgement, RECOVER_RECORDS, c->vector_segment),
	    .has_index = has_index(r, c),
	    .is_whole = c->vector_mark.type != SQLITE_NULL &&
			!recover_finding_of(r->judgement, RECOVER_HNSW, c->vector_segment)};
	bool is_applied =
	    c->metadata_mark.type != SQLITE_NULL && c->metadata_mark.value < CHROMA_MARK_POISONED;
	int error = is_applied ? apply_again(&l) : 0;

	if (error == 0)
		error = find_indexed(&l);
	if (error == 0)
		error = ask_snapshots(&l);
	if (error == 0)
		error = record_give(&l);
	if (error == 0)
		error = account_for(&l);
	if (error == 0 && l.mended)
		error = fulltext_refill(r->db);
	return error < 0 ? error : record_tell(&l);
}

/* ---- which ---- */

static bool has_lost(const struct recovery *r, const struct chroma_collection *c)
{
	return r->lost_pages || r->lost_rows || r->lost_texts ||
	       recover_finding_of(r->judgement, RECOVER_RECORDS, c->vector_segment);
}

/* Each record is in an index, or the queue has it: if all of both is there, nothing else was. */
static bool may_lack(const struct recovery *r)
{
	return r->lost_rows &&
	       (r->lacks_queue || r->lost_segments || r->judgement->steps & 1u << RECOVER_HNSW);
}

/* A new record gets the number of one that is lost, whose document would be in its way. */
static int keep_documents(struct recovery *r)
{
	uint64_t count;
	int error = recover_nameless_documents(r->db, r->path, &count);

	if (error == 0 && count) {
		r->healed++;
		recover_say(r, RECOVER_RECORDS, NULL,
			    "%" PRIu64
			    " documents of records whose rows are lost were set aside in "
			    "" RECOVER_LOST_FILE,
			    count);
	}
	return error;
}

int recover_records(struct recovery *r)
{
	struct recover_list list = {.list = NULL};
	int error = 0;
	size_t i;

	if (r->options->account)
		r->options->account->may_lack |= may_lack(r);
	if (r->judgement->steps & 1u << RECOVER_RECORDS)
		error = keep_documents(r);
	if (error == 0)
		error = recover_list_collections(r, has_lost, &list);
	for (i = 0; i < list.count && error == 0; i++)
		error = heal_collection(r, &list.list[i]);
	recover_list_free(&list);
	return error;
}
