/* SPDX-License-Identifier: MIT
 *
 * Damages of the database as a file, and copies that went wrong, and what becomes of each.
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

void damage_queue_root(struct chroma_fixture *f)
{
	chroma_run_sql(
	    f, "UPDATE embeddings_queue SET metadata = json_set(metadata, '$.long', hex(zeroblob("
	       "400))); INSERT INTO embedding_metadata(id, key, string_value) SELECT id, 'long', "
	       "hex(zeroblob(400)) FROM embeddings WHERE id > 51; INSERT INTO "
	       "embeddings_queue(seq_id, "
	       "operation, topic, id, vector, encoding, metadata) SELECT 62, 2, topic, 'r3', "
	       "x'000040400000803f0000803f0000803f', encoding, '{}' FROM embeddings_queue LIMIT 1; "
	       "UPDATE embeddings SET seq_id = 62 WHERE embedding_id = 'r3'; UPDATE max_seq_id SET "
	       "seq_id = 62 WHERE segment_id = '" CHROMA_METADATA "'");
	spoil_page(f, root_of(f, "embeddings_queue"), 0);
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

static const struct damage list[] = {
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

const struct damages damages_of_database = {list, sizeof(list) / sizeof(list[0])};
