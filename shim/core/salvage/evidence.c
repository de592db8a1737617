/* SPDX-License-Identifier: MIT
 *
 * What else tells of the rows that a damaged database has lost: its indexes have the ids of records
 * and the keys of their metadata once more, the full-text index has the documents.
 */
#include <errno.h>
#include <string.h>

#include "core/chroma/chroma.h"
#include "core/salvage/salvage.h"

#define HOLES_MAX 500 /* each of them is held against all records; with more, any may be harmed */

static const char lists[] =
    "CREATE TEMP TABLE seen_record(row INTEGER PRIMARY KEY, segment TEXT, record TEXT);"
    "CREATE TEMP TABLE seen_value(row INTEGER PRIMARY KEY, id INTEGER, key TEXT);"
    "CREATE TEMP TABLE seen_element(row INTEGER PRIMARY KEY, id INTEGER, key TEXT);"
    "CREATE TEMP TABLE seen_text(row INTEGER PRIMARY KEY, text TEXT);";

/* A table, the index over all its rows, and where what that says is listed. */
struct witness {
	const char *table, *index, *list;
	bool lacks;    /* the table has lost rows */
	bool is_whole; /* the index */
};

static int has_lost(struct salvage *s, const char *table, bool *lacks_out)
{
	int64_t lacks;
	int error =
	    database_number(s->to, "SELECT lacks FROM damage WHERE name = ?", table, &lacks);

	*lacks_out = lacks != 0;
	return error;
}

/* ---- reading ---- */

/* Columns of an entry, the row's number last; of a table's row, the number first. */
static int put_entry(struct salvage *s, const struct sqlite_tree_cell *cell, bool is_index,
		     sqlite3_stmt *put)
{
	struct sqlite_record record;
	const struct sqlite_value *row;
	uint32_t i;
	int code = SQLITE_OK, r = sqlite_record_read(&s->reader, cell, &record);

	if (r < 0)
		return r;
	row = &record.values[record.columns - 1];
	if (record.columns < 2 || (is_index && row->type != SQLITE_VALUE_INTEGER))
		return -EBADMSG;
	sqlite3_bind_int64(put, 1, is_index ? row->integer : cell->rowid);
	for (i = is_index ? 0 : 1; code == SQLITE_OK && i < (is_index ? record.columns - 1 : 2);
	     i++)
		code = salvage_bind(s, put, is_index ? (int)i + 2 : 2, &record.values[i]);
	r = code == SQLITE_OK ? database_step(put) : database_error(code);
	sqlite3_reset(put);
	return r;
}

static int read_entries(struct salvage *s, uint32_t number, bool is_index, sqlite3_stmt *put,
			bool *is_whole)
{
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	uint32_t i;
	int r = salvage_read_page(s, number, &page);

	if (r == 0 && page.kind == SQLITE_TABLE_INTERIOR)
		return 0;
	for (i = 0; r == 0 && i < page.cells; i++) {
		r = sqlite_tree_cell(&page, i, &cell);
		if (r == 0)
			r = put_entry(s, &cell, is_index, put);
		if (salvage_is_unreadable(r)) {
			*is_whole = false;
			r = 0;
		}
	}
	return r;
}

/* The tree that the schema names, into the list; *is_whole_out: nothing of it lacks. */
static int read_tree(struct salvage *s, const char *name, bool is_index, const char *insert,
		     bool *is_whole_out)
{
	sqlite3_stmt *pages = NULL, *put = NULL;
	int64_t root, gaps = 0;
	int error = database_number(s->to, "SELECT root FROM object WHERE name = ?1", name, &root);

	*is_whole_out = false;
	if (error < 0 || root < 2)
		return error;
	if (is_index)
		error = salvage_claim(s, (uint32_t)root, true);
	if (error == 0)
		error = database_number(s->to,
					"SELECT count(*) FROM gap WHERE tree = (SELECT root FROM "
					"object WHERE name = ?1)",
					name, &gaps);
	*is_whole_out = error == 0 && gaps == 0;
	if (error == 0)
		error = database_prepare(s->to, &put, insert);
	if (error == 0)
		error = database_prepare(s->to, &pages,
					 "SELECT no FROM page WHERE tree = ? AND certain");
	if (error == 0)
		sqlite3_bind_int64(pages, 1, root);
	while (error == 0 && (error = database_step(pages)) == 1)
		error = read_entries(s, (uint32_t)sqlite3_column_int64(pages, 0), is_index, put,
				     is_whole_out);
	sqlite3_finalize(pages);
	sqlite3_finalize(put);
	return error;
}

