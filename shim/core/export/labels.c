/* SPDX-License-Identifier: MIT
 *
 * Which id has which label, where the pickle is lost or older than the other files: by the order in
 * which both were made.
 *
 * Chroma >= 1.0 hands out labels in the order of its log, in which rows of `embeddings` are made as
 * well, and neither changes while a record lives. So the n-th live label belongs to the n-th record
 * of the moment when the index was written. That moment is the VECTOR mark if the pickle was lost
 * later. If a kill in the persist cut it, the index is one persist ahead of that mark: at the
 * METADATA mark, or before it, since Chroma goes on applying metadata when it can no longer read
 * the index. Records made after that moment are the last ones: as many come first as there are live
 * labels.
 *
 * Nothing is believed that is not confirmed, by pairs that can still be read of the pickle or by
 * vectors in the queue, and nothing that they contradict. Python's releases shuffle within a batch:
 * there nothing is guessed.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/chroma/migrations.h"
#include "core/export/internal.h"
#include "core/sqlite/database.h"

#define MANY 32 /* vectors that confirm it, whatever else the queue has */

void export_mended(struct exporter *x, const struct chroma_collection *c, const char *format, ...)
{
	char sentence[512];
	va_list ap;

	if (!x->options->mended)
		return;
	va_start(ap, format);
	vsnprintf(sentence, sizeof(sentence), format, ap);
	va_end(ap);
	x->options->mended(x->options->context, c->name, sentence);
}

static int run(struct exporter *x, const char *sql)
{
	return database_error(sqlite3_exec(x->db, sql, NULL, NULL, NULL));
}

/* One number, or a change: ?1 the METADATA segment, ?2 the VECTOR mark, ?3 the topic. */
static int label_ask(struct exporter *x, const struct chroma_collection *c, const char *sql,
		     int64_t *out)
{
	sqlite3_stmt *s = NULL;
	int r = database_prepare(x->db, &s, sql);

	if (r == 0) {
		sqlite3_bind_text(s, 1, c->metadata_segment, -1, SQLITE_STATIC);
		sqlite3_bind_int64(s, 2, (sqlite3_int64)chroma_mark_restore(c->vector_mark.value));
		sqlite3_bind_text(s, 3, c->topic, -1, SQLITE_STATIC);
		r = database_step(s);
	}
	if (r == 1 && out)
		*out = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return r < 0 ? r : 0;
}

/* Python's releases leave their class in the settings, or none, and BLOBs in the rows. */
static bool is_in_order(struct exporter *x, const struct chroma_collection *c)
{
	static const char of_python[] = "SELECT count(*) FROM embeddings WHERE segment_id = ?1 AND "
					"typeof(seq_id) = 'blob' AND ?2 NOTNULL AND ?3 NOTNULL";
	struct migration_state migrations;
	int64_t made = 0, blobs = 1;
	bool has_schema = database_has_column(x->db, "collections", "schema_str") == 1;

	if (migrations_read(x->db, &migrations) < 0 ||
	    migrations.counts[MIGRATION_METADB] < MIGRATION_METADB_OF_RUST)
		return false;
	database_number(
	    x->db,
	    has_schema ? "SELECT count(*) FROM collections WHERE id = ? AND (schema_str NOTNULL "
			 "OR CASE WHEN json_valid(config_json_str) THEN "
			 "json_extract(config_json_str, '$._type') ISNULL END)"
		       : "SELECT count(*) FROM collections WHERE id = ? AND CASE WHEN "
			 "json_valid(config_json_str) THEN json_extract(config_json_str, "
			 "'$._type') ISNULL END",
	    c->id, &made);
	return made && label_ask(x, c, of_python, &blobs) == 0 && !blobs;
}

/* ---- the order ---- */

/*
 * Records that were there at the VECTOR mark, as far as that is sure; one changed since has a later
 * number. If it is as many as there are labels, it is all of them.
 */
