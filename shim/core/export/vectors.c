/* SPDX-License-Identifier: MIT
 *
 * The vectors of a segment: from its files as far as they can be read, and from the queue.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checksum.h"
#include "core/export/internal.h"
#include "core/segment/pickle.h"
#include "core/sqlite/database.h"

void export_trouble(struct exporter *x, const struct chroma_collection *c, const char *what,
		    int error)
{
	x->summary->troubles++;
	x->options->trouble(x->options->context, c ? c->name : NULL, what, error);
}

static int run(struct exporter *x, const char *sql)
{
	return database_error(sqlite3_exec(x->db, sql, NULL, NULL, NULL));
}

int export_begin_again(struct exporter *x)
{
	return sqlite3_get_autocommit(x->db) ? 0 : run(x, "ROLLBACK; BEGIN");
}

/* ---- the pickle: id -> label ---- */

struct labels {
	sqlite3_stmt *insert;
	enum pickle_map map; /* which is loaded */
	uint64_t sum;	     /* 0 in the end: the two maps say the same */
	int64_t last;
};

static int insert_label(void *context, enum pickle_map map, const char *id, size_t size,
			int64_t label)
{
	struct labels *l = context;
	uint64_t pair = checksum64(id, size, (uint64_t)label);
	int code;

	if ((map != PICKLE_ID_TO_LABEL && map != PICKLE_LABEL_TO_ID) || label < 1)
		return 0;
	l->sum += map == PICKLE_ID_TO_LABEL ? pair : -pair;
	if (map != l->map)
		return 0;
	if (label > l->last)
		l->last = label;
	sqlite3_bind_text(l->insert, 1, id, (int)size, SQLITE_STATIC);
	sqlite3_bind_int64(l->insert, 2, label);
	code = sqlite3_step(l->insert);
	sqlite3_reset(l->insert);
	return database_error(code);
}

/*
 * Ids about which the two maps contradict each other: which is right cannot be told, and the vector
 * may be another record's. They are known, and have no label.
 */
static int drop_contradictions(struct export_vectors *v, struct exporter *x,
			       const struct file_source *pickle)
{
	struct labels l = {.map = PICKLE_LABEL_TO_ID};
	struct pickle_index index = {0};
	int r =
	    run(x, "CREATE TEMP TABLE IF NOT EXISTS inverse(id TEXT, label INTEGER PRIMARY KEY); "
		   "DELETE FROM temp.inverse");

	if (r == 0)
		r = database_prepare(x->db, &l.insert,
				     "INSERT OR REPLACE INTO temp.inverse VALUES (?, ?)");
	if (r == 0 && pickle_read_index(pickle, insert_label, &l, &index) == -ENOMEM)
		r = -ENOMEM;
	sqlite3_finalize(l.insert);
	if (r == 0)
		r = run(x, "UPDATE temp.label SET label = NULL WHERE EXISTS (SELECT 1 FROM "
			   "temp.inverse i WHERE i.label = label.label AND i.id <> label.id)");
	if (r == 0 && sqlite3_changes64(x->db))
		export_trouble(x, v->collection,
			       "ids that " PICKLE_FILE " has contradicting labels of", -EBADMSG);
	return r;
}

/* Returns what reading it did; *mark_out: the mark that Chroma up to 0.5.5 kept in it, 0 if none.
 */
static int load_labels(struct export_vectors *v, struct exporter *x, uint64_t *mark_out)
{
	const struct chroma_collection *c = v->collection;
	struct pickle_index index = {0};
	struct export_file file;
	struct labels l = {.map = PICKLE_ID_TO_LABEL};
	int r = export_file_open(x, c->vector_segment, PICKLE_FILE, &file);
	bool is_open = r == 0;

	if (r == 0)
		r = database_prepare(x->db, &l.insert,
				     "INSERT OR REPLACE INTO temp.label VALUES (?, ?)");
	/* A pickle that is cut short gives what it has. */
	if (r == 0)
		r = pickle_read_index(&file.source, insert_label, &l, &index);
	sqlite3_finalize(l.insert);
	if (is_open && l.sum && index.pairs[PICKLE_LABEL_TO_ID] &&
	    drop_contradictions(v, x, &file.source) < 0)
		r = -ENOMEM;
	export_file_close(&file);
	/* Before the first persist the queue has everything. */
	v->labels_lost = r < 0 && v->collection->vector_mark.value > 0;
	if (index.has_total && index.total_elements_added > l.last)
		l.last = index.total_elements_added;
	if (index.has_total && l.last > 0 && l.last < UINT32_MAX && r == 0)
		v->last_label = (uint64_t)l.last;
	*mark_out = index.has_max_seq_id && index.max_seq_id > 0 ? (uint64_t)index.max_seq_id : 0;
	return r;
}

