/* SPDX-License-Identifier: MIT
 *
 * The damages, and the table of what becomes of each.
 */
#include "damages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include "core/base/names.h"
#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"
#include "core/segment/pickle.h"

#define IN_SEGMENT(name) CHROMA_VECTOR "/" name
#define STRIDE (4 + 4 * 32 + 4 * CHROMA_DIMENSION + 8)

/* ---- damages ---- */

static void none(struct chroma_fixture *f)
{
	(void)f;
}

static void cut_to_half(struct chroma_fixture *f, const char *path)
{
	chroma_cut(f, path, chroma_size(f, path) / 2);
}

static void pickle_cut(struct chroma_fixture *f)
{
	cut_to_half(f, IN_SEGMENT(PICKLE_FILE));
}

static void pickle_empty(struct chroma_fixture *f)
{
	chroma_cut(f, IN_SEGMENT(PICKLE_FILE), 0);
}

static void pickle_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, IN_SEGMENT(PICKLE_FILE));
}

static void pickle_garbage(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(PICKLE_FILE), 40, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
}

/* The last id of the first map gets another label than the inverse has. */
static void pickle_maps(struct chroma_fixture *f)
{
	size_t size, i;
	char *data = scratch_get(f->datafd, IN_SEGMENT(PICKLE_FILE), &size);

	assert_non_null(data);
	for (i = 0; i + 8 < size && memcmp(data + i, "r51J\x33", 5) != 0; i++)
		;
	chroma_write(f, IN_SEGMENT(PICKLE_FILE), (off_t)i + 4, "\x31", 1);
	free(data);
}

static void header_zeroed(struct chroma_fixture *f)
{
	static const char zeros[HNSW_HEADER_SIZE];

	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 0, zeros, sizeof(zeros));
}

static void header_cut(struct chroma_fixture *f)
{
	chroma_cut(f, IN_SEGMENT(HNSW_HEADER_FILE), 50);
}

static void header_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, IN_SEGMENT(HNSW_HEADER_FILE));
}

static void header_and_pickle_gone(struct chroma_fixture *f)
{
	header_gone(f);
	pickle_gone(f);
}

static void level0_cut(struct chroma_fixture *f)
{
	chroma_cut(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 20 * STRIDE);
}

static void level0_zeros(struct chroma_fixture *f)
{
	static const char path[] = IN_SEGMENT(HNSW_LEVEL0_FILE);
	off_t size = chroma_size(f, path);

	chroma_cut(f, path, size / 5);
	chroma_cut(f, path, size);
}

static void level0_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, IN_SEGMENT(HNSW_LEVEL0_FILE));
}

static void level0_label_twice(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 10 * STRIDE + STRIDE - 8, "\x01", 1);
}

static void level0_garbage(struct chroma_fixture *f)
{
	char garbage[3 * STRIDE];

	memset(garbage, 0x5a, sizeof(garbage));
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 10 * STRIDE, garbage, sizeof(garbage));
}

/* Twenty elements are taken out of the ring, in both directions. */
static void level0_unreachable(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 9 * STRIDE + 4, "\x1e", 1);
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 30 * STRIDE + 8, "\x09", 1);
}

static void level0_infinite(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 10 * STRIDE + 4 + 128 + 4, "\0\0\x80\x7f", 4);
}

static void length_cut(struct chroma_fixture *f)
{
	cut_to_half(f, IN_SEGMENT(HNSW_LENGTH_FILE));
}

static void links_cut(struct chroma_fixture *f)
{
	cut_to_half(f, IN_SEGMENT(HNSW_LINKS_FILE));
}

static void links_garbage(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LINKS_FILE), 8, "\xef\xbe\xad\xde", 4);
}

/* The entry point gets a second level, on which it has a neighbour that is none. */
static void links_neighbour(struct chroma_fixture *f)
{
	uint32_t upper[1 + 17 + CHROMA_PERSISTED - 1] = {68, 1, 40000};

	chroma_write(f, IN_SEGMENT(HNSW_LINKS_FILE), 0, upper, sizeof(upper));
	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 52, "\x01", 1);
}