#define AT_MARK                                                                                \
	"SELECT e.embedding_id AS id, row_number() OVER (ORDER BY e.id) AS n FROM "            \
	"embeddings e WHERE e.segment_id = ?1 AND (e.seq_id <= ?2 OR e.id < (SELECT max(id) "  \
	"FROM embeddings WHERE segment_id = ?1 AND seq_id <= ?2) OR (SELECT q.operation FROM " \
	"temp.first_change q WHERE q.id = e.embedding_id) = 1) AND ?3 NOTNULL"
/* All of them, and behind them those that only the queue has so far. */
#define FIRST                                                                                     \
	"SELECT id, row_number() OVER (ORDER BY made, at) AS n FROM (SELECT embedding_id AS id, " \
	"0 AS made, id AS at FROM embeddings WHERE segment_id = ?1 UNION ALL SELECT p.id, 1, "    \
	"min(p.seq) FROM temp.pending p JOIN embeddings_queue q ON q.seq_id = p.seq WHERE "       \
	"q.operation IN (0, 2) AND NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.segment_id = "  \
	"?1 AND e.embedding_id = p.id) AND ?2 NOTNULL AND ?3 NOTNULL GROUP BY p.id)"
/* Numbers first, in tables of their own: nothing else keeps the join from comparing all with all.
 */
static const char lists[] =
    "CREATE TEMP TABLE IF NOT EXISTS pair(n INTEGER PRIMARY KEY, id TEXT UNIQUE, label INTEGER, at "
    "INTEGER);"
    "CREATE TEMP TABLE IF NOT EXISTS ranked_id(n INTEGER PRIMARY KEY, id TEXT);"
    "CREATE TEMP TABLE IF NOT EXISTS ranked_label(n INTEGER PRIMARY KEY, label INTEGER, at "
    "INTEGER);"
    "CREATE TEMP TABLE IF NOT EXISTS first_change(id TEXT PRIMARY KEY, operation INTEGER) WITHOUT "
    "ROWID;"
    "DELETE FROM temp.first_change; DELETE FROM temp.ranked_label;"
    "INSERT INTO temp.ranked_label SELECT row_number() OVER (ORDER BY label), label, at FROM "
    "temp.element";
static const char changes[] = "INSERT OR IGNORE INTO temp.first_change SELECT id, operation FROM "
			      "embeddings_queue WHERE topic = "
			      "?3 AND seq_id > ?2 AND ?1 NOTNULL ORDER BY seq_id";
static const char pairs_sql[] = "INSERT OR IGNORE INTO temp.pair SELECT r.n - 1, r.id, l.label, "
				"l.at FROM temp.ranked_label l JOIN "
				"temp.ranked_id r ON r.n = l.n";
#define RANKED(records) "INSERT INTO temp.ranked_id SELECT n, id FROM (" records ")"

/* The n-th live label to the n-th record. *count_out is 0 if it does not come out even. */
static int pair_up(struct exporter *x, const struct chroma_collection *c, bool at_mark,
		   int64_t *count_out)
{
	int64_t live = 0, pairs = 0, records = 0;
	int r = run(x, "DELETE FROM temp.pair; DELETE FROM temp.ranked_id");

	*count_out = 0;
	if (r == 0)
		r = database_number(x->db, "SELECT count(*) FROM temp.element", NULL, &live);
	if (r < 0 || live == 0)
		return r;
	r = label_ask(x, c, at_mark ? RANKED(AT_MARK) : RANKED(FIRST), NULL);
	if (r == 0)
		r = database_number(x->db, "SELECT count(*) FROM temp.ranked_id", NULL, &records);
	if (r < 0 || (at_mark && records != live))
		return r;
	r = run(x, pairs_sql);
	if (r == 0)
		r = database_number(x->db, "SELECT count(*) FROM temp.pair", NULL, &pairs);
	*count_out = pairs == live ? live : 0;
	return r;
}

/* ---- what confirms it ---- */

enum known { NOTHING, AGREES, DIFFERS };

