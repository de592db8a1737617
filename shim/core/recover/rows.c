/* SPDX-License-Identifier: MIT
 *
 * Rows without which Chroma does not find a collection, and settings that it cannot read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "core/chroma/queue_json.h"
#include "core/recover/internal.h"
#include "core/segment/hnsw.h"

/* As Chroma's migrations make them. */
#define DEFAULT_DATABASE "'00000000-0000-0000-0000-000000000000'"
#define DEFAULT_TENANT "'default_tenant'"

/* What a release does not have is passed over. */
static const struct mended {
	const char *sql, *said;
} mended[] = {
    {"UPDATE OR IGNORE collections SET database_id = " DEFAULT_DATABASE
     " WHERE NOT " CHROMA_IS_UUID(
	 "database_id") " AND database_id NOT IN (SELECT id FROM databases)",
     "collections were of a database whose id was no UUID, and are in the default one"},
    {"INSERT INTO databases(id, name, tenant_id) SELECT DISTINCT database_id, CASE database_id "
     "WHEN " DEFAULT_DATABASE " THEN 'default_database' ELSE 'recovered-' || database_id "
     "END, " DEFAULT_TENANT " FROM collections WHERE database_id NOT IN (SELECT id FROM databases)",
     "databases of collections had no row, and have one again"},
    {"INSERT INTO databases(id, name, tenant_id) SELECT " DEFAULT_DATABASE ", 'default_database', "
     "" DEFAULT_TENANT " WHERE NOT EXISTS (SELECT 1 FROM databases)",
     "databases were none: the default one has its row again"},
    {"INSERT INTO tenants(id) SELECT DISTINCT tenant_id FROM databases WHERE tenant_id NOT IN "
     "(SELECT id FROM tenants)",
     "tenants of databases had no row, and have one again"},
    {"DELETE FROM segments WHERE NOT " CHROMA_IS_UUID("id"),
     "rows of segments had an id that is no UUID, and are made again"},
    {"DELETE FROM embeddings_queue_config WHERE NOT " CHROMA_QUEUE_CONFIG_FITS,
     "settings of the queue could not be read: Chroma makes its own at the next start"},
    {"UPDATE collections SET config_json_str = NULL WHERE config_json_str NOTNULL AND NOT "
     "json_valid(config_json_str)",
     "collections had settings that could not be read: those of their metadata count, and "
     "Chroma's defaults"},
    {"UPDATE collections SET schema_str = NULL WHERE schema_str NOTNULL AND "
     "NOT " CHROMA_SCHEMA_FITS,
     "collections had a schema that could not be read: their settings count"},
    {"UPDATE segments SET type = iif(scope = 'VECTOR', "
     "'urn:chroma:segment/vector/hnsw-local-persisted', 'urn:chroma:segment/metadata/sqlite') "
     "WHERE "
     "scope IN ('VECTOR', 'METADATA') AND NOT " CHROMA_SEGMENT_TYPE_FITS,
     "segments were of no known type, and are of the only one that they can be"},
};

/* Chroma before 1.0 opens an index by these. */
static const struct mended space = {
    "INSERT INTO segment_metadata(segment_id, key, str_value, int_value, float_value) SELECT "
    "s.id, "
    "m.key, m.str_value, m.int_value, m.float_value FROM segments s JOIN collection_metadata m ON "
    "m.collection_id = s.collection AND m.key GLOB 'hnsw:*' WHERE s.scope = 'VECTOR' AND "
    "" CHROMA_SPACE_LOST,
    "settings of indexes were gone, and are again those of their collection"};

static const struct mended names[] = {
    {"UPDATE OR IGNORE collections SET name = coalesce(mended_text(name, '_'), CAST(name AS TEXT)) "
     "WHERE name <> '' AND NOT " CHROMA_NAME_FITS,
     "collections had names that are no text: they have \"_\" for what was none"},
    {"UPDATE collections SET name = 'lost-' || id WHERE NOT " CHROMA_NAME_FITS,
     "collections had names that are empty or no text, and are called lost-ID"},
};

/* Of a collection that is made up, and whose vectors have been found after that. */
static int mend_space(struct recovery *r, const char *segment, int dirfd,
		      const struct hnsw_header *h)
{
	sqlite3_stmt *row = NULL;
	int error;

	if (chroma_space_of_files(dirfd, h) != CHROMA_COSINE)
		return 0;
	error = database_prepare(r->db, &row,
				 "SELECT c.id FROM segments s JOIN collections c ON c.id = "
				 "s.collection WHERE s.id = ?1 AND c.name GLOB 'lost-*'");
	if (error == 0) {
		sqlite3_bind_text(row, 1, segment, -1, SQLITE_STATIC);
		error = database_step(row);
	}
	if (error == 1)
		error = chroma_make_cosine(r->db, (const char *)sqlite3_column_text(row, 0));
	sqlite3_finalize(row);
	return error;
}

