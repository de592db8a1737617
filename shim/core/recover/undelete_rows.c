/* SPDX-License-Identifier: MIT
 *
 * The rows of a collection that is brought back: from a snapshot's database, or made anew in the
 * way of the release that the database belongs to.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/recover/undelete.h"
#include "core/snapshot/read.h"

#define DEFAULT_DATABASE "00000000-0000-0000-0000-000000000000"

#define CHANGE(u, ...) RECOVER_CHANGE((u)->r, __VA_ARGS__)

/* The collection's own rows, as they were; its segments' settings under their new names. */
static int copy_collection(struct undelete *u, sqlite3 *from)
{
	bool was_deleted = strcmp(u->id, u->l->id) == 0;
	int r =
	    database_copy_rows_as(from, u->r->db, "collections", "id", u->l->id, u->id, u->name);

	if (r == 0)
		r = database_copy_rows_as(from, u->r->db, "collection_metadata", "collection_id",
					  u->l->id, u->id, NULL);
	if (r == 0 && was_deleted) /* what Chroma < 1.0 left behind is newer or the same */
		r = CHANGE(u, "DELETE FROM segment_metadata WHERE segment_id = ?1", u->l->segment);
	if (r == 0)
		r = database_copy_rows_as(from, u->r->db, "segment_metadata", "segment_id",
					  u->l->segment, u->vector, NULL);
	if (r == 0 && database_has_table(u->r->db, "databases") == 1)
		r = CHANGE(u,
			   "UPDATE collections SET database_id = '" DEFAULT_DATABASE
			   "' WHERE id = ?1 AND database_id NOT IN (SELECT id FROM databases)",
			   u->id);
	return r;
}

static int make_from_snapshot(struct undelete *u)
{
	struct snapshot_store *store = u->r->options->snapshots;
	struct snapshot_database from = {.db = NULL};
	struct manifest m = {0};
	int r = manifest_read(store->dirfd, u->l->snapshot, &m);

	/* Chroma < 1.0 leaves rows of a deleted collection behind. */
	if (r == 0)
		r = CHANGE(u, "DELETE FROM collection_metadata WHERE collection_id = ?1", u->id);
	if (r == 0)
		r = CHANGE(u, "DELETE FROM embeddings_queue WHERE topic = ?1", u->topic);
	if (r == 0)
		r = snapshot_database_open(&from, store, &m);
	if (r == 0)
		r = copy_collection(u, from.db);
	snapshot_database_close(&from);
	manifest_free(&m);
	return r;
}

/* Settings as Chroma < 1.0 keeps them; those that it has left behind are the best. */
static int make_old_settings(struct undelete *u)
{
	const struct hnsw_header *h = &u->l->header;
	char m[24], ef[24];
	int r = CHANGE(u, "UPDATE segment_metadata SET segment_id = ?2 WHERE segment_id = ?1",
		       u->l->segment, u->vector);

	snprintf(m, sizeof(m), "%" PRIu64, h->m);
	snprintf(ef, sizeof(ef), "%" PRIu64, h->ef_construction);
	if (r == 0 && sqlite3_changes64(u->r->db) == 0)
		r = CHANGE(u,
			   "INSERT INTO segment_metadata(segment_id, key, str_value, int_value) "
			   "VALUES (?1, 'hnsw:space', ?2, NULL), (?1, 'hnsw:M', NULL, CAST(?3 AS "
			   "INTEGER)), (?1, 'hnsw:construction_ef', NULL, CAST(?4 AS INTEGER))",
			   u->vector, chroma_space_names[u->space], m, ef);
	return r < 0 ? r
		     : CHANGE(u,
			      "INSERT INTO collection_metadata(collection_id, key, str_value, "
			      "int_value, float_value) SELECT ?1, key, str_value, int_value, "
			      "float_value FROM segment_metadata WHERE segment_id = ?2",
			      u->id, u->vector);
}

static int make_anew(struct undelete *u)
{
	const struct hnsw_header *h = &u->l->header;
	bool has_database = database_has_table(u->r->db, "databases") == 1;
	bool has_topic = database_has_column(u->r->db, "collections", "topic") == 1; /* < 0.5.0 */
	char dimension[24], config[256], sql[256];
	int r;

	snprintf(dimension, sizeof(dimension), "%" PRIu64, hnsw_dimension(h));
	snprintf(sql, sizeof(sql),
		 "INSERT INTO collections(id, name, dimension%s%s) VALUES (?1, ?2, CAST(?3 AS "
		 "INTEGER)%s%s)",
		 has_database ? ", database_id" : "", has_topic ? ", topic" : "",
		 has_database ? ", '" DEFAULT_DATABASE "'" : "", has_topic ? ", ?4" : "");
	r = CHANGE(u, sql, u->id, u->name, dimension, u->topic);
	if (r < 0 || !u->r->is_rust)
		return r < 0 ? r : make_old_settings(u);
	snprintf(config, sizeof(config),
		 "{\"vector_index\":{\"hnsw\":{\"space\":\"%s\",\"ef_construction\":%" PRIu64
		 ",\"max_neighbors\":%" PRIu64 "}}}",
		 chroma_space_names[u->space], h->ef_construction, h->m);
	return CHANGE(u, "UPDATE collections SET config_json_str = ?2 WHERE id = ?1", u->id,
		      config);
}

static int make_segments(struct undelete *u)
{
	int r = CHANGE(u,
		       "INSERT INTO segments(id, type, scope, collection) VALUES "
		       "(?1, 'urn:chroma:segment/vector/hnsw-local-persisted', 'VECTOR', ?3), "
		       "(?2, 'urn:chroma:segment/metadata/sqlite', 'METADATA', ?3)",
		       u->vector, u->metadata, u->id);

	if (r == 0 && database_has_column(u->r->db, "segments", "topic") == 1) /* < 0.5.0 */
		r = CHANGE(u, "UPDATE segments SET topic = ?2 WHERE collection = ?1", u->id,
			   u->topic);
	if (r == 0 && !u->l->snapshot)
		r = CHANGE(u, "UPDATE segment_metadata SET segment_id = ?2 WHERE segment_id = ?1",
			   u->l->segment, u->vector);
	return r;
}

/* Chroma leaves the arrays of deleted records, and gives their row numbers to new ones. */
static int drop_ownerless_arrays(struct undelete *u)
{
	if (database_has_table(u->r->db, "embedding_metadata_array") != 1)
		return 0;
	return CHANGE(u,
		      "DELETE FROM embedding_metadata_array WHERE id NOT IN (SELECT id FROM "
		      "embeddings)",
		      NULL);
}

static int give_records(struct undelete *u)
{
	char end[24];
	int64_t last;
	int r = recover_find_end(u->r, &last);

	if (r == 0)
		r = drop_ownerless_arrays(u);
	if (r < 0)
		return r;
	snprintf(end, sizeof(end), "%" PRId64, last);
	return CHANGE(u,
		      "INSERT INTO embeddings_queue(seq_id, operation, topic, id, vector, "
		      "encoding, metadata) SELECT CAST(?1 AS INTEGER) + row_number() OVER (ORDER "
		      "BY n), 2, ?2, id, vector, 'FLOAT32', metadata FROM temp.back WHERE vector "
		      "IS NOT NULL ORDER BY n",
		      end, u->topic);
}

int recover_undelete_collection(struct undelete *u)
{
	int r = u->l->snapshot ? make_from_snapshot(u) : make_anew(u);

	return r < 0 ? r : make_segments(u);
}

int recover_undelete_rows(struct undelete *u)
{
	int r = recover_undelete_collection(u);

	return r < 0 ? r : give_records(u);
}
