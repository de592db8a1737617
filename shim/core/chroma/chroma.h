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

/* Records that the queue has made (?3 the topic) and not deleted since, and of which the METADATA
 * segment (?1), which has applied all that it has of them (its mark: ?5), has no row. */
#define CHROMA_LOST_RECORDS                                                                      \
	"SELECT id, first FROM (SELECT id, min(seq_id) AS first, max(seq_id) AS last, max(CASE " \
	"operation WHEN 3 THEN seq_id ELSE 0 END) AS gone, max(CASE WHEN operation IN (0, 2) "   \
	"THEN seq_id ELSE 0 END) AS made FROM embeddings_queue WHERE topic = ?3 GROUP BY id) q " \
	"WHERE made > gone AND last <= ?5 AND NOT EXISTS (SELECT 1 FROM embeddings e WHERE "     \
	"e.segment_id = ?1 AND e.embedding_id = q.id)"

/* An expression: whether row m of collection_metadata, with an hnsw:* key, is one that Chroma 0.5.4
 * to 0.6.3 takes. */
#define CHROMA_PARAMETER_FITS                                                                   \
	"CASE m.key WHEN 'hnsw:space' THEN coalesce(m.str_value IN ('l2', 'cosine', 'ip'), 0) " \
	"WHEN 'hnsw:construction_ef' THEN m.int_value NOTNULL WHEN 'hnsw:search_ef' THEN "      \
	"m.int_value NOTNULL WHEN 'hnsw:M' THEN m.int_value NOTNULL WHEN 'hnsw:num_threads' "   \
	"THEN m.int_value NOTNULL WHEN 'hnsw:resize_factor' THEN coalesce(m.int_value, "        \
	"m.float_value) NOTNULL WHEN 'hnsw:batch_size' THEN coalesce(m.int_value > 2, 0) WHEN " \
	"'hnsw:sync_threshold' THEN coalesce(m.int_value > 2, 0) ELSE 0 END"

/* An expression: whether segment s, of vectors, has lost its settings, by which Chroma before 1.0
 * goes; later ones do not use them. */
#define CHROMA_SPACE_LOST                                                                       \
	"EXISTS (SELECT 1 FROM collection_metadata m WHERE m.collection_id = s.collection AND " \
	"m.key = 'hnsw:space') AND NOT EXISTS (SELECT 1 FROM segment_metadata n WHERE "         \
	"n.segment_id = s.id) AND (SELECT max(version) FROM migrations WHERE dir = 'metadb') < 5"

/* An expression: whether a column is a UUID in a spelling that Chroma reads. */
#define CHROMA_IS_UUID(column)                                                                 \
	"coalesce(length(replace(" column ", '-', '')) = 32 AND replace(" column ", '-', '') " \
	"NOT GLOB '*[^0-9a-fA-F]*', 0)"
/* Of a row of collections: a name by which Chroma finds it; and one that Chroma gives. */
#define CHROMA_NAME_FITS "(typeof(name) = 'text' AND name <> '' AND mended_text(name, '_') ISNULL)"
#define CHROMA_NAME_ALLOWED                                                                     \
	"(length(name) BETWEEN 3 AND 512 AND name GLOB '[a-zA-Z0-9]*[a-zA-Z0-9]' AND name NOT " \
	"GLOB "                                                                                 \
	"'*[^a-zA-Z0-9._-]*')"

/* Of a row of collections with a schema_str, and of segments. */
#define CHROMA_SCHEMA_FITS                                                                      \
	"CASE WHEN json_valid(schema_str) THEN json_type(schema_str, '$.keys') = 'object' AND " \
	"json_type(schema_str, '$.defaults') = 'object' ELSE 0 END IS 1"
#define CHROMA_SEGMENT_TYPE_FITS "type GLOB 'urn:chroma:segment/*'"
#define CHROMA_SEGMENT_SCOPE_FITS "scope IN ('VECTOR', 'METADATA', 'RECORD', 'SQLITE')"
/* Of a row of embeddings_queue_config: Chroma >= 1.0 reads it. */
#define CHROMA_QUEUE_CONFIG_FITS                                                 \
	"CASE WHEN json_valid(config_json_str) THEN json_type(config_json_str, " \
	"'$.automatically_purge') IN ('true', 'false') ELSE 0 END IS 1"

/* Queries: ids of collections that segments tell of and that have no row; those of them that have
 * left a trace besides. So Chroma below 1.0 leaves them when a whole database is deleted, later
 * ones without a trace. */
#define CHROMA_WITHOUT_ROW                                                             \
	"SELECT DISTINCT s.collection FROM segments s WHERE s.collection NOTNULL AND " \
	"s.collection NOT IN (SELECT id FROM collections)"
#define CHROMA_TRACED                                                                      \
	CHROMA_WITHOUT_ROW                                                                 \
	" AND (EXISTS (SELECT 1 FROM embeddings e WHERE e.segment_id = s.id) OR EXISTS "   \
	"(SELECT 1 FROM max_seq_id m WHERE m.segment_id = s.id) OR EXISTS (SELECT 1 FROM " \
	"embeddings_queue q WHERE substr(q.topic, -36) = s.collection))"

/* A mark's value as it was before it was poisoned; others as they are. */
uint64_t chroma_mark_restore(uint64_t value);

/* 1 if a collection has this segment, 0 if none has, or -errno: the database cannot tell. */
int chroma_has_segment(sqlite3 *db, const char *id);

/* CHROMA_L2 if it is NULL or unknown, as Chroma has it. */
enum chroma_space chroma_space_of(const char *name);
extern const char *const chroma_space_names[3]; /* by enum chroma_space */
struct hnsw_header;
/* As far as the files of an index in that directory tell it (space.c); otherwise enum chroma_space.
 */
#define CHROMA_SPACE_OPEN (-1)	   /* not at all */
#define CHROMA_SPACE_L2_OR_IP (-2) /* not cosine: its vectors are of all lengths */
int chroma_space_of_files(int dirfd, const struct hnsw_header *header);
/* Of a collection whose row is made up: where its release looks for it, unless that tells one. */
int chroma_make_cosine(sqlite3 *db, const char *collection);

/*
 * The dimension of its vectors where its row has another one, or none: 0 if that is right, or if
 * nothing tells. A row that has one is wrong only if index and queue both say so, and agree; or two
 * rows of the queue, where there is no index yet.
 */
int64_t chroma_lost_dimension(sqlite3 *db, int dirfd, const struct chroma_collection *c);

/* Whether `name` in a data directory is a segment's directory, with files in it. */
bool chroma_is_segment(int dirfd, const char *name);

/* Whether a name could be a segment's directory: a UUID in its usual spelling. */
bool chroma_is_uuid(const char *name);

/* Whether each release of Chroma would make a collection of that name. */
bool chroma_is_collection_name(const char *name);
#define CHROMA_NAME_RULE "3 to 63 letters, digits, '.', '_', '-'"

#define CHROMA_ALIAS_SIZE 256
/* The path from the data directory that a segment's directory has been given instead of its own.
 * db: to know it by its ids; NULL: only by its name. */
bool chroma_find_alias(sqlite3 *db, int dirfd, const char *segment, char *out, size_t room);
int chroma_open_alias(int dirfd, const char *alias);
/* Else a segment's directory is as good as missing: its files may be in another. */
bool chroma_holds_files(int dirfd);
/* Likewise a file of an index, in its directory. */
bool chroma_find_file_alias(int dirfd, const char *file, char *out, size_t room);

#endif
