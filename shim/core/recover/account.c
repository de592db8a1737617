/* SPDX-License-Identifier: MIT
 *
 * The account of a recovery: every record before and after, compared by checksums in a temporary
 * database, so that memory does not grow with the directory.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/crew.h"
#include "core/chroma/texts.h"
#include "core/export/fingerprint.h"
#include "core/recover/internal.h"
#include "core/sqlite/database.h"

static const char schema[] =
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
    "CREATE TABLE collection(id TEXT PRIMARY KEY, name TEXT, hurt INTEGER, phase INTEGER, "
    "older INTEGER DEFAULT 0);"
    "CREATE TABLE record(collection TEXT, id TEXT, phase INTEGER, vector INTEGER, content INTEGER, "
    "norm REAL, projection REAL, PRIMARY KEY (phase, collection, id)) WITHOUT ROWID;";

#define COMPARED                                                                             \
	" FROM record b JOIN collection c ON c.id = b.collection LEFT JOIN record a ON "     \
	"a.phase = 1 AND a.collection = b.collection AND a.id = b.id WHERE b.phase = 0 AND " \
	"b.collection = ?1 "
/* Damage explains it, or it had none before that. */
#define WAS_BARE "(b.vector IS NULL AND b.id IS NOT NULL AND NOT c.hurt)"
#define BARE_NOW                                                                             \
	" FROM record a JOIN collection c ON c.id = a.collection LEFT JOIN record b ON "     \
	"b.phase = 0 AND b.collection = a.collection AND b.id = a.id WHERE a.phase = 1 AND " \
	"a.collection = ?1 AND a.vector IS NULL AND NOT " WAS_BARE
#define IS_CHANGED "(a.content <> b.content OR " FINGERPRINT_VECTORS_DIFFER("a", "b") ")"

int recover_account_open(struct recover_account *a)
{
	int r;

	*a = (struct recover_account){.db = NULL};
	r = database_error(sqlite3_open_v2("", &a->db, SQLITE_OPEN_READWRITE, NULL));
	return r < 0 ? r : database_error(sqlite3_exec(a->db, schema, NULL, NULL, NULL));
}

void recover_account_close(struct recover_account *a)
{
	sqlite3_finalize(a->insert);
	sqlite3_close(a->db);
	*a = (struct recover_account){.db = NULL};
}

/* ---- taking ---- */

/*
 * Without a database a segment's records stood for themselves, and only what ids there were and
 * which of them had a vector is known.
 */
static int adopt_segment(struct recover_account *a, const struct chroma_collection *c)
{
	static const char *const sql[] = {
	    "UPDATE record AS r SET vector = (SELECT vector FROM record s WHERE s.phase = 0 AND "
	    "s.collection = ?2 AND s.id = r.id) WHERE phase = 0 AND collection = ?1 AND vector IS "
	    "NULL",
	    ("UPDATE OR IGNORE record SET collection = ?1, content = NULL, norm = NULL WHERE "
	     "collection = ?2 AND phase = 0"),
	    "DELETE FROM collection WHERE id = ?2"};
	unsigned i;
	int r = 0;

	for (i = 0; r == 0 && i < 3 && a->phase && c->vector_segment[0]; i++) {
		sqlite3_stmt *change = NULL;

		r = database_prepare(a->db, &change, sql[i]);
		if (r == 0) {
			if (i < 2)
				sqlite3_bind_text(change, 1, c->id, -1, SQLITE_STATIC);
			sqlite3_bind_text(change, 2, c->vector_segment, -1, SQLITE_STATIC);
			r = database_step(change);
		}
		sqlite3_finalize(change);
	}
	return r;
}

/* Of what could be read, Chroma had deleted what its queue says so of, and has not any more. */
static int forget_deleted(struct recover_account *a, const char *path)
{
	char *sql = sqlite3_mprintf(
	    "ATTACH '%q/" CHROMA_DATABASE "' AS healed; DELETE FROM record WHERE phase = 0 AND "
	    "content IS NULL AND (collection, id) IN (SELECT substr(topic, -36), id FROM "
	    "healed.embeddings_queue WHERE operation = 3) AND NOT EXISTS (SELECT 1 FROM record r "
	    "WHERE r.collection = record.collection AND r.id = record.id AND r.phase = 1); "
	    "DETACH healed",
	    path);
	int r = sql ? database_error(sqlite3_exec(a->db, sql, NULL, NULL, NULL)) : -ENOMEM;

	sqlite3_free(sql);
	return r == -ENOMEM || r == -ENOSPC ? r : 0;
}

/* What no collection has: its directory is left behind. */
static int forget_leftovers(struct recover_account *a)
{
	if (a->lacks_segments)
		return 0;
	return database_error(
	    sqlite3_exec(a->db, "DELETE FROM collection WHERE phase = 0", NULL, NULL, NULL));
}