static void links_runaway(struct chroma_fixture *f)
{
	chroma_cut(f, IN_SEGMENT(HNSW_LINKS_FILE), 1 << 30);
}

void damage_segment_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, CHROMA_VECTOR);
}

static void segment_renamed(struct chroma_fixture *f)
{
	assert_int_equal(renameat(f->datafd, CHROMA_VECTOR, f->datafd, CHROMA_VECTOR ".bak"), 0);
}

static void segment_nameless(struct chroma_fixture *f)
{
	assert_int_equal(renameat(f->datafd, CHROMA_VECTOR, f->datafd, "old_index"), 0);
}

static void segment_below(struct chroma_fixture *f)
{
	int fd = tree_make_directory(f->datafd, "backup");

	assert_int_equal(renameat(f->datafd, CHROMA_VECTOR, fd, CHROMA_VECTOR), 0);
	close(fd);
}

/* What a deleted collection with the same ids may have left is not taken. */
static void segment_of_another(struct chroma_fixture *f)
{
	assert_int_equal(
	    renameat(f->datafd, CHROMA_VECTOR, f->datafd, "0a1b2c3d-0000-4000-8000-0000000000ff"),
	    0);
}

static void files_renamed(struct chroma_fixture *f)
{
	static const char *const names[][2] = {
	    {"header.bin", "HEADER.BIN"},
	    {"data_level0.bin", "data_level0 (1).bin"},
	    {"index_metadata.pickle", "index_metadata.pickle.part"}};
	int fd = file_open_directory_at(f->datafd, CHROMA_VECTOR);
	unsigned i;

	for (i = 0; i < 3; i++)
		assert_int_equal(renameat(fd, names[i][0], fd, names[i][1]), 0);
	close(fd);
}

static void segment_row(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM segments WHERE scope = 'VECTOR'");
}

static void segment_rows(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM segments");
}

/* Which of the two comes first, by number or by name, tells nothing. */
static void segment_rows_twice(struct chroma_fixture *f)
{
	chroma_run_sql(
	    f, "INSERT INTO segments SELECT 'ffffffff-0000-4000-8000-000000000001', type, scope, "
	       "collection "
	       "FROM segments WHERE scope = 'METADATA'; INSERT INTO segments SELECT "
	       "'ffffffff-0000-4000-8000-000000000002', type, scope, collection FROM segments "
	       "WHERE scope = "
	       "'VECTOR'; INSERT INTO segments(rowid, id, type, scope, collection) SELECT -1, "
	       "'00000000-0000-4000-8000-000000000003', type, scope, collection FROM segments "
	       "WHERE id = "
	       "'" CHROMA_VECTOR "'");
}

/* Both of them have something. */
static void segment_rows_written(struct chroma_fixture *f)
{
	chroma_run_sql(f, "INSERT INTO segments SELECT '00000000-0000-4000-8000-000000000001', "
			  "type, scope, collection "
			  "FROM segments WHERE scope = 'METADATA'; INSERT INTO "
			  "embeddings(segment_id, embedding_id, "
			  "seq_id) VALUES('00000000-0000-4000-8000-000000000001', 'other', 1)");
}

static void scope_unknown(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE segments SET scope = 'VEKTOR' WHERE scope = 'VECTOR'");
}

static void scope_and_type_unknown(struct chroma_fixture *f)
{
	chroma_run_sql(
	    f, "UPDATE segments SET scope = lower(scope), type = 'x' WHERE scope = 'METADATA'");
}

/* One of them for each reason, and one that does no harm. */
static void triggers(struct chroma_fixture *f)
{
	chroma_run_sql(
	    f, "CREATE TABLE audit(id); CREATE TRIGGER kept AFTER INSERT ON embeddings BEGIN "
	       "INSERT INTO audit "
	       "VALUES(new.embedding_id); END;"
	       "CREATE TRIGGER raises BEFORE INSERT ON embeddings_queue BEGIN SELECT RAISE(ABORT, "
	       "'no'); END;"
	       "CREATE TRIGGER \"it's \"\"lost\"\"\" AFTER UPDATE OF dimension ON collections "
	       "BEGIN INSERT "
	       "INTO nowhere VALUES(1); END;"
	       "CREATE TRIGGER deletes AFTER INSERT ON segments BEGIN DELETE FROM max_seq_id; END");
}

