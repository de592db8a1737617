/* SPDX-License-Identifier: MIT
 *
 * Making the files of a broken vector index readable again, on the copy: a header from what the
 * elements look like, and a pickle from the order in which records and labels were made.
 *
 * Chroma >= 1.0 hands out labels in the order of its log, in which rows of `embeddings` are made as
 * well: where there are as many live labels as records, the n-th belongs to the n-th. That is
 * believed only if something confirms it (pairs that can still be read, vectors in the queue) and
 * nothing contradicts. Python's releases shuffle within a batch: there nothing is guessed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/hnsw.h"
#include "core/pickle.h"
#include "core/recover_internal.h"

#define M_TRIED 256
#define ELEMENTS_TRIED 64

/* ---- the header ---- */

static void lay_out(struct hnsw_header *h, uint64_t m, int64_t dimension, uint64_t size)
{
	*h = (struct hnsw_header){.version = HNSW_VERSION,
				  .m_upper = m,
				  .m_level0 = 2 * m,
				  .m = m,
				  .mult = m > 1 ? 1 / log((double)m) : 1,
				  .ef_construction = 100};
	h->vector_offset = 4 + 4 * h->m_level0;
	h->label_offset = h->vector_offset + (uint64_t)dimension * sizeof(float);
	h->stride = h->label_offset + sizeof(uint64_t);
	h->capacity = h->count = size / h->stride;
}

static bool is_plausible(const struct hnsw_header *h, const struct hnsw_element *e)
{
	uint32_t i;

	if (e->label == 0 || e->label > UINT32_MAX || e->link_count > h->m_level0)
		return false;
	for (i = 0; i < e->link_count; i++)
		if (get_le32(e->links + 4 * (size_t)i) >= h->count)
			return false;
	return true;
}

/* Elements from the start that look like such; at most `most`. */
static uint64_t count_plausible(const struct hnsw_header *h, const struct file_source *level0,
				uint64_t most)
{
	struct hnsw_level0 l;
	struct hnsw_element e;
	uint64_t i = 0;

	if (hnsw_level0_open(&l, h, level0) < 0)
		return 0;
	while (i < most && hnsw_level0_get(&l, i, &e) == 0 && is_plausible(h, &e))
		i++;
	hnsw_level0_close(&l);
	return i;
}

static bool find_layout(struct hnsw_header *out, const struct chroma_collection *c,
			const struct file_source *level0)
{
	uint64_t m, found = 0, best = 0;

	for (m = 1; m <= M_TRIED; m++) {
		struct hnsw_header h;
		uint64_t n;

		lay_out(&h, m, c->dimension, level0->size);
		n = count_plausible(&h, level0, ELEMENTS_TRIED);
		if (n > found || (n == found && m == 16)) {
			found = n;
			best = m;
		}
	}
	if (found == 0)
		return false;
	lay_out(out, best, c->dimension, level0->size);
	out->count = count_plausible(out, level0, out->count);
	out->entry_point = 0; /* the links are not used again */
	return true;
}

static int replace(int dirfd, const char *name, const void *data, size_t size)
{
	struct file_publish file;
	int error = file_publish_begin(&file, dirfd, name, 0600);

	if (error < 0)
		return error;
	error = file_write_all(file.fd, data, size);
	if (error == 0)
		return file_publish_commit(&file);
	file_publish_abort(&file);
	return error;
}

/* 1: *h is the header now, 0: there is no telling, or -errno. */
static int heal_header(struct recovery *r, const struct chroma_collection *c, int dirfd,
		       const struct file_source *level0, struct hnsw_header *h)
{
	unsigned char raw[HNSW_HEADER_SIZE];
	int error;

	if (hnsw_header_read(dirfd, h) == 0)
		return 1;
	if (c->dimension <= 0 || c->dimension > (int64_t)HNSW_DIMENSION_MAX ||
	    !find_layout(h, c, level0))
		return 0;
	hnsw_header_format(raw, h);
	error = replace(dirfd, HNSW_HEADER_FILE, raw, sizeof(raw));
	if (error == 0)
		recover_say(r, RECOVER_HNSW, c->name,
			    "vector index %.36s: its header was made again from its %" PRIu64
			    " elements",
			    c->vector_segment, h->count);
	return error < 0 ? error : 1;
}