/* ---- the index: label -> element ---- */

static int load_range(struct export_vectors *v, sqlite3_stmt *insert, uint64_t from,
		      bool is_guessed)
{
	struct hnsw_element e;
	uint64_t i;
	int r = 0;

	for (i = from; r == 0 && i < hnsw_level0_count(&v->level0); i++) {
		r = hnsw_level0_get(&v->level0, i, &e);
		if (r < 0 || e.deleted || e.label == 0 || e.label > INT64_MAX ||
		    (is_guessed && v->last_label &&
		     !export_is_element(&v->level0.header, &e, v->last_label)))
			continue;
		sqlite3_bind_int64(insert, 1, (sqlite3_int64)e.label);
		sqlite3_bind_int64(insert, 2, (sqlite3_int64)i);
		r = database_error(sqlite3_step(insert));
		sqlite3_reset(insert);
	}
	return r;
}

/*
 * Of a header that counts fewer than there are, of an earlier persist or with a wrong number: where
 * ids lack their elements, what looks like some behind the last one is taken as well.
 */
static int load_uncounted(struct export_vectors *v, struct exporter *x, sqlite3_stmt *insert)
{
	static const char lacking[] = "SELECT count(*) FROM temp.label l WHERE l.label NOTNULL AND "
				      "NOT EXISTS (SELECT 1 FROM temp.element e WHERE e.label = "
				      "l.label)";
	struct hnsw_header *h = &v->level0.header;
	uint64_t counted = h->count, whole = v->level0_file.source.size / h->stride;
	int64_t count = 0;
	int r;

	if (!v->last_label || counted >= whole || counted >= v->last_label)
		return 0;
	r = database_number(x->db, lacking, NULL, &count);
	if (r < 0 || count == 0)
		return r;
	h->count = whole < v->last_label ? whole : v->last_label;
	return load_range(v, insert, counted, true);
}

static int load_elements(struct export_vectors *v, struct exporter *x)
{
	sqlite3_stmt *insert = NULL;
	int r =
	    database_prepare(x->db, &insert, "INSERT OR IGNORE INTO temp.element VALUES (?, ?)");

	if (r == 0)
		r = load_range(v, insert, 0, v->is_guessed);
	if (r == 0)
		r = load_uncounted(v, x, insert);
	sqlite3_finalize(insert);
	return r;
}

static int read_header(struct exporter *x, const char *segment, struct hnsw_header *out)
{
	unsigned char raw[HNSW_HEADER_SIZE];
	struct export_file file;
	int r = export_file_open(x, segment, HNSW_HEADER_FILE, &file);

	if (r == 0)
		r = file_source_read(&file.source, raw, sizeof(raw), 0);
	export_file_close(&file);
	if (r == 0)
		r = hnsw_header_parse(out, raw, sizeof(raw));
	return r == 0 && hnsw_header_check(out) & HNSW_FAULT_LAYOUT ? -EBADMSG : r;
}

/* Makes the header again from the elements, where it cannot be read. */
static int guess_header(struct export_vectors *v, struct exporter *x, struct hnsw_header *out)
{
	const struct chroma_collection *c = v->collection;
	struct export_file lengths;
	uint64_t entries = 0;
	int r = export_file_open(x, c->vector_segment, HNSW_LENGTH_FILE, &lengths);

	if (r == 0)
		entries = lengths.source.size / sizeof(float);
	export_file_close(&lengths);
	r = export_guess_header(out, &v->level0_file.source, c->dimension, v->last_label, entries);
	v->is_guessed = r == 0;
	return r;
}

