/* SPDX-License-Identifier: MIT
 *
 * Healing vector indexes: the vectors of a broken one go back to Chroma's queue, from which Chroma
 * builds the index again by itself.
 *
 * Each record becomes one row at a free number not above the METADATA segment's mark, so that the
 * metadata does not notice; the rows that were there up to that mark are taken out, for what they
 * did is in the vectors already. The VECTOR segment loses its mark, or Chroma would purge the rows
 * while the new index is in memory only.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/tree.h"
#include "core/export/export.h"
#include "core/recover/internal.h"

struct broken {
	struct recovery *r;
	sqlite3_stmt *put;
	const struct chroma_collection *c;
	uint64_t given, bare, short_of; /* the last: without their length */
};

/* ---- which are broken ---- */

static const char *code_of(const struct recovery *r, const struct chroma_collection *c)
{
	return recover_finding_of(r->judgement, RECOVER_HNSW, c->vector_segment);
}

static bool is_called(const struct chroma_collection *c, const char *name)
{
	return c->vector_segment[0] && (strcmp(name, c->name) == 0 || strcmp(name, c->id) == 0);
}

static bool is_broken(const struct recovery *r, const struct chroma_collection *c)
{
	const char *rebuild = r->options->rebuild;

	return code_of(r, c) || (rebuild && is_called(c, rebuild));
}

static int find_called(void *context, const struct chroma_collection *c)
{
	return is_called(c, context);
}

bool recover_has_index(int dirfd, const char *collection)
{
	char path[48];
	sqlite3 *db;
	int error;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dirfd);
	error = database_open_now(path, dirfd, &db);
	if (error == 0)
		error = chroma_each_collection(db, find_called, (void *)(uintptr_t)collection);
	sqlite3_close(db);
	return error != 0; /* also where it cannot be told */
}

/* ---- the vectors ---- */

/* To a temporary table: the export reads the database at the same time. */
static int put_vector(void *context, const struct export_record *record)
{
	struct broken *b = context;
	int error;

	if (!record->vector) {
		b->bare++;
		return 0;
	}
	if (record->lacks_length) {
		b->short_of++;
		if (b->r->options->account && recover_account_note(b->r->options->account, b->c->id,
								   record->id, record->id_size) < 0)
			return -ENOMEM;
	}
	sqlite3_bind_text(b->put, 1, record->id, (int)record->id_size, SQLITE_STATIC);
	sqlite3_bind_blob(b->put, 2, record->vector, (int)(record->dimension * sizeof(float)),
			  SQLITE_STATIC);
	error = database_step(b->put);
	sqlite3_reset(b->put);
	b->given++;
	return error;
}

/* In the account's readings it is the same. */
static void say_mended(void *context, const char *collection, const char *sentence)
{
	struct broken *b = context;

	recover_say(b->r, RECOVER_HNSW, collection, "%s", sentence);
}

static int read_vectors(struct broken *b, const struct chroma_collection *c)
{
	struct export_options options = {.collection = c->id,
					 .vectors = true,
					 .record = put_vector,
					 .trouble = recover_ignore_trouble,
					 .mended = say_mended,
					 .context = b};
	struct export_summary summary;
	int error;

	b->c = c;
	b->given = b->bare = b->short_of = 0;
	error = recover_sql(b->r, "CREATE TEMP TABLE IF NOT EXISTS given(n INTEGER PRIMARY KEY, "
				  "id TEXT, vector BLOB); DELETE FROM temp.given;"
				  "CREATE TEMP TABLE IF NOT EXISTS place(n INTEGER PRIMARY KEY, "
				  "seq INTEGER); DELETE FROM temp.place; SAVEPOINT given");
	if (error == 0)
		error = database_prepare(b->r->db, &b->put,
					 "INSERT INTO temp.given(id, vector) VALUES (?, ?)");
	if (error == 0)
		error = export_directory(b->r->path, b->r->dirfd, &options, &summary);
	sqlite3_finalize(b->put);
	b->put = NULL;
	return error < 0 ? error : recover_sql(b->r, "RELEASE given");
}

/* ---- back to the queue ---- */

/* Free numbers from 1 to `last`, in order. A table of their own: a row with its vector is long. */
static int find_numbers(struct recovery *r, int64_t last)
{
	sqlite3_stmt *used = NULL, *given = NULL, *put = NULL;
	int64_t next = 1, taken = 0;
	int error = database_prepare(r->db, &used,
				     "SELECT seq_id FROM embeddings_queue WHERE seq_id > 0 "
				     "ORDER BY seq_id");

	if (error == 0)
		error = database_prepare(r->db, &given, "SELECT n FROM temp.given ORDER BY n");
	if (error == 0)
		error = database_prepare(r->db, &put, "INSERT INTO temp.place VALUES (?, ?)");
	for (; error == 0 && next <= last; next++) {
		if (taken < next)
			taken =
			    database_step(used) == 1 ? sqlite3_column_int64(used, 0) : INT64_MAX;
		if (taken == next)
			continue;
		error = database_step(given);
		if (error <= 0)
			break;
		sqlite3_bind_int64(put, 1, sqlite3_column_int64(given, 0));
		sqlite3_bind_int64(put, 2, next);
		error = database_step(put);
		sqlite3_reset(put);
	}
	sqlite3_finalize(used);
	sqlite3_finalize(given);
	sqlite3_finalize(put);
	return error;
}