static int begin(void *context, const struct export_collection *c)
{
	struct recover_account *a = context;
	sqlite3_stmt *put = NULL;
	int r = database_prepare(
	    a->db, &put,
	    "INSERT INTO collection(id, name, hurt, phase) VALUES (?1, ?2, ?3, ?4) ON CONFLICT(id) "
	    "DO UPDATE SET name = ?2, phase = ?4");
	bool hurt = a->phase ? a->costs_vectors
			     : recover_costs_vectors(a->judgement, c->collection->vector_segment);

	if (r == 0) {
		sqlite3_bind_text(put, 1, c->collection->id, -1, SQLITE_STATIC);
		sqlite3_bind_text(put, 2, c->collection->name, -1, SQLITE_STATIC);
		sqlite3_bind_int(put, 3, hurt);
		sqlite3_bind_int(put, 4, a->phase);
		r = database_step(put);
	}
	sqlite3_finalize(put);
	return r < 0 ? r : adopt_segment(a, c->collection);
}

/* Without its rows in `segments` a collection's records cannot be read as they are. */
static bool is_guessed(const struct recover_account *a, const struct chroma_collection *c)
{
	return !a->phase && !a->was_blind && (!c->metadata_segment[0] || !c->vector_segment[0]);
}

static int account_take(void *context, const struct export_record *record)
{
	struct recover_account *a = context;
	struct fingerprint f;
	bool is_unsure;
	int r;

	fingerprint_take(record, &f);
	sqlite3_bind_text(a->insert, 1, record->collection->id, -1, SQLITE_STATIC);
	sqlite3_bind_text(a->insert, 2, record->id, (int)record->id_size, SQLITE_STATIC);
	sqlite3_bind_int(a->insert, 3, a->phase);
	sqlite3_bind_null(a->insert, 4);
	if (f.has_vector)
		sqlite3_bind_int64(a->insert, 4, (sqlite3_int64)f.vector);
	sqlite3_bind_int64(a->insert, 5, (sqlite3_int64)(f.document + f.metadata));
	sqlite3_bind_double(a->insert, 6, f.norm);
	sqlite3_bind_double(a->insert, 7, f.projection);
	/* Whether what could not be read is lost is told by who finds it on its page, or not. */
	is_unsure = is_guessed(a, record->collection) || (!a->phase && record->lacks_queue);
	if (is_unsure || (!a->phase && record->lacks_values))
		sqlite3_bind_null(a->insert, 5);
	if (is_unsure)
		sqlite3_bind_null(a->insert, 6);
	a->was_unsure |= is_unsure;
	r = database_step(a->insert);
	sqlite3_reset(a->insert);
	return r;
}

static void note_trouble(void *context, const char *collection, const char *what, int error)
{
	struct recover_account *a = context;

	(void)collection;
	(void)what; /* check says it, by its code */
	(void)error;
	a->troubles[a->phase]++;
}

/*
 * Records that were changed since the index was written, by rows of the queue that are gone: their
 * vectors are as before, unless the change was of something else.
 */
static const char vectors_older[] =
    "SELECT EXISTS (SELECT 1 FROM segments v JOIN max_seq_id m ON m.segment_id = v.id JOIN "
    "segments s ON s.collection = v.collection AND s.scope = 'METADATA' JOIN embeddings e ON "
    "e.segment_id = s.id WHERE v.scope = 'VECTOR' AND " CHROMA_NUMBER_OF(
	"e") " > " CHROMA_NUMBER_OF("m") " AND " CHROMA_NUMBER_OF("e") " NOT IN (SELECT "
								       "printf('%016X', seq_id) "
								       "FROM "
								       "embeddings_queue))";

static bool has_older_vectors(const char *path)
{
	int64_t found = 0;
	sqlite3 *db;

	if (database_open(path, &db) == 0)
		database_number(db, vectors_older, NULL, &found);
	sqlite3_close(db);
	return found != 0;
}

void recover_account_judge(struct recover_account *a, int dirfd, const struct recover_judgement *j)
{
	a->judgement = j;
	a->may_differ |= recover_makes_vectors_differ(j, dirfd);
	if (!a->phase)
		a->costs_vectors = recover_costs_vectors(j, "");
}

static int take_all(struct recover_account *a, int dirfd, const char *path,
		    struct export_summary *summary)
{
	struct export_options options = {.vectors = true,
					 .only_index = !a->phase &&
						       a->judgement->steps & 1u << RECOVER_RECORDS,
					 .begin = begin,
					 .record = account_take,
					 .trouble = note_trouble,
					 .context = a};
	int r = database_prepare(a->db, &a->insert,
				 "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)");