/* ---- which id has which label ---- */

static int put_pair(void *context, enum pickle_map map, const char *id, size_t size, int64_t label)
{
	sqlite3_stmt *put = context;
	int error;

	if (map != PICKLE_ID_TO_LABEL)
		return 0;
	sqlite3_bind_text(put, 1, id, (int)size, SQLITE_STATIC);
	sqlite3_bind_int64(put, 2, label);
	error = database_step(put);
	sqlite3_reset(put);
	return error;
}

/* What the pickle still tells. *lost_out: not all. */
static int read_pairs(struct recovery *r, int dirfd, bool *lost_out)
{
	struct pickle_index index = {0};
	struct file_source source;
	sqlite3_stmt *put = NULL;
	int fd = file_open_at(dirfd, PICKLE_FILE), error;

	*lost_out = fd == -ENOENT;
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	error = database_prepare(r->db, &put, "INSERT OR REPLACE INTO temp.known VALUES (?, ?)");
	if (error == 0)
		error = file_source_open_data(&source, fd);
	if (error == 0)
		error = pickle_read_index(&source, put_pair, put, &index);
	/* An opcode that nobody uses here is damage as well, unless the whole is of a new kind. */
	*lost_out = error == -ENODATA || error == -EBADMSG ||
		    (error == -EPROTONOSUPPORT && index.protocol <= 5);
	sqlite3_finalize(put);
	close(fd);
	return *lost_out ? 0 : error;
}

static int read_labels(struct recovery *r, const struct hnsw_header *h,
		       const struct file_source *level0)
{
	struct hnsw_level0 l;
	struct hnsw_element e;
	sqlite3_stmt *put = NULL;
	uint64_t i;
	int error = hnsw_level0_open(&l, h, level0);

	if (error < 0)
		return error;
	error = database_prepare(r->db, &put, "INSERT OR IGNORE INTO temp.live VALUES (?, ?)");
	for (i = 0; error == 0 && hnsw_level0_get(&l, i, &e) == 0; i++) {
		if (e.deleted || e.label == 0 || e.label > UINT32_MAX)
			continue;
		sqlite3_bind_int64(put, 1, (sqlite3_int64)e.label);
		sqlite3_bind_blob(put, 2, e.vector, (int)(4 * hnsw_dimension(h)), SQLITE_STATIC);
		error = database_step(put);
		sqlite3_reset(put);
	}
	sqlite3_finalize(put);
	hnsw_level0_close(&l);
	return error;
}

/*
 * Records that were there at the VECTOR mark, as far as that is sure; one changed since has a later
 * number. If it is as many as there are labels, it is all of them.
 */
#define WERE_THERE                                                                             \
	"(SELECT e.embedding_id AS embedding_id, row_number() OVER (ORDER BY e.id) AS n FROM " \
	"embeddings e WHERE e.segment_id = ?1 AND (e.seq_id <= ?2 OR e.id < (SELECT max(id) "  \
	"FROM embeddings WHERE segment_id = ?1 AND seq_id <= ?2) OR (SELECT q.operation FROM " \
	"embeddings_queue q WHERE q.topic = ?3 AND q.id = e.embedding_id AND q.seq_id > ?2 "   \
	"ORDER BY q.seq_id LIMIT 1) = 1))"