static int read_witness(struct salvage *s, struct witness *w)
{
	char *insert;
	int error = has_lost(s, w->table, &w->lacks);

	if (error < 0 || !w->lacks)
		return error;
	insert = sqlite3_mprintf("INSERT OR IGNORE INTO %s VALUES (?, ?, ?)", w->list);
	error = insert ? read_tree(s, w->index, true, insert, &w->is_whole) : -ENOMEM;
	sqlite3_free(insert);
	return error;
}

/* With a whole index, what was deleted is told from what was not. */
static int count_doubtful(struct salvage *s, const struct witness *w)
{
	int64_t doubtful;
	int error = 0;

	for (; error == 0 && w->table; w++) {
		char *sql =
		    sqlite3_mprintf("UPDATE damage SET doubtful = 0 WHERE name = '%s' AND %d",
				    w->table, w->is_whole);

		error = sql ? salvage_sql(s, sql) : -ENOMEM;
		sqlite3_free(sql);
	}
	if (error == 0)
		error = database_number(s->to, "SELECT sum(doubtful) FROM damage", NULL, &doubtful);
	if (error == 0)
		s->doubtful = (uint64_t)doubtful;
	return error;
}

static int run_count(struct salvage *s, uint64_t *count, const char *sql)
{
	int error = salvage_sql(s, sql);

	if (error == 0)
		*count += (uint64_t)sqlite3_changes64(s->to);
	return error;
}

/* ---- records ---- */

/* What the index does not have was deleted before; what it has alone is a record all the same. */
static int weigh_records(struct salvage *s, const struct witness *w)
{
	int error = 0;

	if (w->is_whole)
		error = run_count(s, &s->deleted,
				  "DELETE FROM embeddings WHERE id IN (SELECT row FROM uncertain "
				  "WHERE name = 'embeddings') AND id NOT IN (SELECT row FROM "
				  "seen_record)");
	if (error == 0)
		error = run_count(
		    s, &s->restored,
		    "INSERT OR IGNORE INTO embeddings(id, segment_id, embedding_id, seq_id, "
		    "created_at) SELECT row, segment, record, CASE WHEN EXISTS (SELECT 1 FROM "
		    "embeddings WHERE typeof(seq_id) = 'blob') THEN zeroblob(8) ELSE 0 END, "
		    "'1970-01-01 00:00:00' FROM seen_record");
	return error;
}

/* ---- documents ---- */

/* The full-text index's copy, if all that is there twice is the same: before 0.4.6 it was not. */
static int restore_documents(struct salvage *s, bool is_whole)
{
	static const char differ[] =
	    "SELECT count(*) FROM embedding_metadata m JOIN seen_text t ON t.row = m.id WHERE "
	    "m.key = 'chroma:document' AND m.string_value IS NOT t.text";
	bool ignored;
	int64_t different;
	int error = read_tree(s, FULLTEXT_TABLE "_content", false,
			      "INSERT OR IGNORE INTO seen_text VALUES (?, ?)", &ignored);

	if (error == 0)
		error = database_number(s->to, differ, NULL, &different);
	if (error < 0 || different)
		return error;
	if (is_whole)
		return run_count(
		    s, &s->restored,
		    "INSERT OR IGNORE INTO embedding_metadata(rowid, id, key, string_value) SELECT "
		    "v.row, v.id, v.key, t.text FROM seen_value v JOIN seen_text t ON t.row = v.id "
		    "WHERE v.key = 'chroma:document' AND t.text IS NOT NULL AND NOT EXISTS (SELECT "
		    "1 FROM embedding_metadata m WHERE m.rowid = v.row)");
	return run_count(s, &s->restored,
			 "INSERT OR IGNORE INTO embedding_metadata(id, key, string_value) SELECT "
			 "t.row, 'chroma:document', t.text FROM seen_text t JOIN embeddings e ON "
			 "e.id = t.row WHERE t.text IS NOT NULL");
}