static bool is_lost(int r)
{
	return r == -ENOENT || r == -ENODATA || r == -EBADMSG || r == -EPROTONOSUPPORT;
}

/* The direction alone is better than nothing, but it is said. */
static void report_lengths(struct export_vectors *v, struct exporter *x, int error)
{
	if (!v->lengths_lost)
		export_trouble(x, v->collection,
			       "the lengths of its vectors (" HNSW_LENGTH_FILE ")", error);
	v->lengths_lost = true;
}

static int open_lengths(struct export_vectors *v, struct exporter *x)
{
	int r =
	    export_file_open(x, v->collection->vector_segment, HNSW_LENGTH_FILE, &v->length_file);

	return r < 0 ? r : file_window_open(&v->length, &v->length_file.source, 64u << 10);
}

/* Rather no vector is lost than all, should a release that is not known store them otherwise. */
static bool are_normal(struct export_vectors *v)
{
	uint64_t i, divided = 0, count = hnsw_level0_count(&v->level0);
	uint64_t step = count / 64 + 1, asked = 0;
	struct hnsw_element e;

	for (i = 0; i < count && hnsw_level0_get(&v->level0, i, &e) == 0; i += step, asked++) {
		float length = 1;

		if (v->has_length && hnsw_length_get(&v->length, i, &length) < 0)
			length = 1;
		divided += hnsw_was_divided(&e, hnsw_dimension(&v->level0.header), length);
	}
	return 2 * divided > asked;
}

static int open_index(struct export_vectors *v, struct exporter *x)
{
	const char *segment = v->collection->vector_segment;
	struct hnsw_header header;
	int r = export_file_open(x, segment, HNSW_LEVEL0_FILE, &v->level0_file), found;

	if (r == 0)
		r = read_header(x, segment, &header);
	found = r;
	if (is_lost(r) && v->level0_file.is_open && guess_header(v, x, &header) == 0)
		r = 0;
	if (r == 0)
		r = hnsw_level0_open(&v->level0, &header, &v->level0_file.source);
	if (r < 0)
		return r;
	v->has_index = true;
	if (found < 0)
		export_mended(x, v->collection,
			      "the header of its vector index was made again from %llu elements",
			      (unsigned long long)hnsw_level0_count(&v->level0));
	if (v->collection->space == CHROMA_COSINE) {
		r = open_lengths(v, x);
		v->has_length = r == 0;
		if (r < 0)
			report_lengths(v, x, r);
		v->is_normal = are_normal(v);
	}
	return 0;
}

/* ---- the queue ---- */

/* Only when a record lacks its vector, which is rare. */
static int open_applied(struct export_vectors *v, struct exporter *x)
{
	int r = run(x, "SAVEPOINT applied; CREATE TEMP TABLE IF NOT EXISTS applied(id TEXT PRIMARY "
		       "KEY, seq INTEGER) WITHOUT ROWID; DELETE FROM temp.applied");

	if (r < 0)
		return r;
	r = export_load_applied(v, x);
	if (r < 0)
		export_trouble(x, v->collection, "the queue", r);
	r = run(x, "RELEASE applied");
	return r < 0 ? r
		     : database_prepare(x->db, &v->applied,
					"SELECT seq FROM temp.applied WHERE id = ? AND seq > 0");
}

/* ---- all of it ---- */

static void load_index(struct export_vectors *v, struct exporter *x)
{
	int r = open_index(v, x);

	if (r == 0)
		r = load_elements(v, x);
	if (r < 0)
		export_trouble(x, v->collection, "the vector index", r);
}

/*
 * A pickle of an earlier persist beside newer files: it lacks records that the mark says are in the
 * index, and the index has elements that it does not know. Where table and its index differ
 * there is no telling.
 */