static int ask_of_mark(struct recovery *r, const struct chroma_collection *c, const char *sql,
		       int64_t *out)
{
	sqlite3_stmt *s = NULL;
	int error = database_prepare(r->db, &s, sql);

	if (error == 0) {
		sqlite3_bind_text(s, 1, c->metadata_segment, -1, SQLITE_STATIC);
		sqlite3_bind_int64(s, 2, (sqlite3_int64)c->vector_mark.value);
		sqlite3_bind_text(s, 3, c->topic, -1, SQLITE_STATIC);
		error = database_step(s);
	}
	if (error == 1 && out)
		*out = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return error < 0 ? error : 0;
}

/* The n-th live label to the n-th record. *count_out is 0 if they are not as many. */
static int pair_in_order(struct recovery *r, const struct chroma_collection *c, int64_t *count_out)
{
	int64_t live, records = 0;
	int error = database_number(r->db, "SELECT count(*) FROM temp.live", NULL, &live);

	if (error == 0)
		error = ask_of_mark(r, c, "SELECT count(*) FROM " WERE_THERE, &records);
	*count_out = error == 0 && records == live ? live : 0;
	if (*count_out == 0)
		return error;
	return ask_of_mark(
	    r, c,
	    "INSERT INTO temp.pair SELECT e.embedding_id, l.label, l.vector FROM " WERE_THERE
	    " e JOIN (SELECT label, vector, row_number() OVER (ORDER BY label) AS n FROM "
	    "temp.live) l ON l.n = e.n",
	    NULL);
}

static bool is_same_direction(const void *a, const void *b, size_t size)
{
	double ab = 0, aa = 0, bb = 0;
	size_t i;

	for (i = 0; i < size / sizeof(float); i++) {
		float x, y;

		memcpy(&x, (const char *)a + 4 * i, 4);
		memcpy(&y, (const char *)b + 4 * i, 4);
		ab += (double)x * (double)y;
		aa += (double)x * (double)x;
		bb += (double)y * (double)y;
	}
	return ab * ab >= 0.999999 * aa * bb && ab >= 0;
}

/* Vectors that the queue still has, the newest up to the mark. Returns confirmations, -EBADMSG if
 * one contradicts, or another -errno. */