static int put_dimension(struct recovery *r, const struct chroma_collection *c)
{
	char dimension[24];
	int error;

	snprintf(dimension, sizeof(dimension), "%" PRId64,
		 chroma_lost_dimension(r->db, r->dirfd, c));
	error = RECOVER_CHANGE(
	    r, "UPDATE collections SET dimension = CAST(?1 AS INTEGER) WHERE id = ?2", dimension,
	    c->id);
	r->healed += error == 0;
	recover_say(r, RECOVER_SEGMENTS, c->name,
		    "its dimension is %s again, as its vectors have it", dimension);
	return error;
}

static bool has_lost_dimension(const struct recovery *r, const struct chroma_collection *c)
{
	return chroma_lost_dimension(r->db, r->dirfd, c) != 0;
}

int recover_dimensions(struct recovery *r)
{
	struct recover_list list;
	int error = 0;
	size_t i;

	if (!recover_was_found(r->judgement, DIAGNOSE_DIMENSION_LOST))
		return 0;
	error = recover_list_collections(r, has_lost_dimension, &list);
	for (i = 0; i < list.count && error == 0; i++)
		error = put_dimension(r, &list.list[i]);
	recover_list_free(&list);
	return error;
}

int recover_mend_dimension(struct recovery *r, const char *segment)
{
	int dirfd = file_follow_directory_at(r->dirfd, segment);
	struct hnsw_header h;
	char dimension[24];
	int error = 0;

	if (dirfd < 0)
		return 0;
	if (hnsw_header_read(dirfd, &h) == 0) {
		snprintf(dimension, sizeof(dimension), "%" PRIu64, hnsw_dimension(&h));
		error = RECOVER_CHANGE(r,
				       "UPDATE collections SET dimension = CAST(?1 AS INTEGER) "
				       "WHERE id = (SELECT collection FROM segments WHERE id = ?2)",
				       dimension, segment);
		if (error == 0)
			error = mend_space(r, segment, dirfd, &h);
		r->healed += error == 0;
		recover_say(
		    r, RECOVER_SEGMENTS, NULL,
		    "the dimension of the collection with the vectors %.36s is %s again, as "
		    "its index has it",
		    segment, dimension);
	}
	close(dirfd);
	return error;
}

/* Which is in three places at most. */
static int mend_database_ids(struct recovery *r)
{
	static const char unfit[] =
	    "SELECT count(*) FROM databases WHERE NOT " CHROMA_IS_UUID("id");
	int64_t count = 0;
	int error = database_number(r->db, unfit, NULL, &count);

	if (error < 0 || !count)
		return error == -ENOENT ? 0 : error;
	error = recover_sql(
	    r,
	    "DROP TABLE IF EXISTS temp.new_id; CREATE TEMP TABLE new_id AS SELECT id AS old, CASE "
	    "WHEN name = 'default_database' AND tenant_id = " DEFAULT_TENANT
	    " AND NOT EXISTS (SELECT 1 FROM databases WHERE id = " DEFAULT_DATABASE
	    ") THEN " DEFAULT_DATABASE " ELSE lower(hex(randomblob(4)) || '-' || "
	    "hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' || "
	    "substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))) END AS new FROM databases "
	    "WHERE NOT " CHROMA_IS_UUID(
		"id") ";"
		      "UPDATE databases SET id = (SELECT new FROM new_id WHERE old = id) WHERE id "
		      "IN "
		      "(SELECT old FROM new_id);"
		      "UPDATE collections SET database_id = (SELECT new FROM new_id WHERE old = "
		      "database_id) WHERE database_id IN (SELECT old FROM new_id)");
	if (error < 0)
		return error;
	r->healed++;
	recover_say(r, RECOVER_SEGMENTS, NULL,
		    "%" PRId64 " databases had an id that is no UUID, and have another", count);
	return 0;
}

static int run_mended(struct recovery *r, const struct mended *m, uint64_t *count)
{
	sqlite3_stmt *known = NULL;
	int error;

	if (database_prepare(r->db, &known, m->sql) < 0)
		return 0;
	sqlite3_finalize(known);
	error = recover_sql(r, m->sql);
	if (error < 0 || sqlite3_changes64(r->db) == 0)
		return error;
	*count += (uint64_t)sqlite3_changes64(r->db);
	r->healed++;
	recover_say(r, RECOVER_SEGMENTS, NULL, "%" PRId64 " %s", (int64_t)sqlite3_changes64(r->db),
		    m->said);
	return 0;
}

static int mend_names(struct recovery *r)
{
	uint64_t count = 0;
	int error = recover_names(r);
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]) && error == 0; i++)
		error = run_mended(r, &names[i], &count);
	if (r->options->account)
		r->options->account->nameless += count;
	return error;
}

int recover_segment_settings(struct recovery *r)
{
	uint64_t ignored = 0;

	return run_mended(r, &space, &ignored);
}

int recover_rows(struct recovery *r)
{
	uint64_t ignored = 0;
	int error = recover_lost_rows(r);
	size_t i;

	if (error == 0)
		error = recover_dimensions(r);
	if (error == 0)
		error = recover_owners(r);
	if (error == 0)
		error = queue_json_register(r->db);
	if (error == 0)
		error = mend_names(r);
	for (i = 0; i < sizeof(mended) / sizeof(mended[0]) && error == 0; i++)
		error = run_mended(r, &mended[i], &ignored);
	if (error == 0)
		error = mend_database_ids(r);
	return error;
}