static bool is_pickle_older(struct export_vectors *v, struct exporter *x, uint64_t mark)
{
	static const char sql[] =
	    "SELECT CASE WHEN EXISTS (SELECT 1 FROM temp.element WHERE label NOT IN (SELECT label "
	    "FROM temp.label WHERE label NOTNULL)) THEN CASE WHEN EXISTS (SELECT 1 FROM embeddings "
	    "e NOT INDEXED WHERE e.segment_id = ?1 AND e.seq_id <= ?2 AND NOT EXISTS (SELECT 1 "
	    "FROM temp.label l JOIN temp.element USING (label) WHERE l.id = e.embedding_id)) THEN "
	    "(SELECT count(*) FROM embeddings NOT INDEXED WHERE segment_id = ?1) = (SELECT "
	    "count(*) FROM embeddings WHERE segment_id = ?1) END END";
	sqlite3_stmt *s = NULL;
	bool is_older = false;

	if (!v->has_index || v->labels_lost || !x->has_rows_by_id || !mark || mark > INT64_MAX ||
	    database_prepare(x->db, &s, sql) < 0)
		return false;
	sqlite3_bind_text(s, 1, v->collection->metadata_segment, -1, SQLITE_STATIC);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)mark);
	if (database_step(s) == 1)
		is_older = sqlite3_column_int(s, 0);
	sqlite3_finalize(s);
	return is_older;
}

static void load_segment(struct export_vectors *v, struct exporter *x, uint64_t *mark)
{
	const struct chroma_collection *c = v->collection;
	uint64_t in_pickle;
	int r = export_find_segment(x, c->vector_segment), pickle;

	/* Without a pickle Chroma starts from the beginning of the queue. */
	if (r < 0) {
		v->labels_lost = *mark > 0;
		if (r != -ENOENT || *mark)
			export_trouble(x, c, c->vector_segment, r);
		*mark = 0;
		return;
	}
	pickle = load_labels(v, x, &in_pickle);
	if (pickle != -ENOENT || *mark)
		load_index(v, x);
	if (((v->labels_lost && v->has_index) || is_pickle_older(v, x, *mark)) &&
	    export_pair_labels(v, x) == 1) {
		v->labels_lost = false;
		return;
	}
	if (pickle < 0 && (pickle != -ENOENT || *mark))
		export_trouble(x, c, PICKLE_FILE, pickle);
	if (pickle == -ENOENT)
		*mark = 0;
	else
		*mark = in_pickle > *mark ? in_pickle : *mark;
}

static int open_without_queue(struct export_vectors *v, struct exporter *x,
			      const struct chroma_collection *c, int r)
{
	export_trouble(x, c, "the queue", r);
	export_vectors_close(v);
	r = export_begin_again(x);
	if (r == 0)
		r = export_vectors_open(v, x, c, false);
	v->lacks_queue = true;
	return r;
}

int export_vectors_open(struct export_vectors *v, struct exporter *x,
			const struct chroma_collection *c, bool has_queue)
{
	uint64_t mark = chroma_mark_restore(c->vector_mark.value);
	int r;

	*v = (struct export_vectors){.collection = c};
	r = run(x, "CREATE TEMP TABLE IF NOT EXISTS label(id TEXT PRIMARY KEY, label INTEGER) "
		   "WITHOUT ROWID;"
		   "CREATE TEMP TABLE IF NOT EXISTS element(label INTEGER PRIMARY KEY, at INTEGER);"
		   "CREATE TEMP TABLE IF NOT EXISTS newer(id TEXT PRIMARY KEY, seq INTEGER) "
		   "WITHOUT ROWID;"
		   "DELETE FROM temp.label; DELETE FROM temp.element; DELETE FROM temp.newer;");
	if (r < 0 || !x->options->vectors)
		return r;
	/* One transaction, or each row would be one. The tables are scratch: no journal. */
	r = run(x, "SAVEPOINT load");
	if (r < 0)
		return r;
	load_segment(v, x, &mark);
	v->mark = mark < INT64_MAX ? mark : INT64_MAX;
	if (has_queue) {
		r = export_load_newer(v, x, mark);
		if (r == 0)
			r = database_prepare(x->db, &v->from_queue,
					     "SELECT vector, encoding FROM embeddings_queue WHERE "
					     "seq_id = ?");
		if (r < 0)
			return open_without_queue(v, x, c, r);
	}
	return run(x, "RELEASE load");
}