static int confirm_by_queue(struct recovery *r, const struct chroma_collection *c)
{
	static const char sql[] =
	    "SELECT q.vector, p.vector, max(q.seq_id) FROM embeddings_queue q JOIN temp.pair p ON "
	    "p.id = q.id WHERE q.topic = ?1 AND q.seq_id <= ?2 AND q.vector IS NOT NULL AND "
	    "q.operation IN (0, 1, 2) AND q.encoding = 'FLOAT32' GROUP BY q.id";
	sqlite3_stmt *rows = NULL;
	int confirmed = 0, error = database_prepare(r->db, &rows, sql);

	if (error == 0) {
		sqlite3_bind_text(rows, 1, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(rows, 2, (sqlite3_int64)c->vector_mark.value);
	}
	while (error == 0 && (error = database_step(rows)) == 1) {
		size_t size = (size_t)sqlite3_column_bytes(rows, 0);

		error = size == (size_t)sqlite3_column_bytes(rows, 1) &&
				is_same_direction(sqlite3_column_blob(rows, 0),
						  sqlite3_column_blob(rows, 1), size)
			    ? 0
			    : -EBADMSG;
		confirmed++;
	}
	sqlite3_finalize(rows);
	return error < 0 ? error : confirmed;
}

/* ---- the pickle ---- */

/* As little of one as the reader of the vectors needs; it goes with the directory. */
static int write_pickle(struct recovery *r, int dirfd)
{
	static const char start[] = "\x80\x03}(X\x0b\0\0\0id_to_label}(";
	static const char end[] = "uX\x14\0\0\0total_elements_addedJ\xff\xff\xff\x7fu.";
	sqlite3_stmt *rows = NULL;
	struct file_publish file;
	FILE *out = NULL;
	int error = file_publish_begin(&file, dirfd, PICKLE_FILE, 0600);

	if (error < 0)
		return error;
	out = fdopen(dup(file.fd), "w");
	error = out ? database_prepare(r->db, &rows, "SELECT id, label FROM temp.pair") : -ENOMEM;
	if (out)
		fwrite(start, 1, sizeof(start) - 1, out);
	while (error == 0 && (error = database_step(rows)) == 1) {
		uint32_t size = (uint32_t)sqlite3_column_bytes(rows, 0);
		int32_t label = (int32_t)sqlite3_column_int64(rows, 1);

		fputc('X', out);
		fwrite(&size, 1, 4, out);
		fwrite(sqlite3_column_text(rows, 0), 1, size, out);
		fputc('J', out);
		fwrite(&label, 1, 4, out);
		error = 0;
	}
	sqlite3_finalize(rows);
	if (out)
		fwrite(end, 1, sizeof(end) - 1, out);
	if (out && fclose(out) != 0 && error == 0)
		error = -errno;
	if (error == 0)
		return file_publish_commit(&file);
	file_publish_abort(&file);
	return error;
}

static int heal_pickle(struct recovery *r, const struct chroma_collection *c, int dirfd,
		       const struct hnsw_header *h, const struct file_source *level0)
{
	int64_t known = 0, wrong = 0, pairs = 0;
	bool is_lost = false;
	int confirmed, error;

	error = recover_sql(
	    r, "CREATE TEMP TABLE IF NOT EXISTS known(id TEXT PRIMARY KEY, label INTEGER);"
	       "CREATE TEMP TABLE IF NOT EXISTS live(label INTEGER PRIMARY KEY, vector BLOB);"
	       "CREATE TEMP TABLE IF NOT EXISTS pair(id TEXT PRIMARY KEY, label INTEGER, "
	       "vector BLOB); DELETE FROM temp.known; DELETE FROM temp.live; DELETE FROM temp.pair;"
	       "SAVEPOINT pairs");
	if (error == 0)
		error = read_pairs(r, dirfd, &is_lost);
	if (error == 0 && is_lost && r->is_rust && c->vector_mark.type != SQLITE_NULL)
		error = read_labels(r, h, level0);
	if (error == 0 && is_lost)
		error = pair_in_order(r, c, &pairs);
	if (error == 0)
		error = recover_sql(r, "RELEASE pairs");
	if (error < 0 || pairs == 0)
		return error;
	error = database_number(r->db, "SELECT count(*) FROM temp.known", NULL, &known);
	if (error == 0)
		error = database_number(r->db,
					"SELECT count(*) FROM temp.known k LEFT JOIN temp.pair p "
					"ON p.id = k.id WHERE p.label IS NOT k.label",
					NULL, &wrong);
	confirmed = error < 0 ? error : confirm_by_queue(r, c);
	if (confirmed == -EBADMSG || wrong || (confirmed >= 0 && confirmed + known == 0))
		return 0;
	error = confirmed < 0 ? confirmed : write_pickle(r, dirfd);
	if (error == 0)
		recover_say(
		    r, RECOVER_HNSW, c->name,
		    "vector index %.36s: ids and vectors were matched again by the order in "
		    "which they were made (%" PRId64 " records; confirmed by %" PRId64
		    " pairs of the old pickle and %d vectors in the queue)",
		    c->vector_segment, pairs, known, confirmed);
	return error;
}

int recover_segment(struct recovery *r, const struct chroma_collection *c)
{
	struct file_source level0;
	struct hnsw_header header;
	int dirfd = file_open_directory_at(r->dirfd, c->vector_segment), fd, error;

	if (dirfd < 0)
		return dirfd == -ENOENT ? 0 : dirfd;
	fd = file_open_at(dirfd, HNSW_LEVEL0_FILE);
	error = fd < 0 ? fd : file_source_open_data(&level0, fd);
	if (error == 0)
		error = heal_header(r, c, dirfd, &level0, &header);
	if (error == 1)
		error = heal_pickle(r, c, dirfd, &header, &level0);
	if (fd >= 0)
		close(fd);
	close(dirfd);
	return error == -ENOENT ? 0 : error;
}
