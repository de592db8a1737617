/* SPDX-License-Identifier: MIT
 *
 * The directory that tests of check, export and recover damage.
 */
#include "chroma_fixture.h"

#include <math.h>

#include "core/base/names.h"
#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"
#include "core/segment/pickle.h"

#define M 16
#define STRIDE (4 + 4 * 2 * M + 4 * CHROMA_DIMENSION + 8)

static const char rows[] =
    "INSERT INTO collections(id, name, dimension, database_id, config_json_str) VALUES("
    "'" CHROMA_COLLECTION "', 'docs', 4, '00000000-0000-0000-0000-000000000000', '{}');"
    "INSERT INTO collection_metadata(collection_id, key, str_value) VALUES"
    "('" CHROMA_COLLECTION "', 'purpose', 'a test');"
    "INSERT INTO segments(id, type, scope, collection) VALUES"
    "('" CHROMA_METADATA "', 'urn:chroma:segment/metadata/sqlite', 'METADATA', "
    "'" CHROMA_COLLECTION "'),"
    "('" CHROMA_VECTOR "', 'urn:chroma:segment/vector/hnsw-local-persisted', 'VECTOR', "
    "'" CHROMA_COLLECTION "');"
    "CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
    "i <= 60) SELECT i FROM n WHERE i <> 5;"
    "INSERT INTO embeddings(id, segment_id, embedding_id, seq_id) SELECT i, "
    "'" CHROMA_METADATA "', 'r' || i, i FROM n;"
    "INSERT INTO embedding_metadata(id, key, string_value) SELECT i, 'chroma:document', "
    "'text of r' || i FROM n;"
    "INSERT INTO embedding_metadata(id, key, int_value) SELECT i, 'n', i FROM n;"
    "INSERT INTO embedding_metadata(id, key, float_value) SELECT i, 'half', i / 2.0 FROM n;"
    "INSERT INTO embedding_metadata(id, key, bool_value) SELECT i, 'odd', i % 2 FROM n;"
    "INSERT INTO embedding_fulltext_search(rowid, string_value) SELECT id, string_value FROM "
    "embedding_metadata WHERE string_value IS NOT NULL;"
    "INSERT INTO max_seq_id VALUES('" CHROMA_METADATA "', 61), ('" CHROMA_VECTOR "', 51)";

static void add_string(struct bytes *b, const char *s)
{
	bytes_text(b, "X");
	bytes_le(b, strlen(s), 4);
	bytes_text(b, s);
}

static void add_pair(struct bytes *b, unsigned label, int is_inverse)
{
	char id[16];

	snprintf(id, sizeof(id), "r%u", label);
	if (!is_inverse)
		add_string(b, id);
	bytes_text(b, "J");
	bytes_le(b, label, 4);
	if (is_inverse)
		add_string(b, id);
}

void chroma_make_pickle(struct bytes *b, unsigned persisted)
{
	unsigned i, inverse;

	bytes_add(b, "\x80\x03}(", 4);
	add_string(b, "dimensionality");
	bytes_text(b, "J");
	bytes_le(b, CHROMA_DIMENSION, 4);
	add_string(b, "total_elements_added");
	bytes_text(b, "J");
	bytes_le(b, persisted, 4);
	add_string(b, "max_seq_id");
	bytes_text(b, "N");
	for (inverse = 0; inverse < 2; inverse++) {
		add_string(b, inverse ? "label_to_id" : "id_to_label");
		bytes_text(b, "}(");
		for (i = 1; i <= persisted; i++)
			if (i != CHROMA_DELETED)
				add_pair(b, i, inverse != 0);
		bytes_text(b, "u");
	}
	add_string(b, "id_to_seq_id");
	bytes_text(b, "}u.");
}

static void make_elements(struct bytes *level0, struct bytes *lengths, struct bytes *links)
{
	float vector[CHROMA_DIMENSION] = {0, 1, 2, 3}, length = 0;
	unsigned i, j;

	for (i = 0; i < CHROMA_PERSISTED; i++) {
		vector[0] = (float)(i + 1);
		bytes_le(level0, 2, 2);
		bytes_le(level0, i + 1 == CHROMA_DELETED, 1);
		bytes_le(level0, 0, 1);
		bytes_le(level0, (i + 1) % CHROMA_PERSISTED, 4);
		bytes_le(level0, (i + CHROMA_PERSISTED - 1) % CHROMA_PERSISTED, 4);
		for (j = 2; j < 2 * M; j++)
			bytes_le(level0, 0, 4);
		bytes_add(level0, vector, sizeof(vector));
		bytes_le(level0, i + 1, 8);
		bytes_add(lengths, &length, sizeof(length));
		bytes_le(links, 0, 4);
	}
}

static void put_bytes(int fd, const char *name, struct bytes *b)
{
	scratch_put(fd, name, b->data, b->size);
	bytes_free(b);
}

static void make_segment(int datafd)
{
	struct hnsw_header h = {
	    .version = 1,
	    .capacity = 100,
	    .count = CHROMA_PERSISTED,
	    .stride = STRIDE,
	    .label_offset = STRIDE - 8,
	    .vector_offset = 4 + 4 * 2 * M,
	    .m_upper = M,
	    .m_level0 = 2 * M,
	    .m = M,
	    .mult = 1 / log(M),
	    .ef_construction = 100,
	};
	struct bytes level0 = {0}, lengths = {0}, links = {0}, pickle = {0};
	int fd = tree_make_directory(datafd, CHROMA_VECTOR);
	unsigned char header[HNSW_HEADER_SIZE];

	hnsw_header_format(header, &h);
	make_elements(&level0, &lengths, &links);
	chroma_make_pickle(&pickle, CHROMA_PERSISTED);
	scratch_put(fd, HNSW_HEADER_FILE, header, sizeof(header));
	put_bytes(fd, HNSW_LEVEL0_FILE, &level0);
	put_bytes(fd, HNSW_LENGTH_FILE, &lengths);
	put_bytes(fd, HNSW_LINKS_FILE, &links);
	put_bytes(fd, PICKLE_FILE, &pickle);
	close(fd);
}