/* The queue's rows in their order, against the vectors of the index. */
struct proof {
	struct export_vectors *v;
	struct exporter *x;
	unsigned char *known;		 /* enum known, by the number of the pair */
	uint64_t agree, differ, witness; /* ids, at a moment; that the queue has anything of */
	uint64_t best;			 /* the most that agree at a moment when none differs */
};

static bool is_same_direction(const float *a, const float *b, uint64_t dimension)
{
	double ab = 0, aa = 0, bb = 0;
	uint64_t i;

	for (i = 0; i < dimension; i++) {
		ab += (double)a[i] * (double)b[i];
		aa += (double)a[i] * (double)a[i];
		bb += (double)b[i] * (double)b[i];
	}
	return ab * ab >= 0.999999 * aa * bb && ab >= 0;
}

/* Of cosine collections the index has the direction. */
static bool is_same(struct proof *p, sqlite3_stmt *row)
{
	uint64_t dimension = hnsw_dimension(&p->v->level0.header);
	size_t size = (size_t)sqlite3_column_bytes(row, 2), i;
	struct hnsw_element e;
	float *mine, *theirs;
	bool same = false;

	if (size != dimension * sizeof(float) ||
	    hnsw_level0_get(&p->v->level0, (uint64_t)sqlite3_column_int64(row, 1), &e) < 0)
		return false;
	if (p->v->collection->space != CHROMA_COSINE)
		return memcmp(e.vector, sqlite3_column_blob(row, 2), size) == 0;
	mine = malloc(2 * size);
	if (!mine)
		return false;
	theirs = mine + dimension;
	memcpy(mine, e.vector, size);
	memcpy(theirs, sqlite3_column_blob(row, 2), size);
	for (i = 0; i < dimension && theirs[i] == 0; i++)
		;
	same = i < dimension && is_same_direction(mine, theirs, dimension);
	free(mine);
	return same;
}

static void learn(struct proof *p, uint64_t n, enum known now)
{
	enum known before = (enum known)p->known[n];

	p->witness += before == NOTHING && now != NOTHING;
	p->agree += (now == AGREES) - (uint64_t)(before == AGREES);
	p->differ += (now == DIFFERS) - (uint64_t)(before == DIFFERS);
	p->known[n] = (unsigned char)now;
}

/* An `add` counts only if the record's row says that it was not ignored. */
static const char rows_sql[] =
    "SELECT p.n, p.at, q.vector, q.seq_id, q.operation, e.seq_id IS q.seq_id FROM "
    "embeddings_queue q JOIN temp.pair p ON p.id = q.id LEFT JOIN embeddings e ON e.segment_id = "
    "?3 AND e.embedding_id = q.id WHERE q.topic = ?1 AND q.seq_id <= ?2 AND q.vector NOTNULL AND "
    "q.operation IN (0, 1, 2) AND q.encoding = 'FLOAT32' ORDER BY q.seq_id";

/*
 * The moment when the index was written is `last`, or, with -1, the one after the VECTOR mark that
 * the queue agrees with best.
 */