void export_vectors_close(struct export_vectors *v)
{
	if (v->has_index)
		hnsw_level0_close(&v->level0);
	if (v->has_length)
		file_window_close(&v->length);
	export_file_close(&v->level0_file);
	export_file_close(&v->length_file);
	sqlite3_finalize(v->from_queue);
	sqlite3_finalize(v->applied);
	sqlite3_finalize(v->ignored);
	free(v->buf);
}

static int reserve(struct export_vectors *v, size_t floats)
{
	float *more;

	if (floats <= v->room)
		return 0;
	more = realloc(v->buf, floats * sizeof(*more));
	if (!more)
		return -ENOMEM;
	v->buf = more;
	v->room = floats;
	return 0;
}

/* -EBADMSG: that vector cannot be what was stored. */
static int find_length(struct export_vectors *v, struct exporter *x, uint64_t at,
		       const struct hnsw_element *e, float *length)
{
	uint64_t dimension = hnsw_dimension(&v->level0.header);
	enum hnsw_fit fit;
	int r = v->has_length ? hnsw_length_get(&v->length, at, length) : 0;

	v->lacks_length = v->collection->space == CHROMA_COSINE && (!v->has_length || r < 0);
	if (r < 0)
		report_lengths(v, x, r);
	if (!v->is_normal)
		return 0;
	fit = hnsw_fits_cosine(e, dimension, v->lacks_length ? 1 : *length);
	x->summary->overwritten += fit != HNSW_FITS;
	if (fit == HNSW_LENGTH_LOST) {
		v->lacks_length = true;
		report_lengths(v, x, -EBADMSG);
	}
	if (v->lacks_length)
		*length = 1;
	return fit == HNSW_VECTOR_LOST ? -EBADMSG : 0;
}

int export_vector_of_index(struct export_vectors *v, struct exporter *x, uint64_t at,
			   const float **out, uint64_t *dimension_out)
{
	struct hnsw_element e;
	float length = 1;
	uint64_t dimension;
	int r = v->has_index ? hnsw_level0_get(&v->level0, at, &e) : -ENODATA;

	if (r < 0)
		return r;
	dimension = hnsw_dimension(&v->level0.header);
	r = reserve(v, (size_t)dimension);
	if (r < 0)
		return r;
	r = find_length(v, x, at, &e, &length);
	if (r < 0)
		return r;
	hnsw_vector_copy(v->buf, &e, dimension, length);
	*out = v->buf;
	*dimension_out = dimension;
	return 0;
}

int export_vector_of_queue(struct export_vectors *v, int64_t row, const float **out,
			   uint64_t *dimension_out)
{
	const char *encoding;
	const void *data;
	size_t size, i;
	int r = -ENODATA;

	sqlite3_reset(v->from_queue);
	sqlite3_bind_int64(v->from_queue, 1, row);
	if (database_step(v->from_queue) != 1)
		return -ENODATA;
	data = sqlite3_column_blob(v->from_queue, 0);
	size = (size_t)sqlite3_column_bytes(v->from_queue, 0);
	encoding = (const char *)sqlite3_column_text(v->from_queue, 1);
	if (data && size && size % sizeof(float) == 0)
		r = reserve(v, size / sizeof(float));
	if (r == 0) {
		memcpy(v->buf, data, size);
		*dimension_out = size / sizeof(float);
		*out = v->buf;
	}
	if (r == 0 && encoding && strcmp(encoding, "INT32") == 0) {
		for (i = 0; i < size / sizeof(float); i++) {
			int32_t number;

			memcpy(&number, &v->buf[i], sizeof(number));
			v->buf[i] = (float)number;
		}
	}
	sqlite3_reset(v->from_queue);
	return r;
}

int export_vector_of_applied(struct export_vectors *v, struct exporter *x, const char *id,
			     size_t size, const float **out, uint64_t *dimension_out)
{
	int64_t row = 0;
	int r = !v->from_queue ? -ENODATA : v->applied ? 0 : open_applied(v, x);

	if (r < 0)
		return r;
	sqlite3_bind_text(v->applied, 1, id, (int)size, SQLITE_STATIC);
	if (database_step(v->applied) == 1)
		row = sqlite3_column_int64(v->applied, 0);
	sqlite3_reset(v->applied);
	return row ? export_vector_of_queue(v, row, out, dimension_out) : -ENODATA;
}