	if (r == 0)
		r = export_directory(path, dirfd, &options, summary);
	if (r == -ENOENT || r == -EBADMSG) { /* a table lacks: there is nothing to compare with */
		a->troubles[a->phase]++;
		r = 0;
	}
	sqlite3_finalize(a->insert);
	a->insert = NULL;
	return r;
}

int recover_account_take(struct recover_account *a, int dirfd)
{
	struct export_summary summary = {0};
	char path[48];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dirfd);
	a->may_differ |= !a->phase && has_older_vectors(path);
	a->troubles[a->phase] = 0;
	r = database_error(
	    sqlite3_exec(a->db, "BEGIN; DELETE FROM record WHERE phase = 1", NULL, NULL, NULL));
	if (r == 0)
		r = take_all(a, dirfd, path, &summary);
	if (r == 0)
		r = database_error(sqlite3_exec(a->db, "COMMIT", NULL, NULL, NULL));
	a->was_blind |= summary.without_database;
	a->may_differ |= summary.overwritten > 0;
	if (r == 0 && a->phase && (a->was_blind || a->was_unsure))
		r = forget_deleted(a, path);
	if (r == 0 && a->phase && a->was_blind)
		r = forget_leftovers(a);
	a->is_taken = r == 0 && a->phase == 1;
	a->phase = 1;
	return r;
}

struct beside {
	struct recover_account *account;
	struct recover_judgement *judgement;
	int dirfd, judged, taken;
};

static void judge_beside(void *context)
{
	struct beside *b = context;

	b->judged = recover_judge(b->dirfd, b->judgement);
}

static void take_beside(void *context)
{
	struct beside *b = context;

	b->taken = recover_account_take(b->account, b->dirfd);
}

int recover_account_and_judge(struct recover_account *a, int dirfd, struct recover_judgement *j)
{
	struct beside b = {.account = a, .judgement = j, .dirfd = dirfd};

	assert(a->phase == 1);
	crew_both(judge_beside, take_beside, &b);
	if (b.judged == 0)
		recover_account_judge(a, dirfd, j);
	return b.judged < 0 ? b.judged : b.taken;
}

static int run_for_record(struct recover_account *a, const char *sql, const char *collection_id,
			  const char *id, size_t id_size)
{
	sqlite3_stmt *put = NULL;
	int r = database_prepare(a->db, &put, sql);

	if (r == 0) {
		sqlite3_bind_text(put, 1, collection_id, -1, SQLITE_STATIC);
		sqlite3_bind_text(put, 2, id, (int)id_size, SQLITE_STATIC);
		r = database_step(put);
	}
	sqlite3_finalize(put);
	return r;
}

/* The content "harmed" is like no other, so the record counts as changed whatever is read later. */
int recover_account_note(struct recover_account *a, const char *collection_id, const char *id,
			 size_t id_size)
{
	return run_for_record(
	    a,
	    "INSERT INTO record(collection, id, phase, content) VALUES (?1, ?2, 0, 'harmed') ON "
	    "CONFLICT DO UPDATE SET content = 'harmed'",
	    collection_id, id, id_size);
}

int recover_account_insert(struct recover_account *a, const char *collection_id, const char *id,
			   size_t id_size)
{
	return run_for_record(a,
			      "INSERT INTO record(collection, id, phase, vector) VALUES (?1, ?2, "
			      "0, 0) ON CONFLICT DO UPDATE SET content = NULL",
			      collection_id, id, id_size);
}

int recover_account_older(struct recover_account *a, const char *collection_id, uint64_t count)
{
	char number[24];

	a->may_be_old = true;
	snprintf(number, sizeof(number), "%llu", (unsigned long long)count);
	return run_for_record(a,
			      "INSERT INTO collection(id, hurt, phase, older) VALUES (?1, 1, 0, "
			      "CAST(?2 AS INTEGER)) ON CONFLICT(id) DO UPDATE SET older = older + "
			      "CAST(?2 AS INTEGER)",
			      collection_id, number, strlen(number));
}

int recover_account_forget(struct recover_account *a, const char *collection_id, const char *id,
			   size_t id_size)
{
	return run_for_record(a,
			      "UPDATE record SET content = NULL WHERE phase = 0 AND collection = "
			      "?1 AND id = ?2",
			      collection_id, id, id_size);
}

int recover_account_adopt(struct recover_account *a, const char *from, const char *to)
{
	int r = run_for_record(a,
			       "UPDATE OR IGNORE record SET collection = ?2 WHERE phase = 0 AND "
			       "collection = ?1",
			       from, to, strlen(to));

	return r < 0 ? r
		     : run_for_record(a, "DELETE FROM collection WHERE id = ?1 AND ?2 NOTNULL",
				      from, to, strlen(to));
}