/* ---- which records lack something ---- */

/* A sequence number of any release, for SQL. */
static void sequence_of(sqlite3_context *context, int count, sqlite3_value **values)
{
	const unsigned char *p = sqlite3_value_blob(values[0]);
	uint64_t number = 0;
	int i;

	(void)count;
	if (sqlite3_value_type(values[0]) != SQLITE_BLOB || sqlite3_value_bytes(values[0]) != 8) {
		sqlite3_result_int64(context, sqlite3_value_int64(values[0]));
		return;
	}
	for (i = 0; i < 8; i++)
		number = number << 8 | p[i];
	sqlite3_result_int64(context, (sqlite3_int64)number);
}

/*
 * Where no index tells. Records that were not changed since they were added are in the order of
 * their metadata: what lies between two of them around a gap may be harmed; those that were changed
 * may have had the newer part anywhere.
 */
static int suspect_neighbours(struct salvage *s, const char *table)
{
	static const char steady[] =
	    "CREATE TEMP TABLE IF NOT EXISTS steady(id INTEGER PRIMARY KEY);"
	    "INSERT OR IGNORE INTO steady SELECT id FROM (SELECT id, sequence_of(seq_id) AS seq, "
	    "min(sequence_of(seq_id)) OVER (PARTITION BY segment_id ORDER BY id ROWS BETWEEN 1 "
	    "FOLLOWING AND UNBOUNDED FOLLOWING) AS next FROM embeddings) WHERE seq > 0 AND (next "
	    "IS "
	    "NULL OR seq < next);"
	    "INSERT OR IGNORE INTO harm SELECT id FROM embeddings WHERE id NOT IN (SELECT id FROM "
	    "steady)";
	char *sql = sqlite3_mprintf(
	    "CREATE TEMP TABLE IF NOT EXISTS hole(a INTEGER, b INTEGER, low INTEGER, high INTEGER);"
	    "DELETE FROM hole;"
	    "WITH row AS (SELECT rowid AS n, id FROM %s WHERE id IN (SELECT id FROM steady)), "
	    "root AS (SELECT root FROM damage WHERE name = '%s') "
	    "INSERT INTO hole SELECT h.* FROM (SELECT n AS a, lead(n) OVER (ORDER BY n) AS b, id, "
	    "lead(id) OVER (ORDER BY n) FROM row UNION ALL SELECT %lld, (SELECT min(n) FROM row), "
	    "%lld, (SELECT id FROM row ORDER BY n LIMIT 1)) h WHERE (b IS NULL OR a < b - 1) AND "
	    "((SELECT root FROM root) = 0 OR EXISTS (SELECT 1 FROM gap g WHERE g.tree = (SELECT "
	    "root FROM root) AND g.high > a AND (b IS NULL OR g.low < b - 1)));"
	    "INSERT OR IGNORE INTO harm SELECT id FROM embeddings WHERE (SELECT count(*) FROM "
	    "hole) "
	    "> %d;"
	    "INSERT OR IGNORE INTO harm SELECT DISTINCT e.id FROM hole h JOIN embeddings e ON e.id "
	    "BETWEEN coalesce(h.low, %lld) AND coalesce(h.high, %lld) WHERE (SELECT count(*) FROM "
	    "hole) <= %d",
	    table, table, INT64_MIN, INT64_MIN, HOLES_MAX, INT64_MIN, INT64_MAX, HOLES_MAX);
	int error = salvage_sql(s, steady);

	if (error == 0)
		error = sql ? salvage_sql(s, sql) : -ENOMEM;
	sqlite3_free(sql);
	return error;
}

