/* SPDX-License-Identifier: MIT
 *
 * What a Chroma database says of its collections: names, segments, marks, space. Read from every
 * schema since 0.4.0.
 *
 * A collection has a VECTOR segment (the directory of that name, HNSW) and a METADATA segment
 * (rows in `embeddings`). Both take their input from the queue, table embeddings_queue; a
 * segment's mark, in table max_seq_id, is the last queue row it holds durably.
 */
#ifndef CORE_CHROMA_H
#define CORE_CHROMA_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHROMA_ID_SIZE 64 /* ids are UUIDs of 36 characters */
#define CHROMA_TOPIC_PREFIX "persistent://default/default/"
#define CHROMA_SYNC_THRESHOLD 1000
/* Larger marks are the trace of migration metadb/00005 run twice over the same value. */
#define CHROMA_MARK_POISONED UINT64_C(0x1111000000000000)

/* embeddings_queue.operation */
enum chroma_operation {
	CHROMA_ADD = 0,
	CHROMA_UPDATE = 1,
	CHROMA_UPSERT = 2,
	CHROMA_DELETE = 3,
};

enum chroma_space { CHROMA_L2, CHROMA_COSINE, CHROMA_IP };

struct chroma_mark {
	int type; /* SQLITE_NULL: no row, SQLITE_INTEGER, SQLITE_BLOB (Chroma < 1.0), or odd */
	uint64_t value;
};

struct chroma_collection {
	char id[CHROMA_ID_SIZE];
	char vector_segment[CHROMA_ID_SIZE];   /* "": none */
	char metadata_segment[CHROMA_ID_SIZE]; /* "": none */
	char topic[sizeof(CHROMA_TOPIC_PREFIX) + CHROMA_ID_SIZE];
	const char *name, *database, *tenant; /* lent; database and tenant NULL before 0.4.15 */
	int64_t dimension;		      /* 0: not known yet */
	enum chroma_space space;
	int64_t sync_threshold;
	struct chroma_mark vector_mark, metadata_mark;
};

/*
 * Called for each, in the order of creation, inside a read transaction that ends with it: what it
 * reads from the database belongs together. A result other than 0 ends it and is returned.
 */
typedef int chroma_collection_fn(void *context, const struct chroma_collection *collection);

/* 0, -ENOENT if a table or column is missing, or another -errno of sqlite/database.h. */
int chroma_each_collection(sqlite3 *db, chroma_collection_fn *each, void *context);

/*
 * The settings of a collection's index that are told, by Chroma 1's names, as rows of key, NULL,
 * integer, real, NULL. *rows is the caller's to finalize; c is lent to it.
 */
int chroma_index_settings(sqlite3 *db, const struct chroma_collection *c, sqlite3_stmt **rows);

/*
 * Records that the METADATA segment (?1) still has, although it claims to have applied (its mark:
 * ?5) the deletion that is the last word of the queue (?3) beyond the VECTOR mark (?4).
 */
#define CHROMA_HALF_DELETED                                                                      \
	"SELECT e.embedding_id AS id FROM (SELECT id, operation, max(seq_id) AS last FROM "      \
	"embeddings_queue WHERE topic = ?3 AND seq_id > ?4 GROUP BY id) q JOIN embeddings e ON " \
	"e.segment_id = ?1 AND e.embedding_id = q.id WHERE q.operation = 3 AND q.last <= ?5"

/* An expression: whether row m of collection_metadata, with an hnsw:* key, is one that Chroma 0.5.4
 * to 0.6.3 takes. */
#define CHROMA_PARAMETER_FITS                                                                   \
	"CASE m.key WHEN 'hnsw:space' THEN coalesce(m.str_value IN ('l2', 'cosine', 'ip'), 0) " \
	"WHEN 'hnsw:construction_ef' THEN m.int_value NOTNULL WHEN 'hnsw:search_ef' THEN "      \
	"m.int_value NOTNULL WHEN 'hnsw:M' THEN m.int_value NOTNULL WHEN 'hnsw:num_threads' "   \
	"THEN m.int_value NOTNULL WHEN 'hnsw:resize_factor' THEN coalesce(m.int_value, "        \
	"m.float_value) NOTNULL WHEN 'hnsw:batch_size' THEN coalesce(m.int_value > 2, 0) WHEN " \
	"'hnsw:sync_threshold' THEN coalesce(m.int_value > 2, 0) ELSE 0 END"

/* Of a row of collections with a schema_str, and of segments. */
#define CHROMA_SCHEMA_FITS                                                                      \
	"CASE WHEN json_valid(schema_str) THEN json_type(schema_str, '$.keys') = 'object' AND " \
	"json_type(schema_str, '$.defaults') = 'object' ELSE 0 END IS 1"
#define CHROMA_SEGMENT_TYPE_FITS "type GLOB 'urn:chroma:segment/*'"
/* Of a row of embeddings_queue_config: Chroma >= 1.0 reads it. */
#define CHROMA_QUEUE_CONFIG_FITS                                                 \
	"CASE WHEN json_valid(config_json_str) THEN json_type(config_json_str, " \
	"'$.automatically_purge') IN ('true', 'false') ELSE 0 END IS 1"

/* A mark's value as it was before it was poisoned; others as they are. */
uint64_t chroma_mark_restore(uint64_t value);

/* 1 if a collection has this segment, 0 if none has, or -errno: the database cannot tell. */
int chroma_has_segment(sqlite3 *db, const char *id);

/* CHROMA_L2 if it is NULL or unknown, as Chroma has it. */
enum chroma_space chroma_space_of(const char *name);
extern const char *const chroma_space_names[3]; /* by enum chroma_space */

/* Whether `name` in a data directory is a segment's directory, with files in it. */
bool chroma_is_segment(int dirfd, const char *name);

/* Whether a name could be a segment's directory: a UUID in its usual spelling. */
bool chroma_is_uuid(const char *name);

#define CHROMA_ALIAS_SIZE 256
/* The path from the data directory that a segment's directory has been given instead of its own.
 * db: to know it by its ids; NULL: only by its name. */
bool chroma_find_alias(sqlite3 *db, int dirfd, const char *segment, char *out, size_t room);
int chroma_open_alias(int dirfd, const char *alias);
/* Likewise a file of an index, in its directory. */
bool chroma_find_file_alias(int dirfd, const char *file, char *out, size_t room);

#endif
