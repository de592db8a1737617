/* SPDX-License-Identifier: MIT
 *
 * Judging ids and labels of a segment: the pickle's maps against each other, against the labels in
 * data_level0.bin, and against the records of the database with the queue in mind.
 *
 * Ids are compared by a seeded 64-bit hash: 16 bytes a record, however long the ids are.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/checksum.h"
#include "core/check/internal.h"
#include "core/chroma/texts.h"
#include "core/segment/pickle.h"
#include "core/sqlite/database.h"

#define ZEROS_MIN 4096 /* fewer tell nothing of a copy */
#define EXAMPLES 3

struct entry {
	uint64_t hash;
	uint32_t label;
	bool in_index, is_record;
};

#define LAST_ROWS 256
#define LOOK_BACK 100000 /* numbers of the queue */

/* The newest vector of an id in the queue, up to the mark: the index must have it. */
struct last_row {
	uint64_t hash;
	uint32_t label; /* 0: the pickle does not have the id */
	float *vector;
	char id[48];
};

struct ids {
	struct last_row last[LAST_ROWS];
	size_t last_count;
	struct entry *entries; /* of id_to_label */
	size_t count, room;
	uint64_t *tail; /* sorted hashes of ids that the queue still has to say something about */
	size_t tail_count;
	uint64_t seed;
	uint64_t forth, back; /* sums over the pairs of both maps: equal if they are inverse */
	uint64_t odd_labels;  /* 0, negative, or beyond 32 bits */
	int64_t last_label;
};

static uint64_t hash_id(const struct ids *ids, const void *id, size_t size)
{
	return checksum64(id, size, ids->seed);
}

static void add_example(char *out, size_t room, const void *id, size_t size)
{
	size_t have = strlen(out);

	snprintf(out + have, room - have, "%s%.*s", have ? ", " : "", size < 60 ? (int)size : 60,
		 (const char *)id);
}

/* ---- the pickle ---- */