/* Suspects rows that are missing, where a whole index tells of them. */
static int suspect_missing(struct salvage *s, const struct witness *w)
{
	char *sql;
	int error;

	sql =
	    sqlite3_mprintf("INSERT OR IGNORE INTO harm SELECT id FROM %s WHERE row NOT IN (SELECT "
			    "rowid FROM %s) AND id IS NOT NULL",
			    w->list, w->table);
	error = sql ? salvage_sql(s, sql) : -ENOMEM;
	sqlite3_free(sql);
	return error;
}

/* What the index of values does not have was deleted before. */
static int forget_values(struct salvage *s, const struct witness *w)
{
	char *sql;
	int error;

	if (!w->lacks || !w->is_whole)
		return 0;
	sql =
	    sqlite3_mprintf("DELETE FROM %s WHERE rowid IN (SELECT row FROM uncertain WHERE name = "
			    "'%s') AND rowid NOT IN (SELECT row FROM %s)",
			    w->table, w->table, w->list);
	error = sql ? run_count(s, &s->deleted, sql) : -ENOMEM;
	sqlite3_free(sql);
	return error;
}

/*
 * The newest vector of a record may have been in a row of the queue that is lost: in that of its
 * number, or, where that is one without a vector, in an earlier one whose number no record has.
 */
static int suspect_vectors(struct salvage *s)
{
	bool lacks;
	int error = has_lost(s, "embeddings_queue", &lacks);

	if (error < 0 || !lacks)
		return error;
	return salvage_sql(
	    s,
	    "CREATE TEMP TABLE rank(seq INTEGER PRIMARY KEY, n INTEGER);"
	    "INSERT INTO rank SELECT seq, row_number() OVER (ORDER BY seq) FROM (SELECT seq_id AS "
	    "seq FROM embeddings_queue UNION SELECT sequence_of(seq_id) FROM embeddings);"
	    "CREATE TEMP TABLE newest AS SELECT e.id, e.embedding_id AS name, "
	    "sequence_of(e.seq_id) AS seq, coalesce((SELECT sequence_of(x.seq_id) FROM segments v "
	    "JOIN max_seq_id x ON x.segment_id = v.id WHERE v.collection = m.collection AND "
	    "v.scope "
	    "= 'VECTOR'), 0) AS mark FROM embeddings e JOIN segments m ON m.id = e.segment_id;"
	    "INSERT OR IGNORE INTO harm SELECT id FROM newest WHERE seq > mark AND NOT EXISTS "
	    "(SELECT 1 FROM embeddings_queue q WHERE q.seq_id = seq AND q.vector IS NOT NULL AND "
	    "q.id = name) AND (NOT EXISTS (SELECT 1 FROM embeddings_queue q WHERE q.seq_id = seq "
	    "AND q.id = name) OR coalesce((SELECT n FROM rank r WHERE r.seq <= newest.seq ORDER BY "
	    "r.seq DESC LIMIT 1), 0) - coalesce((SELECT n FROM rank r WHERE r.seq <= mark ORDER BY "
	    "r.seq DESC LIMIT 1), 0) < seq - mark)");
}

/* ---- telling ---- */

/* Of each a collection and an id. */
static int tell_rows(struct salvage *s, const char *sql)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(s->to, &rows, sql);

	while (error == 0 && (error = database_step(rows)) == 1)
		error = s->help->note(s->help->context, (const char *)sqlite3_column_text(rows, 0),
				      (const char *)sqlite3_column_text(rows, 1),
				      (size_t)sqlite3_column_bytes(rows, 1));
	sqlite3_finalize(rows);
	return error;
}

/* Also what only the queue knows: played again, it gives what it has of the record. */
static int tell_harm(struct salvage *s, bool has_all_records)
{
	int error = tell_rows(s, "SELECT m.collection, e.embedding_id FROM harm JOIN embeddings e "
				 "USING (id) JOIN segments m ON m.id = e.segment_id WHERE "
				 "m.collection IS NOT NULL");

	if (error < 0 || has_all_records)
		return error;
	return tell_rows(
	    s,
	    "SELECT collection, id FROM (SELECT substr(topic, -36) AS collection, id, operation, "
	    "max(seq_id), sum(operation IN (0, 2)) AS made FROM embeddings_queue GROUP BY "
	    "topic, id) q WHERE made AND operation <> 3 AND NOT EXISTS (SELECT 1 FROM "
	    "segments m JOIN embeddings e ON e.segment_id = m.id WHERE m.collection = "
	    "q.collection AND e.embedding_id = q.id)");
}