static void owners_gone(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM tenants; DELETE FROM databases");
}

static void settings_unreadable(struct chroma_fixture *f)
{
	chroma_run_sql(f,
		       "DELETE FROM embeddings_queue_config; INSERT INTO "
		       "embeddings_queue_config(config_json_str) VALUES ('{}'); UPDATE "
		       "collections SET config_json_str = 'x', schema_str = '{}'; UPDATE segments "
		       "SET type = 'x'");
}

static void dimension_lost(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE collections SET dimension = NULL");
}

static void mark_poisoned(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE max_seq_id SET seq_id = 1229782938247303475 WHERE segment_id = "
			  "'" CHROMA_METADATA "'");
}

static void mark_blob(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE max_seq_id SET seq_id = x'000000000000003c'");
}

static void mark_beyond(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM embeddings_queue;"
			  "UPDATE max_seq_id SET seq_id = 5000;"
			  "INSERT INTO embeddings_queue(seq_id, operation, topic, id, metadata) "
			  "VALUES(62, 1, '" CHROMA_TOPIC "', 'r7', '{\"n\":7}')");
}

static void queue_not_json(struct chroma_fixture *f)
{
	chroma_run_sql(f,
		       "UPDATE embeddings_queue SET metadata = '{\"n\": NaN}' WHERE seq_id = 55");
}

static void queue_vector(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE embeddings_queue SET vector = x'0102' WHERE seq_id = 55;"
			  "UPDATE embeddings_queue SET metadata = '{' WHERE seq_id = 56");
}

static void queue_without_vector(struct chroma_fixture *f)
{
	chroma_run_sql(
	    f, "UPDATE embeddings_queue SET vector = NULL, encoding = NULL WHERE seq_id = 55");
}

static void queue_not_text(struct chroma_fixture *f)
{
	chroma_run_sql(f,
		       "UPDATE embeddings_queue SET metadata = CAST(x'7b2261223a22ff227d' AS TEXT) "
		       "WHERE seq_id = 55");
}

static void name_not_text(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE collections SET name = CAST(x'646fff' AS TEXT)");
}

static void name_empty(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE collections SET name = ''");
}

static void name_refused(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE collections SET name = 'my docs'");
}

static void database_id(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE databases SET id = 'first'; UPDATE collections SET database_id = "
			  "'first'");
}

static void database_unknown(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE collections SET database_id = 'first'");
}

static void segment_id(struct chroma_fixture *f)
{
	chroma_run_sql(f, "UPDATE segments SET id = 'first' WHERE scope = 'VECTOR'");
}

static void parameter(struct chroma_fixture *f)
{
	chroma_run_sql(f, "INSERT INTO collection_metadata(collection_id, key, str_value) VALUES"
			  "('" CHROMA_COLLECTION "', 'hnsw:foo', 'x')");
}

static void records_bare(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM embeddings_queue WHERE seq_id IN (55, 56)");
}

static void records_gone(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM embeddings; DELETE FROM embedding_metadata;"
			  "DELETE FROM embedding_fulltext_search; DELETE FROM embeddings_queue");
}

/* Which the queue still has. */
static void rows_gone(struct chroma_fixture *f)
{
	chroma_run_sql(f,
		       "DELETE FROM embeddings WHERE id > 54; DELETE FROM embedding_metadata WHERE "
		       "id > 54");
}

static void metadata_bare(struct chroma_fixture *f)
{
	chroma_run_sql(f, "PRAGMA foreign_keys = OFF; DELETE FROM embeddings WHERE id > 40;"
			  "DELETE FROM embeddings_queue");
}

static void fulltext_incomplete(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM embedding_fulltext_search WHERE rowid > 20");
}

static void fulltext_empty(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM embedding_fulltext_search_data");
}