/* It has the record under its right id already where the index gave it that. */
int recover_account_rename(struct recover_account *a, const char *collection_id, const char *id,
			   size_t id_size, const char *to)
{
	sqlite3_stmt *put = NULL;
	int r = database_prepare(a->db, &put,
				 "UPDATE OR REPLACE record AS r SET id = ?3, vector = coalesce("
				 "vector, (SELECT vector FROM record s WHERE s.phase = 0 AND "
				 "s.collection = ?1 AND s.id = ?3)) WHERE phase = 0 AND collection "
				 "= ?1 AND id = ?2");

	if (r == 0) {
		sqlite3_bind_text(put, 1, collection_id, -1, SQLITE_STATIC);
		sqlite3_bind_text(put, 2, id, (int)id_size, SQLITE_STATIC);
		sqlite3_bind_text(put, 3, to, -1, SQLITE_STATIC);
		r = database_step(put);
	}
	sqlite3_finalize(put);
	return r;
}

int recover_account_drop(struct recover_account *a, const char *collection_id)
{
	int r =
	    run_for_record(a, "DELETE FROM record WHERE collection = ?1 AND phase = 0 AND ?2 = ''",
			   collection_id, "", 0);

	return r < 0 ? r
		     : run_for_record(a, "DELETE FROM collection WHERE id = ?1 AND ?2 = ''",
				      collection_id, "", 0);
}

/* ---- telling ---- */

static int count_one(struct recover_account *a, const char *sql, const char *collection,
		     uint64_t *const out[])
{
	sqlite3_stmt *row = NULL;
	int i, r = database_prepare(a->db, &row, sql);

	if (r == 0) {
		sqlite3_bind_text(row, 1, collection, -1, SQLITE_STATIC);
		r = database_step(row);
	}
	for (i = 0; r == 1 && i < sqlite3_column_count(row); i++)
		*out[i] = (uint64_t)sqlite3_column_int64(row, i);
	sqlite3_finalize(row);
	return r < 0 ? r : 0;
}

static int account_count(struct recover_account *a, struct recover_collection *c)
{
	static const char before[] = "SELECT count(*), count(vector) FROM record WHERE "
				     "collection = ?1 AND phase = 0",
			  after[] = "SELECT count(*), count(vector) FROM record WHERE "
				    "collection = ?1 AND phase = 1",
			  compared[] =
			      "SELECT sum(a.id IS NULL AND NOT " WAS_BARE "), sum(" IS_CHANGED
			      "), sum(a.vector IS NULL AND " WAS_BARE ")" COMPARED,
			  bare[] = "SELECT count(*)" BARE_NOW;
	int r =
	    count_one(a, before, c->id, (uint64_t *const[]){&c->records[0], &c->with_vector[0]});

	if (r == 0)
		r = count_one(a, after, c->id,
			      (uint64_t *const[]){&c->records[1], &c->with_vector[1]});
	if (r == 0)
		r = count_one(a, compared, c->id,
			      (uint64_t *const[]){&c->lost, &c->changed, &c->were_bare});
	return r == 0 ? count_one(a, bare, c->id, (uint64_t *const[]){&c->bare}) : r;
}

int recover_account_each(struct recover_account *a, recover_collection_fn *each, void *context)
{
	sqlite3_stmt *rows = NULL;
	int r =
	    database_prepare(a->db, &rows, "SELECT id, name, older FROM collection ORDER BY rowid");

	while (r == 0 && (r = database_step(rows)) == 1) {
		struct recover_collection c = {
		    .id = (const char *)sqlite3_column_text(rows, 0),
		    .name = (const char *)sqlite3_column_text(rows, 1),
		    .older = (uint64_t)sqlite3_column_int64(rows, 2),
		};

		r = account_count(a, &c);
		if (r == 0)
			r = each(context, &c);
	}
	sqlite3_finalize(rows);
	return r;
}

int recover_account_each_lost(struct recover_account *a, const char *collection_id,
			      recover_lost_fn *each, void *context)
{
	static const char sql[] =
	    "SELECT b.id, 'record'" COMPARED "AND a.id IS NULL AND NOT " WAS_BARE " UNION ALL "
	    "SELECT b.id, 'changed'" COMPARED "AND " IS_CHANGED " UNION ALL "
	    "SELECT a.id, 'vector'" BARE_NOW " UNION ALL "
	    "SELECT b.id, 'bare'" COMPARED "AND a.vector IS NULL AND " WAS_BARE;
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(a->db, &rows, sql);

	if (r == 0)
		sqlite3_bind_text(rows, 1, collection_id, -1, SQLITE_STATIC);
	while (r == 0 && (r = database_step(rows)) == 1)
		r = each(context, (const char *)sqlite3_column_text(rows, 0),
			 (size_t)sqlite3_column_bytes(rows, 0),
			 (const char *)sqlite3_column_text(rows, 1));
	sqlite3_finalize(rows);
	return r;
}