/*
 * Rows of the queue that nothing else tells of: those beyond all that was applied. Of what was, the
 * last number is a record's or a mark's. A lost end may have had any.
 */
static int find_lost_queue(struct salvage *s)
{
	static const char beyond[] =
	    "WITH done(seq) AS (SELECT max(coalesce((SELECT max(sequence_of(seq_id)) FROM "
	    "embeddings), 0), coalesce((SELECT max(sequence_of(seq_id)) FROM max_seq_id WHERE "
	    "sequence_of(seq_id) < ?2), 0))) SELECT EXISTS (SELECT 1 FROM damage d LEFT JOIN gap g "
	    "ON g.tree = d.root, done WHERE d.name = ?1 AND d.lacks AND (d.root = 0 OR g.high = "
	    "?3 OR (g.high > done.seq AND g.high - max(g.low, done.seq) > (SELECT count(*) FROM "
	    "embeddings_queue WHERE seq_id > max(g.low, done.seq) AND seq_id <= g.high))))";
	sqlite3_stmt *row = NULL;
	int error = database_prepare(s->to, &row, beyond);

	if (error == 0) {
		sqlite3_bind_text(row, 1, "embeddings_queue", -1, SQLITE_STATIC);
		sqlite3_bind_int64(row, 2, (sqlite3_int64)CHROMA_MARK_POISONED);
		sqlite3_bind_int64(row, 3, INT64_MAX);
		error = database_step(row);
		s->lost_queue = error == 1 && sqlite3_column_int(row, 0);
	}
	sqlite3_finalize(row);
	return error < 0 && error != -ENOENT ? error : 0;
}

static int evidence_tell(struct salvage *s, bool has_all_records)
{
	int error = has_lost(s, "segments", &s->lost_segments);

	if (error == 0)
		error = has_lost(s, "max_seq_id", &s->lost_marks);
	if (error == 0)
		error = has_lost(s, "embeddings_queue", &s->lacks_queue);
	if (error == 0)
		error = find_lost_queue(s);
	return error < 0 || !s->help || !s->help->note ? error : tell_harm(s, has_all_records);
}

int salvage_weigh(struct salvage *s)
{
	struct witness w[] = {
	    {"embeddings", "sqlite_autoindex_embeddings_1", "seen_record", false, false},
	    {"embedding_metadata", "sqlite_autoindex_embedding_metadata_1", "seen_value", false,
	     false},
	    {"embedding_metadata_array", "embedding_metadata_array_id_key", "seen_element", false,
	     false},
	    {NULL, NULL, NULL, false, false}};
	int error = salvage_sql(s, lists), i;

	if (error == 0)
		error = database_error(sqlite3_create_function(s->to, "sequence_of", 1,
							       SQLITE_UTF8 | SQLITE_DETERMINISTIC,
							       NULL, sequence_of, NULL, NULL));
	for (i = 0; error == 0 && w[i].table; i++)
		error = read_witness(s, &w[i]);
	if (error == 0 && w[0].lacks)
		error = weigh_records(s, &w[0]);
	for (i = 1; error == 0 && w[i].table; i++)
		error = forget_values(s, &w[i]);
	/* What is restored without an index has row numbers that tell nothing of neighbours. */
	for (i = 1; error == 0 && w[i].table; i++)
		if (w[i].lacks && !w[i].is_whole)
			error = suspect_neighbours(s, w[i].table);
	if (error == 0 && w[1].lacks)
		error = restore_documents(s, w[1].is_whole);
	for (i = 1; error == 0 && w[i].table; i++)
		if (w[i].lacks && w[i].is_whole)
			error = suspect_missing(s, &w[i]);
	if (error == 0)
		error = suspect_vectors(s);
	if (error == 0)
		error = count_doubtful(s, w);
	s->lost_records = w[0].lacks && !w[0].is_whole;
	return error < 0 ? error : evidence_tell(s, !w[0].lacks || w[0].is_whole);
}