static void fulltext_words(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DROP TABLE embedding_fulltext_search; CREATE VIRTUAL TABLE "
			  "embedding_fulltext_search USING fts5(string_value); INSERT INTO "
			  "embedding_fulltext_search(rowid, string_value) SELECT id, string_value "
			  "FROM embedding_metadata WHERE key = 'chroma:document'");
}

static void fulltext_plain(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DROP TABLE embedding_fulltext_search; CREATE TABLE "
			  "embedding_fulltext_search(string_value)");
}

static void fulltext_gone(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DROP TABLE embedding_fulltext_search");
}

static void collection_gone(struct chroma_fixture *f)
{
	chroma_run_sql(f, "PRAGMA foreign_keys = OFF; DELETE FROM collections");
}

static void migrations_gone(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DROP TABLE migrations");
}

static void migration_unknown(struct chroma_fixture *f)
{
	chroma_run_sql(f, "INSERT INTO migrations SELECT dir, version + 7, "
			  "'00099-fork.sqlite.sql', sql, hash FROM migrations WHERE dir = 'sysdb' "
			  "ORDER BY version DESC LIMIT 1");
}

static void table_gone(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DROP TABLE max_seq_id");
}

static void deleted_collection(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM collections; DELETE FROM segments; DELETE FROM embeddings;"
			  "DELETE FROM embedding_metadata; DELETE FROM embeddings_queue;"
			  "DELETE FROM embedding_fulltext_search; DELETE FROM max_seq_id;"
			  "DELETE FROM collection_metadata");
}

static void wal_mode(struct chroma_fixture *f)
{
	chroma_run_sql(f, "PRAGMA journal_mode = WAL");
}

/* ---- of the database's bytes ---- */

void damage_database_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, CHROMA_DATABASE);
}

static void database_empty(struct chroma_fixture *f)
{
	chroma_cut(f, CHROMA_DATABASE, 0);
}

static void database_foreign(struct chroma_fixture *f)
{
	char text[5000];

	memset(text, 'x', sizeof(text));
	chroma_cut(f, CHROMA_DATABASE, 0);
	chroma_write(f, CHROMA_DATABASE, 0, text, sizeof(text));
}

static void spoil_page(struct chroma_fixture *f, int64_t number, int fill)
{
	unsigned char page[4096];

	assert_true(number > 0);
	memset(page, fill, sizeof(page));
	chroma_write(f, CHROMA_DATABASE, (number - 1) * 4096, page, sizeof(page));
}

static int64_t root_of(struct chroma_fixture *f, const char *name)
{
	char sql[160];

	snprintf(sql, sizeof(sql), "SELECT rootpage FROM sqlite_schema WHERE name = '%s'", name);
	return chroma_ask(f, sql);
}

static void first_page_zeroed(struct chroma_fixture *f)
{
	spoil_page(f, 1, 0);
}

static void first_page_garbage(struct chroma_fixture *f)
{
	spoil_page(f, 1, 0x5a);
}

static void embeddings_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "embeddings"), 0);
}

static void metadata_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "embedding_metadata"), 0x5a);
}

static void collections_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "collections"), 0);
}

static void segments_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "segments"), 0);
}

static void queue_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "embeddings_queue"), 0x5a);
}

static void marks_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "max_seq_id"), 0);
}

static void migrations_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "migrations"), 0);
}

/* The collection is in nothing but the snapshot and its files. */
static void core_pages(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "sqlite_autoindex_embeddings_1"), 0);
	spoil_page(f, root_of(f, "embeddings_queue"), 0);
	spoil_page(f, root_of(f, "max_seq_id"), 0);
	spoil_page(f, root_of(f, "segments"), 0);
	spoil_page(f, root_of(f, "collections"), 0);
	spoil_page(f, root_of(f, "embeddings"), 0);
}

static void collections_and_segments_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "segments"), 0);
	spoil_page(f, root_of(f, "collections"), 0);
}

static void index_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "embedding_metadata_string_value"), 0);
}

static void fulltext_page(struct chroma_fixture *f)
{
	spoil_page(f, root_of(f, "embedding_fulltext_search_data"), 0);
}

