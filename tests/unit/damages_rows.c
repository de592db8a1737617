/* SPDX-License-Identifier: MIT
 *
 * Damages of rows of the database, and what becomes of each.
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

/* The queue of the whole one has been applied, all in one second. */
static void mark_of_another_beyond(struct chroma_fixture *f)
{
	chroma_run_sql(
	    f, "INSERT INTO collections SELECT '00000000-0000-4000-8000-00000000000c', 'other', "
	       "NULL, database_id, '{}', NULL FROM collections; INSERT INTO segments SELECT "
	       "'00000000-0000-4000-8000-00000000000' || rowid, type, scope, "
	       "'00000000-0000-4000-8000-00000000000c' FROM segments; INSERT INTO max_seq_id "
	       "SELECT id, 99 FROM segments WHERE scope = 'METADATA' AND id <> '" CHROMA_METADATA
	       "'; UPDATE embeddings SET created_at = '2026-01-01 00:00:00'; UPDATE "
	       "embeddings_queue SET created_at = '2026-01-01 00:00:00'");
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

static const struct damage list[] = {
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
    {mark_of_another_beyond, "mark-beyond-queue", 60, 0, 0, 60, 60},
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
};

const struct damages damages_of_rows = {list, sizeof(list) / sizeof(list[0])};