static int add_pair(void *context, enum pickle_map map, const char *id, size_t size, int64_t label)
{
	struct ids *ids = context;
	uint64_t hash = hash_id(ids, id, size);
	uint64_t pair[2] = {hash, (uint64_t)label};
	struct entry *more;

	if (map == PICKLE_LABEL_TO_ID)
		ids->back += checksum64(pair, sizeof(pair), ids->seed);
	if (map != PICKLE_ID_TO_LABEL)
		return 0;
	ids->forth += checksum64(pair, sizeof(pair), ids->seed);
	if (label < 1 || label > UINT32_MAX)
		ids->odd_labels++;
	if (label > ids->last_label)
		ids->last_label = label;
	if (ids->count == ids->room) {
		ids->room = ids->room ? 2 * ids->room : 1024;
		more = realloc(ids->entries, ids->room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		ids->entries = more;
	}
	ids->entries[ids->count++] = (struct entry){.hash = hash, .label = (uint32_t)label};
	return 0;
}

/*
 * Chroma's pickles end with "u." (a map was filled, in 1.x) or with "b." (an object was, before
 * it). The last byte alone does not tell: 46 is the STOP, and a label or a part of an id, too.
 */
static bool has_its_end(const struct file_source *source)
{
	char last[2];

	return source->size > sizeof(last) &&
	       file_source_read(source, last, sizeof(last), source->size - sizeof(last)) == 0 &&
	       (last[0] == 'u' || last[0] == 'b') && last[1] == '.';
}

/* With a last label below one that is there, Chroma hands that out again; negative numbers it
 * refuses. */
static bool has_odd_numbers(const struct ids *ids, const struct pickle_index *index)
{
	return (index->has_total && index->total_elements_added < ids->last_label) ||
	       (index->has_dimension && index->dimension < 0) ||
	       (index->has_max_seq_id && index->max_seq_id < 0);
}

/* True if the maps can be relied on; *index is filled in. */
static bool read_pickle(struct diagnosis *d, struct diagnose_place place,
			const struct file_source *source, struct ids *ids,
			struct pickle_index *index)
{
	int r = pickle_read_index(source, add_pair, ids, index);

	/* With its end it was not cut: a damaged length led beyond it. */
	if (r == -ENODATA && has_its_end(source))
		r = -EBADMSG;
	if (r == -ENODATA)
		diagnose_report(d, DIAGNOSE_PICKLE_CUT, place, "%llu bytes, %llu ids",
				(unsigned long long)source->size,
				(unsigned long long)index->pairs[PICKLE_ID_TO_LABEL]);
	else if (r == -EPROTONOSUPPORT && index->end < 100 && index->protocol > 5)
		diagnose_report(d, DIAGNOSE_PICKLE_FOREIGN, place, "protocol %d", index->protocol);
	else if (r == -EBADMSG || r == -EPROTONOSUPPORT)
		diagnose_report(d, DIAGNOSE_PICKLE_DAMAGED, place, "near byte %llu",
				(unsigned long long)index->end);
	else if (r < 0)
		diagnose_report(d, DIAGNOSE_UNREADABLE, place, "%s", strerror(-r));
	if (r < 0)
		return false;
	if (ids->forth != ids->back || ids->odd_labels)
		diagnose_report(d, DIAGNOSE_PICKLE_MAPS, place, "%llu ids, %llu labels",
				(unsigned long long)index->pairs[PICKLE_ID_TO_LABEL],
				(unsigned long long)index->pairs[PICKLE_LABEL_TO_ID]);
	else if (has_odd_numbers(ids, index))
		diagnose_report(
		    d, DIAGNOSE_PICKLE_DAMAGED, place,
		    "impossible numbers: last label %lld of labels up to %lld, dimension %lld, "
		    "mark %lld",
		    (long long)index->total_elements_added, (long long)ids->last_label,
		    (long long)index->dimension, (long long)index->max_seq_id);
	return true;
}

/* ---- labels: pickle and index ---- */

static int by_label(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->label < y->label ? -1 : x->label > y->label;
}

static int by_hash(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

struct label_counts {
	uint64_t twice, beyond, unknown, lost, not_finite, bad_links;
	uint64_t compared, older;
	char examples[256];
};

static void note_element(struct ids *ids, const struct hnsw_element *e, struct label_counts *n)
{
	struct entry key = {.label = (uint32_t)e->label}, *found;

	if (e->label == 0 || e->label > UINT32_MAX) {
		n->beyond++;
		return;
	}
	if (e->deleted)
		return;
	found = bsearch(&key, ids->entries, ids->count, sizeof(key), by_label);
	if (found && found->in_index)
		n->twice++;
	else if (found)
		found->in_index = true;
	else
		n->unknown++;
}

static bool is_finite(const struct hnsw_element *e, uint64_t dimension)
{
	uint64_t i;
	float f;

	for (i = 0; i < dimension; i++) {
		memcpy(&f, e->vector + i * sizeof(f), sizeof(f));
		if (!isfinite(f))
			return false;
	}
	return true;
}

/* ---- the queue's last rows: they are kept beyond the mark that they have reached ---- */

/*
 * Nothing later speaks of the id. An `add` counts only if the record's row names it: of one that
 * was there before, it is ignored.
 */
static const char last_sql[] =
    "SELECT id, vector FROM embeddings_queue q WHERE topic = ?1 AND seq_id <= ?2 AND seq_id > ?3 "
    "AND operation IN (0, 1, 2) AND encoding = 'FLOAT32' AND length(vector) = 4 * ?4 AND NOT "
    "EXISTS (SELECT 1 FROM embeddings_queue l WHERE l.seq_id > q.seq_id AND l.topic = q.topic AND "
    "l.id = q.id) AND (operation <> 0 OR EXISTS (SELECT 1 FROM embeddings e WHERE e.segment_id = "
    "?6 AND e.embedding_id = q.id AND printf('%016X', q.seq_id) = " CHROMA_NUMBER_OF(
	"e") ")) ORDER BY seq_id DESC LIMIT ?5";

static int add_last(struct ids *ids, sqlite3_stmt *row)
{
	struct last_row *last = &ids->last[ids->last_count];
	const char *id = (const char *)sqlite3_column_text(row, 0);
	const void *vector = sqlite3_column_blob(row, 1);
	size_t size = (size_t)sqlite3_column_bytes(row, 1);

	if (!id || !vector)
		return 0;
	last->hash = hash_id(ids, id, strlen(id));
	snprintf(last->id, sizeof(last->id), "%s", id);
	last->vector = malloc(size);
	if (!last->vector)
		return -ENOMEM;
	memcpy(last->vector, vector, size);
	ids->last_count++;
	return 0;
}

static int by_last_hash(const void *a, const void *b)
{
	const struct last_row *x = a, *y = b;

	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static int by_last_label(const void *a, const void *b)
{
	const struct last_row *x = a, *y = b;

	return x->label < y->label ? -1 : x->label > y->label;
}

static void read_last_rows(struct diagnosis *d, const struct chroma_collection *c, uint64_t mark,
			   uint64_t dimension, struct ids *ids)
{
	sqlite3_stmt *rows = NULL;
	size_t i;
	int r;

	if (!mark || mark >= CHROMA_MARK_POISONED)
		return;
	r = database_prepare(d->db, &rows, last_sql);
	if (r == 0) {
		sqlite3_bind_text(rows, 1, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(rows, 2, (sqlite3_int64)mark);
		sqlite3_bind_int64(rows, 3, (sqlite3_int64)mark - LOOK_BACK);
		sqlite3_bind_int64(rows, 4, (sqlite3_int64)dimension);
		sqlite3_bind_int(rows, 5, LAST_ROWS);
		sqlite3_bind_text(rows, 6, c->metadata_segment, -1, SQLITE_STATIC);
	}
	while (r == 0 && (r = database_step(rows)) == 1)
		r = add_last(ids, rows);
	sqlite3_finalize(rows);
	qsort(ids->last, ids->last_count, sizeof(*ids->last), by_last_hash);
	for (i = 0; i < ids->count && ids->last_count; i++) {
		struct last_row key = {.hash = ids->entries[i].hash};
		struct last_row *found =
		    bsearch(&key, ids->last, ids->last_count, sizeof(key), by_last_hash);

		if (found)
			found->label = ids->entries[i].label;
	}
	qsort(ids->last, ids->last_count, sizeof(*ids->last), by_last_label);
}

/* As it was given, or of unit length as cosine collections keep it. */
static bool is_same_vector(const float *given, const unsigned char *stored, uint64_t dimension)
{
	double dot = 0, gg = 0, ss = 0, apart = 0;
	uint64_t i;
	float f;

	for (i = 0; i < dimension; i++) {
		memcpy(&f, stored + i * sizeof(f), sizeof(f));
		dot += (double)given[i] * (double)f;
		gg += (double)given[i] * (double)given[i];
		ss += (double)f * (double)f;
		apart += ((double)given[i] - (double)f) * ((double)given[i] - (double)f);
	}
	/* Of one that is hardly any length is told badly. */
	if (!isfinite(gg) || !isfinite(ss) || gg < 1e-20 || apart <= 1e-8 * gg)
		return true;
	return fabs(ss - 1) < 1e-3 && dot > 0 && dot * dot >= (1 - 1e-6) * gg * ss;
}

static void compare_last(struct ids *ids, const struct hnsw_element *e, uint64_t dimension,
			 struct label_counts *n)
{
	struct last_row key = {.label = (uint32_t)e->label}, *found;

	if (!ids->last_count || e->deleted || e->label == 0 || e->label > UINT32_MAX)
		return;
	found = bsearch(&key, ids->last, ids->last_count, sizeof(key), by_last_label);
	if (!found)
		return;
	n->compared++;
	if (is_same_vector(found->vector, e->vector, dimension))
		return;
	if (n->older++ < EXAMPLES)
		add_example(n->examples, sizeof(n->examples), found->id, strlen(found->id));
}

static void walk_elements(struct diagnosis *d, const struct diagnose_files *files, struct ids *ids,
			  struct label_counts *n)
{
	struct hnsw_level0 l;
	struct hnsw_element e;
	uint64_t i;

	if (hnsw_level0_open(&l, files->header, files->level0) < 0)
		return;
	qsort(ids->entries, ids->count, sizeof(*ids->entries), by_label);
	for (i = 0; i < hnsw_level0_count(&l) && hnsw_level0_get(&l, i, &e) == 0; i++) {
		note_element(ids, &e, n);
		compare_last(ids, &e, hnsw_dimension(files->header), n);
		if (e.label && e.label <= UINT32_MAX)
			n->bad_links += hnsw_bad_links(files->header, &e);
		if (d->options->full && !e.deleted && !is_finite(&e, hnsw_dimension(files->header)))
			n->not_finite++;
		if (i % 4096 == 4095)
			diagnose_advance(d, 4096 * files->header->stride);
	}
	hnsw_level0_close(&l);
	for (i = 0; i < ids->count; i++)
		n->lost += !ids->entries[i].in_index;
}

/* The labels there are none. */
static void check_end(struct diagnosis *d, struct diagnose_place place,
		      const struct diagnose_files *files, uint64_t labels)
{
	uint64_t end = files->header->count * files->header->stride, zeros;

	if (files->header->count >
	    labels) /* the header is wrong, and the end is not where it says */
		return;
	if (end > files->level0->size)
		end = files->level0->size;
	zeros = diagnose_zeros(files->level0, end);
	if (zeros >= files->header->stride && zeros >= ZEROS_MIN)
		diagnose_report(d, DIAGNOSE_FILE_UNFINISHED, place, "from byte %llu of %llu on",
				(unsigned long long)(end - zeros), (unsigned long long)end);
}

static void check_labels(struct diagnosis *d, struct diagnose_place place,
			 const struct diagnose_files *files, struct ids *ids, uint64_t labels)
{
	struct label_counts n = {0};

	place.file = HNSW_LEVEL0_FILE;
	walk_elements(d, files, ids, &n);
	if (n.twice || n.beyond)
		diagnose_report(d, DIAGNOSE_LABELS_DAMAGED, place, "%llu twice, %llu impossible",
				(unsigned long long)n.twice, (unsigned long long)n.beyond);
	if (n.beyond)
		check_end(d, place, files, labels);
	if (n.bad_links)
		diagnose_report(d, DIAGNOSE_GRAPH, place, "%llu links",
				(unsigned long long)n.bad_links);
	if (n.unknown)
		diagnose_report(d, DIAGNOSE_PERSIST_TORN, place, "%llu elements",
				(unsigned long long)n.unknown);
	if (n.lost)
		diagnose_report(d, DIAGNOSE_LABELS_LOST, place, "%llu of %llu",
				(unsigned long long)n.lost, (unsigned long long)ids->count);
	if (n.older)
		diagnose_report(d, DIAGNOSE_INDEX_OLDER, place, "%llu of %llu compared: %s%s",
				(unsigned long long)n.older, (unsigned long long)n.compared,
				n.examples, n.older > EXAMPLES ? ", …" : "");
	if (n.not_finite)
		diagnose_report(d, DIAGNOSE_VECTOR_VALUES, place, "%llu elements",
				(unsigned long long)n.not_finite);
}

/* ---- records: pickle, queue and database ---- */

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Rows that give a record its vector, or take it away. */
static int read_tail(struct diagnosis *d, const struct chroma_collection *c, uint64_t after,
		     struct ids *ids)
{
	sqlite3_stmt *rows = NULL;
	size_t room = 0;
	uint64_t *more;
	int r = database_prepare(d->db, &rows,
				 "SELECT id FROM embeddings_queue WHERE topic = ? AND seq_id > ? "
				 "AND (vector NOTNULL OR operation = 3)");

	if (r == 0) {
		sqlite3_bind_text(rows, 1, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(rows, 2, (sqlite3_int64)after);
	}
	while (r == 0 && (r = database_step(rows)) == 1) {
		const void *id = sqlite3_column_text(rows, 0);
		int size = sqlite3_column_bytes(rows, 0);

		r = 0;
		if (ids->tail_count == room) {
			room = room ? 2 * room : 1024;
			more = realloc(ids->tail, room * sizeof(*more));
			if (!more) {
				r = -ENOMEM;
				break;
			}
			ids->tail = more;
		}
		ids->tail[ids->tail_count++] = hash_id(ids, id ? id : "", (size_t)size);
	}
	sqlite3_finalize(rows);
	if (ids->tail)
		qsort(ids->tail, ids->tail_count, sizeof(*ids->tail), by_number);
	return r;
}

static bool in_tail(const struct ids *ids, uint64_t hash)
{
	return ids->tail &&
	       bsearch(&hash, ids->tail, ids->tail_count, sizeof(hash), by_number) != NULL;
}

static int compare_records(struct diagnosis *d, const struct chroma_collection *c, struct ids *ids,
			   uint64_t *records_out, uint64_t *bare_out, char *examples, size_t room)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(d->db, &rows,
				 "SELECT embedding_id FROM embeddings WHERE segment_id = ?");

	if (r == 0)
		sqlite3_bind_text(rows, 1, c->metadata_segment, -1, SQLITE_STATIC);
	while (r == 0 && (r = database_step(rows)) == 1) {
		const void *id = sqlite3_column_text(rows, 0);
		size_t size = (size_t)sqlite3_column_bytes(rows, 0);
		struct entry key = {.hash = hash_id(ids, id ? id : "", size)}, *found;

		r = 0;
		(*records_out)++;
		found = ids->count ? bsearch(&key, ids->entries, ids->count, sizeof(key), by_hash)
				   : NULL;
		if (found)
			found->is_record = true;
		else if (!in_tail(ids, key.hash) && (*bare_out)++ < EXAMPLES)
			add_example(examples, room, id ? id : "", size);
	}
	sqlite3_finalize(rows);
	return r;
}

/* Records whose vector goes with a deletion that the metadata has only by half. */
static int find_half_deleted(struct diagnosis *d, const struct chroma_collection *c, uint64_t mark,
			     uint64_t *bare_out, char *examples, size_t room)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(d->db, &rows, CHROMA_HALF_DELETED);

	if (r == 0) {
		sqlite3_bind_text(rows, 1, c->metadata_segment, -1, SQLITE_STATIC);
		sqlite3_bind_text(rows, 3, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(rows, 4, (sqlite3_int64)mark);
		sqlite3_bind_int64(rows, 5, (sqlite3_int64)c->metadata_mark.value);
	}
	while (r == 0 && (r = database_step(rows)) == 1) {
		const void *id = sqlite3_column_text(rows, 0);

		r = 0;
		if ((*bare_out)++ < EXAMPLES)
			add_example(examples, room, id ? id : "",
				    (size_t)sqlite3_column_bytes(rows, 0));
	}
	sqlite3_finalize(rows);
	return r;
}

/* Else rows of the queue are gone, which says the rest. */
static bool queue_reaches_marks(struct diagnosis *d, const struct chroma_collection *c)
{
	int64_t end = 0;

	return database_number(d->db, "SELECT max(seq_id) FROM embeddings_queue", NULL, &end) ==
		   0 &&
	       (uint64_t)end >= c->vector_mark.value && (uint64_t)end >= c->metadata_mark.value;
}

static void check_records(struct diagnosis *d, struct diagnose_place place,
			  const struct chroma_collection *c, uint64_t mark, struct ids *ids)
{
	uint64_t after = mark, records = 0, bare = 0, gone = 0;
	char examples[256] = "";
	size_t i;

	if (c->metadata_mark.value < after)
		after = c->metadata_mark.value;
	if (mark >= CHROMA_MARK_POISONED || after >= CHROMA_MARK_POISONED)
		return; /* said already, and nothing can be told from it */
	if (ids->entries)
		qsort(ids->entries, ids->count, sizeof(*ids->entries), by_hash);
	if (read_tail(d, c, after, ids) < 0 ||
	    compare_records(d, c, ids, &records, &bare, examples, sizeof(examples)) < 0 ||
	    find_half_deleted(d, c, mark, &bare, examples, sizeof(examples)) < 0)
		return; /* the structural check has said why */
	for (i = 0; i < ids->count; i++)
		gone += !ids->entries[i].is_record && !in_tail(ids, ids->entries[i].hash);
	place.file = NULL;
	if (bare)
		diagnose_report(d, DIAGNOSE_RECORDS_BARE, place, "%llu: %s%s",
				(unsigned long long)bare, examples, bare > EXAMPLES ? ", …" : "");
	if (bare && gone && queue_reaches_marks(d, c))
		diagnose_report(d, DIAGNOSE_MOMENTS, place, "%llu records, %llu vectors",
				(unsigned long long)bare, (unsigned long long)gone);
	/* Without a mark nothing of the collection has ever been committed. */
	if (gone)
		diagnose_report(d,
				records == 0 && c->metadata_mark.type != SQLITE_NULL
				    ? DIAGNOSE_RECORDS_GONE
				    : DIAGNOSE_VECTORS_BARE,
				place, "%llu", (unsigned long long)gone);
}

void diagnose_ids(struct diagnosis *d, const struct chroma_collection *c,
		  const struct diagnose_files *files)
{
	struct diagnose_place place = {c->name, c->vector_segment, PICKLE_FILE};
	struct ids ids = {0};
	struct pickle_index index = {0};
	uint64_t mark = c->vector_mark.value;
	bool good = true;
	size_t i;

	if (getrandom(&ids.seed, sizeof(ids.seed), GRND_NONBLOCK) < 0)
		ids.seed = 0; /* then only a made-up directory could fool it */
	if (files->pickle)
		good = read_pickle(d, place, files->pickle, &ids, &index);
	/* Up to 0.5.5 the mark was kept in the pickle alone. */
	if (index.has_max_seq_id && index.max_seq_id > 0 && (uint64_t)index.max_seq_id > mark)
		mark = (uint64_t)index.max_seq_id;
	if (good && c->id[0] && c->vector_mark.type == SQLITE_NULL && !index.has_max_seq_id &&
	    index.pairs[PICKLE_ID_TO_LABEL] &&
	    d->summary->migrations.counts[MIGRATION_METADB] < MIGRATION_METADB_OF_RUST)
		diagnose_report(d, DIAGNOSE_MARK_LOST,
				(struct diagnose_place){c->name, c->vector_segment, NULL}, "%s",
				"");
	if (good && files->level0) {
		read_last_rows(d, c, mark, hnsw_dimension(files->header), &ids);
		check_labels(d, place, files, &ids,
			     index.has_total ? (uint64_t)index.total_elements_added : 0);
	}
	if (good)
		check_records(d, place, c, mark, &ids);
	for (i = 0; i < ids.last_count; i++)
		free(ids.last[i].vector);
	free(ids.entries);
	free(ids.tail);
}