static int ask_queue(struct proof *p, int64_t last)
{
	const struct chroma_collection *c = p->v->collection;
	int64_t mark = (int64_t)chroma_mark_restore(c->vector_mark.value);
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(p->x->db, &rows, rows_sql);

	if (r == 0) {
		sqlite3_bind_text(rows, 1, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(rows, 2, last < 0 ? INT64_MAX : last);
		if (p->x->has_rows_by_id)
			sqlite3_bind_text(rows, 3, c->metadata_segment, -1, SQLITE_STATIC);
	}
	while (r == 0 && (r = database_step(rows)) == 1) {
		uint64_t n = (uint64_t)sqlite3_column_int64(rows, 0);
		bool same = is_same(p, rows);
		bool counts =
		    sqlite3_column_int(rows, 4) != CHROMA_ADD || sqlite3_column_int(rows, 5);

		r = 0;
		if (same || counts)
			learn(p, n, same ? AGREES : DIFFERS);
		if (last < 0 && sqlite3_column_int64(rows, 3) >= mark && !p->differ &&
		    p->agree > p->best)
			p->best = p->agree;
	}
	sqlite3_finalize(rows);
	if (last >= 0)
		p->best = p->differ ? 0 : p->agree;
	return r;
}

/* Pairs that can still be read: all of them must be among those made up. */
static int ask_pickle(struct exporter *x, int64_t *agree_out, int64_t *differ_out)
{
	int r = database_number(x->db,
				"SELECT count(*) FROM temp.label k JOIN temp.pair p ON p.id = k.id "
				"AND p.label = k.label",
				NULL, agree_out);

	return r < 0 ? r
		     : database_number(x->db,
				       "SELECT count(*) FROM temp.label k JOIN temp.element USING "
				       "(label) LEFT JOIN temp.pair p ON p.id = k.id WHERE p.label "
				       "IS NOT k.label",
				       NULL, differ_out);
}

/* 1: confirmed, and nothing contradicts; *agree_out: by how many vectors, *known_out: pairs. */
static int is_right(struct export_vectors *v, struct exporter *x, bool at_mark, int64_t pairs,
		    uint64_t *agree_out, int64_t *known_out)
{
	struct proof p = {.v = v, .x = x, .known = calloc((size_t)pairs, 1)};
	int64_t mark = (int64_t)chroma_mark_restore(v->collection->vector_mark.value), differ = 0;
	int r = p.known ? ask_pickle(x, known_out, &differ) : -ENOMEM;

	if (r == 0 && !differ)
		r = ask_queue(&p, at_mark ? mark : -1);
	free(p.known);
	*agree_out = p.best;
	if (r < 0 || differ || (at_mark && p.differ))
		return r;
	if (at_mark)
		return p.best || *known_out;
	/* A few that agree where most do not are equal by chance. */
	return p.best >= MANY || (p.best && 2 * p.best >= p.witness) ||
	       (*known_out && p.best + p.witness == 0);
}

static const char added[] =
    "INSERT OR REPLACE INTO temp.label SELECT id, label FROM temp.pair WHERE label NOT IN (SELECT "
    "label FROM temp.label WHERE label NOTNULL) AND id NOT IN (SELECT id FROM temp.label JOIN "
    "temp.element USING (label))";

/* What a whole pickle says stays: the order only adds to it. */
static int believe(struct export_vectors *v, struct exporter *x, int64_t known, uint64_t agree)
{
	int64_t pairs = 0;
	int r = v->labels_lost ? run(x, "DELETE FROM temp.label") : 0;

	if (r == 0)
		r = run(x, added);
	if (r == 0)
		r = database_number(x->db, "SELECT changes()", NULL, &pairs);
	if (r == 0)
		export_mended(x, v->collection,
			      "%s the order in which they were made (%lld records; confirmed by "
			      "%lld pairs of the old pickle and %llu vectors in the queue)",
			      v->labels_lost ? "ids and vectors were matched again by"
					     : "ids that an older pickle lacks were matched by",
			      (long long)pairs, (long long)known, (unsigned long long)agree);
	return r;
}

static int pair_and_prove(struct export_vectors *v, struct exporter *x)
{
	const struct chroma_collection *c = v->collection;
	int64_t pairs = 0, known = 0;
	uint64_t agree = 0;
	int r = 0, at_mark;

	for (at_mark = 1; at_mark >= 0 && r == 0; at_mark--) {
		r = pair_up(x, c, at_mark, &pairs);
		if (r == 0 && pairs)
			r = is_right(v, x, at_mark, pairs, &agree, &known);
	}
	if (r <= 0)
		return r;
	r = believe(v, x, known, agree);
	return r < 0 ? r : 1;
}

int export_pair_labels(struct export_vectors *v, struct exporter *x)
{
	int r;

	if (!is_in_order(x, v->collection))
		return 0;
	r = run(x, lists);
	if (r == 0)
		r = label_ask(x, v->collection, changes, NULL);
	if (r == 0)
		r = pair_and_prove(v, x);
	/* Without a table there is no telling; what lacks is said elsewhere. */
	return r == -ENOENT || r == -EBADMSG ? 0 : r;
}