/*
 * Where numbers are short (a queue that has started again), the rest goes to the end: a row without
 * metadata leaves the metadata as it is.
 */
static int find_more_numbers(struct recovery *r)
{
	return recover_sql(r, "INSERT INTO temp.place SELECT n, n + (SELECT max(coalesce(max("
			      "seq_id), 0), 0) FROM embeddings_queue) FROM temp.given WHERE n > "
			      "(SELECT coalesce(max(n), 0) FROM temp.place)");
}

static int run_for(struct recovery *r, const char *sql, const char *text, int64_t number)
{
	sqlite3_stmt *s = NULL;
	int error = database_prepare(r->db, &s, sql);

	if (error == 0) {
		sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
		if (sqlite3_bind_parameter_count(s) > 1)
			sqlite3_bind_int64(s, 2, number);
		error = database_step(s);
	}
	sqlite3_finalize(s);
	return error;
}

/*
 * The queue's numbers go on from its last row: it must not end below a mark, or what is written
 * next would be taken for applied. The mark's own row is among those taken out, so it is free.
 */
static int keep_end(struct recovery *r, int64_t mark)
{
	int64_t end;
	int error = database_number(r->db,
				    "SELECT max(coalesce((SELECT max(seq_id) FROM "
				    "embeddings_queue), 0), coalesce((SELECT max(seq) FROM "
				    "temp.place), 0))",
				    NULL, &end);

	return error < 0 || end >= mark
		   ? error
		   : run_for(r,
			     "UPDATE temp.place SET seq = ?2 WHERE n = (SELECT max(n) FROM "
			     "temp.place) AND ?1 = ''",
			     "", mark);
}

static int give_back(struct recovery *r, const struct chroma_collection *c)
{
	int64_t mark = (int64_t)c->metadata_mark.value;
	int error = recover_sql(r, "BEGIN IMMEDIATE");

	if (error == 0)
		error = run_for(r,
				"DELETE FROM embeddings_queue WHERE topic = ?1 AND seq_id <= ?2 "
				"AND (seq_id < ?2 OR EXISTS (SELECT 1 FROM temp.given))",
				c->topic, mark);
	if (error == 0)
		error = find_numbers(r, mark);
	if (error == 0)
		error = find_more_numbers(r);
	if (error == 0)
		error = keep_end(r, mark);
	if (error == 0)
		error = run_for(r,
				"INSERT INTO embeddings_queue(seq_id, operation, topic, id, "
				"vector, encoding, metadata) SELECT p.seq, 2, ?1, g.id, g.vector, "
				"'FLOAT32', '{}' FROM temp.given g JOIN temp.place p ON p.n = g.n "
				"ORDER BY g.n",
				c->topic, 0);
	if (error == 0)
		error = run_for(r, "DELETE FROM max_seq_id WHERE segment_id = ?1",
				c->vector_segment, 0);
	if (error == 0)
		error = recover_sql(r, "COMMIT");
	if (error < 0)
		recover_sql(r, "ROLLBACK");
	return error;
}

static int heal_collection(struct broken *b, const struct chroma_collection *c)
{
	struct recovery *r = b->r;
	int error = read_vectors(b, c);

	if (error == 0)
		error = give_back(r, c);
	if (error == 0)
		error = tree_remove(r->dirfd, c->vector_segment);
	if (error < 0)
		return error;
	r->healed++;
	recover_say(r, RECOVER_HNSW, c->name,
		    "vector index %.36s (%s): %" PRIu64
		    " vectors were given back to the queue, from which Chroma builds it again%s",
		    c->vector_segment, code_of(r, c) ? code_of(r, c) : "as asked for", b->given,
		    b->bare ? "; some are lost" : "");
	if (b->short_of)
		recover_say(r, RECOVER_HNSW, c->name,
			    "%" PRIu64 " vectors have lost their length: their direction is there, "
			    "by which cosine searches go",
			    b->short_of);
	return 0;
}

int recover_hnsw(struct recovery *r)
{
	struct broken b = {.r = r};
	struct recover_list list;
	int error = recover_list_collections(r, is_broken, &list);
	size_t i;

	for (i = 0; i < list.count && error == 0; i++)
		error = heal_collection(&b, &list.list[i]);
	recover_list_free(&list);
	return error;
}