static void database_cut(struct chroma_fixture *f)
{
	off_t pages = chroma_size(f, CHROMA_DATABASE) / 4096;

	chroma_cut(f, CHROMA_DATABASE, pages * 3 / 5 * 4096);
}

/* ---- copies ---- */

static void lfs_pointer(struct chroma_fixture *f)
{
	static const char text[] =
	    "version https://git-lfs.github.com/spec/v1\n"
	    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2c"
	    "a24d17e2393\nsize 12345\n";

	chroma_cut(f, CHROMA_DATABASE, 0);
	chroma_write(f, CHROMA_DATABASE, 0, text, sizeof(text) - 1);
}

/* `dvc add` of a file leaves one beside it, which is all that a clone has. */
static void dvc_pointer(struct chroma_fixture *f)
{
	static const char text[] = "outs:\n- md5: 1f0a9a12345678901234567890abcdef\n  size: 100\n";
	int fd = file_open_directory_at(f->datafd, CHROMA_VECTOR);

	assert_int_equal(renameat(fd, "header.bin", fd, "header.bin.dvc"), 0);
	close(fd);
	chroma_cut(f, CHROMA_VECTOR "/header.bin.dvc", 0);
	chroma_write(f, CHROMA_VECTOR "/header.bin.dvc", 0, text, sizeof(text) - 1);
}

static void file_packed(struct chroma_fixture *f)
{
	static const char head[] = "\x1f\x8b\x08\0\0\0\0\0\0\x03 and so on";
	int fd = file_open_directory_at(f->datafd, CHROMA_VECTOR);

	assert_int_equal(renameat(fd, "data_level0.bin", fd, "data_level0.bin.gz"), 0);
	close(fd);
	chroma_write(f, CHROMA_VECTOR "/data_level0.bin.gz", 0, head, sizeof(head) - 1);
}

static void database_packed(struct chroma_fixture *f)
{
	static const char head[] = "\x1f\x8b\x08\0\0\0\0\0\0\x03 and so on";

	chroma_cut(f, CHROMA_DATABASE, 0);
	chroma_write(f, CHROMA_DATABASE, 0, head, sizeof(head));
}

/* Chroma 0.6 has the last of its tables in the 24th page. */
static void database_of_old(struct chroma_fixture *f)
{
	char sql[1200];
	int i;

	chroma_run_sql(f, "CREATE TABLE filler(x); INSERT INTO filler VALUES(zeroblob(80000));"
			  "CREATE TABLE marks AS SELECT * FROM max_seq_id; DROP TABLE max_seq_id");
	for (i = 0; i < 8; i++) {
		snprintf(sql, sizeof(sql), "CREATE TABLE filler_%d(x DEFAULT '%01000d')", i, 0);
		chroma_run_sql(f, sql);
	}
	chroma_run_sql(f, "CREATE TABLE max_seq_id AS SELECT * FROM marks; VACUUM");
	assert_int_equal(renameat(f->datafd, CHROMA_DATABASE, f->datafd, CHROMA_DATABASE ".bak"),
			 0);
}

static void database_set_aside(struct chroma_fixture *f)
{
	assert_int_equal(renameat(f->datafd, CHROMA_DATABASE, f->datafd, "old.db"), 0);
}

/* Nor does what lies beside make it one that Chroma may begin anew. */
static void archive_beside(struct chroma_fixture *f)
{
	chroma_unlink(f, CHROMA_DATABASE);
	chroma_write(f, "backup.zip", 0, "PK\3\4", 4);
}

static void database_renamed(struct chroma_fixture *f)
{
	assert_int_equal(renameat(f->datafd, CHROMA_DATABASE, f->datafd, "chroma (1).sqlite3"), 0);
}

void damage_folder_too_deep(struct chroma_fixture *f)
{
	int fd = tree_make_directory(f->datafd, "inner");

	assert_int_equal(renameat(f->datafd, CHROMA_DATABASE, fd, CHROMA_DATABASE), 0);
	assert_int_equal(renameat(f->datafd, CHROMA_VECTOR, fd, CHROMA_VECTOR), 0);
	close(fd);
}

/* ---- what becomes of each ---- */