/* The rows that the index does not have yet. */
static void make_queue(sqlite3 *db)
{
	float vector[CHROMA_DIMENSION] = {0, 1, 2, 3};
	char id[16], metadata[128];
	sqlite3_stmt *s;
	unsigned i;

	if (sqlite3_prepare_v2(db,
			       "INSERT INTO embeddings_queue(seq_id, operation, topic, id, vector, "
			       "encoding, metadata) VALUES(?1, 0, '" CHROMA_TOPIC
			       "', ?2, ?3, 'FLOAT32', ?4)",
			       -1, &s, NULL) != SQLITE_OK)
		abort();
	for (i = CHROMA_PERSISTED + 1; i <= CHROMA_RECORDS + 1; i++) {
		vector[0] = (float)i;
		snprintf(id, sizeof(id), "r%u", i);
		snprintf(metadata, sizeof(metadata),
			 "{\"chroma:document\":\"text of r%u\",\"n\":%u,\"half\":%u.%u,\"odd\":%s}",
			 i, i, i / 2, i % 2 ? 5 : 0, i % 2 ? "true" : "false");
		sqlite3_bind_int(s, 1, (int)i);
		sqlite3_bind_text(s, 2, id, -1, SQLITE_TRANSIENT);
		sqlite3_bind_blob(s, 3, vector, sizeof(vector), SQLITE_TRANSIENT);
		sqlite3_bind_text(s, 4, metadata, -1, SQLITE_TRANSIENT);
		if (sqlite3_step(s) != SQLITE_DONE || sqlite3_reset(s) != SQLITE_OK)
			abort();
	}
	sqlite3_finalize(s);
}

static sqlite3 *open_database(struct chroma_fixture *f, int flags)
{
	char path[128];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE, f->data);
	if (sqlite3_open_v2(path, &db, flags, NULL) != SQLITE_OK) {
		sqlite3_close(db);
		return NULL;
	}
	return db;
}

static void make_data(struct chroma_fixture *f)
{
	const struct migration_era *eras;
	unsigned count;
	sqlite3 *db;

	f->datafd = tree_make_directory(f->dir.fd, "data");
	eras = migrations_eras(&count);
	db = open_database(f, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
	if (!db || sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL) ||
	    migrations_make(db, &eras[count - 1]) || sqlite3_exec(db, rows, NULL, NULL, NULL))
		abort();
	make_queue(db);
	if (sqlite3_close(db) != SQLITE_OK)
		abort();
	make_segment(f->datafd);
}

void chroma_make(struct chroma_fixture *f)
{
	scratch_make(&f->dir);
	f->storefd = tree_make_directory(f->dir.fd, "store");
	snprintf(f->data, sizeof(f->data), "%s/data", f->dir.path);
	make_data(f);
}

void chroma_remove(struct chroma_fixture *f)
{
	close(f->datafd);
	close(f->storefd);
	scratch_remove(&f->dir);
}

int chroma_set_up(void **state)
{
	struct chroma_fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	chroma_make(f);
	*state = f;
	return 0;
}

int chroma_tear_down(void **state)
{
	struct chroma_fixture *f = *state;

	chroma_remove(f);
	free(f);
	return 0;
}

void chroma_make_again(struct chroma_fixture *f)
{
	close(f->datafd);
	if (tree_remove(f->dir.fd, "data") < 0)
		abort();
	make_data(f);
}

void chroma_run_sql(struct chroma_fixture *f, const char *sql)
{
	sqlite3 *db = open_database(f, SQLITE_OPEN_READWRITE);
	char *why = NULL;

	if (!db || sqlite3_exec(db, sql, NULL, NULL, &why) || sqlite3_close(db)) {
		fprintf(stderr, "%s: %s\n", sql, why ? why : "cannot be opened");
		abort();
	}
}

int64_t chroma_ask(struct chroma_fixture *f, const char *sql)
{
	sqlite3 *db = open_database(f, SQLITE_OPEN_READONLY);
	sqlite3_stmt *s = NULL;
	int64_t found = -1;

	if (db && sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK &&
	    sqlite3_step(s) == SQLITE_ROW)
		found = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	return found;
}

void chroma_write(struct chroma_fixture *f, const char *path, off_t at, const void *data, size_t n)
{
	int fd = openat(f->datafd, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || pwrite(fd, data, n, at) != (ssize_t)n)
		abort();
	close(fd);
}

void chroma_cut(struct chroma_fixture *f, const char *path, off_t size)
{
	int fd = openat(f->datafd, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size) < 0)
		abort();
	close(fd);
}

off_t chroma_size(struct chroma_fixture *f, const char *path)
{
	struct stat st;

	return fstatat(f->datafd, path, &st, 0) < 0 ? -1 : st.st_size;
}

void chroma_unlink(struct chroma_fixture *f, const char *path)
{
	if (unlinkat(f->datafd, path, 0) < 0 && tree_remove(f->datafd, path) < 0)
		abort();
}