const struct damage damages[] = {
    {none, "", 60, 0, 0, 60, 60},
    {pickle_cut, "pickle-truncated", 60, 0, 0, 60, 60},
    {pickle_empty, "pickle-truncated", 60, 50, 0, 10, 60},
    {pickle_gone, "pickle-missing", 60, 50, 0, 10, 60},
    {pickle_garbage, "pickle-damaged", 60, 0, 0, 60, 60},
    {pickle_maps, "pickle-not-inverse persist-torn labels-lost", 60, 1, 0, 59, 60},
    {header_zeroed, "header-damaged segment-file-unfinished", 60, 0, 0, 60, 60},
    {header_cut, "header-damaged", 60, 0, 0, 60, 60},
    {header_gone, "segment-file-missing", 60, 0, 0, 60, 60},
    {header_and_pickle_gone, "segment-file-missing pickle-missing", 60, 50, 0, 10, 60},
    {level0_cut, "level0-short labels-lost", 60, 31, 0, 29, 60},
    {level0_zeros, "graph-unreachable labels-damaged segment-file-unfinished labels-lost", 60, 41,
     0, 19, 60},
    {level0_gone, "segment-file-missing", 60, 50, 0, 10, 60},
    {level0_label_twice, "labels-damaged labels-lost", 60, 1, 0, 59, 60},
    {level0_garbage, "labels-damaged labels-lost", 60, 3, 0, 57, 60},
    {level0_unreachable, "graph-unreachable", 60, 0, 0, 60, 60},
    {level0_infinite, "vector-not-finite", 60, 0, 0, 60, 60},
    {length_cut, "length-short", 60, 0, 0, 60, 60},
    {links_cut, "links-short", 60, 0, 0, 60, 60},
    {links_garbage, "links-damaged", 60, 0, 0, 60, 60},
    {links_neighbour, "graph-damaged", 60, 0, 0, 60, 60},
    {links_runaway, "links-runaway", 60, 0, 0, 60, 60},
    {damage_segment_gone, "segment-missing segments-left-behind", 60, 50, 0, 10, 60},
    {segment_renamed, "segment-renamed", 60, 0, 0, 60, 60},
    {segment_nameless, "segment-renamed", 60, 0, 0, 60, 60},
    {segment_below, "segment-renamed", 60, 0, 0, 60, 60},
    {segment_of_another, "segment-missing segments-left-behind leftover-directory", 60, 50, 0, 10,
     60},
    {files_renamed, "segment-file-renamed", 60, 0, 0, 60, 60},
    {segment_row, "segment-row-missing", 60, 50, 0, 60, 60},
    {segment_rows, "segment-row-missing", 10, 0, 0, 60, 60},
    {segment_rows_twice, "segment-row-twice", 60, 0, 0, 60, 60},
    {segment_rows_written, "segment-row-twice", 60, 0, 1, 60, 60},
    {scope_unknown, "segment-scope-unknown segment-row-missing", 60, 50, 0, 60, 60},
    {scope_and_type_unknown, "segment-scope-unknown segment-row-missing", 60, 0, 0, 60, 60},
    {triggers, "table-foreign trigger-foreign", 60, 0, 0, 60, 60},
    {owners_gone, "owner-row-missing", 60, 0, 0, 60, 60},
    {settings_unreadable, "settings-unreadable", 60, 0, 0, 60, 60},
    {dimension_lost, "dimension-lost", 60, 0, 0, 60, 60},
    {mark_poisoned, "mark-poisoned", 60, 0, 0, 60, 60},
    {mark_blob, "mark-blob queue-unapplied records-without-vector", 60, 0, 0, 60, 60},
    {mark_beyond, "mark-beyond-queue records-without-vector", 60, 10, 0, 50, 60},
    {queue_not_json, "queue-damaged", 60, 0, 0, 60, 60},
    {queue_vector, "queue-damaged", 60, 1, 0, 59, 60},
    {queue_without_vector, "queue-damaged records-without-vector", 60, 1, 0, 59, 60},
    {queue_not_text, "queue-damaged", 60, 0, 0, 60, 60},
    {name_not_text, "name-unreadable", 60, 0, 0, 60, 60},
    {name_empty, "name-unreadable", 60, 0, 0, 60, 60},
    {name_refused, "name-refused", 60, 0, 0, 60, 60},
    {database_id, "id-unreadable", 60, 0, 0, 60, 60},
    {database_unknown, "owner-row-missing id-unreadable", 60, 0, 0, 60, 60},
    {segment_id, "id-unreadable", 60, 50, 0, 60, 60},
    {parameter, "", 60, 0, 0, 60, 60},
    {records_bare, "records-without-vector", 60, 2, 0, 58, 60},
    {records_gone, "mark-beyond-queue records-gone", 50, 0, 0, 50, 60},
    {rows_gone, "records-lost", 53, 0, 0, 60, 60},
    {metadata_bare, "metadata-without-record mark-beyond-queue vectors-without-record", 39, 0, 0,
     50, 60},
    {fulltext_incomplete, "fts-incomplete", 60, 0, 0, 60, 60},
    {fulltext_empty, "fts-malformed", 60, 0, 0, 60, 60},
    {fulltext_words, "fts-foreign", 60, 0, 0, 60, 60},
    {fulltext_plain, "fts-malformed", 60, 0, 0, 60, 60},
    {fulltext_gone, "table-missing", 60, 0, 0, 60, 60},
    {collection_gone, "collection-row-missing", 60, 0, 0, 60, 60},
    {migrations_gone, "migration-interrupted", 60, 0, 0, 60, 60},
    {migration_unknown, "migrations-unknown", 60, 0, 0, 60, 60},
    {table_gone, "table-missing", 60, 0, 0, 60, 60},
    {deleted_collection, "leftover-directory", 0, 0, 0, 0, 0},
    {wal_mode, "wal-mode", 60, 0, 0, 60, 60},
    {damage_database_gone, "database-missing", 50, 0, 1, 50, 50},
    {database_empty, "database-missing", 50, 0, 1, 50, 50},
    {database_foreign, "database-lost", 50, 0, 1, 50, 50},
    {first_page_zeroed, "database-not-sqlite", 60, 0, 0, 60, 60},
    {first_page_garbage, "database-not-sqlite", 60, 0, 0, 60, 60},
    {embeddings_page, "database-malformed fts-malformed", 60, 0, 0, 60, 60},
    {metadata_page, "database-malformed fts-malformed", 60, 0, 0, 60, 60},
    {collections_page, "database-malformed", 60, 0, 0, 60, 60},
    {segments_page, "database-malformed", 60, 0, 0, 60, 60},
    {queue_page, "database-malformed", 60, 10, 0, 50, 60},
    {marks_page, "database-malformed", 0, 0, 0, 60, 60},
    {migrations_page, "database-malformed migration-interrupted", 60, 0, 0, 60, 60},
    {core_pages, "database-malformed fts-malformed", 50, 0, 0, 50, 60},
    {collections_and_segments_page, "database-malformed", 60, 0, 0, 60, 60},
    {index_page, "database-malformed", 60, 0, 0, 60, 60},
    {fulltext_page, "database-malformed fts-malformed", 60, 0, 0, 60, 60},
    {database_cut, "database-short database-malformed", 60, 0, 0, 60, 60},
    {lfs_pointer, "not-downloaded", 50, 0, 1, 50, 50},
    {dvc_pointer, "not-downloaded", 60, 0, 1, 60, 60},
    {file_packed, "packed", 60, 0, 1, 60, 60},
    {database_packed, "packed", 50, 0, 1, 50, 50},
    {database_set_aside, "database-renamed", 50, 0, 1, 50, 50},
    {database_of_old, "database-renamed", 50, 0, 1, 50, 50},
    {archive_beside, "archive-here database-missing", 50, 0, 1, 50, 50},
    {database_renamed, "database-renamed", 50, 0, 1, 50, 50},
    {damage_folder_too_deep, "directory-below", 0, 0, 0, 0, 0},
};

const size_t damages_count = sizeof(damages) / sizeof(damages[0]);
