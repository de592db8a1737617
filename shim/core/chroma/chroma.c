/* SPDX-License-Identifier: MIT
 *
 * Collections and their segments, from every schema since 0.4.0.
 */
#include "core/chroma/chroma.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/segment/hnsw.h"
#include "core/sqlite/database.h"

bool chroma_is_uuid(const char *name)
{
	int i;

	for (i = 0; i < 36; i++) {
		bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (is_dash ? name[i] != '-' : !isxdigit((unsigned char)name[i]))
			return false;
	}
	return name[36] == '\0';
}

bool chroma_is_collection_name(const char *name)
{
	size_t n = strlen(name), i;

	for (i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) &&
		    (i == 0 || i == n - 1 || !strchr("._-", name[i])))
			return false;
	return n >= 3 && n <= 63;
}

bool chroma_is_segment(int dirfd, const char *name)
{
	int fd = chroma_is_uuid(name) ? file_follow_directory_at(dirfd, name) : -1;
	bool found = fd >= 0 && faccessat(fd, HNSW_HEADER_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	if (fd >= 0)
		close(fd);
	return found;
}

int chroma_has_segment(sqlite3 *db, const char *id)
{
	int64_t found;
	int r = database_number(db, "SELECT count(*) FROM segments WHERE id = ?", id, &found);

	return r < 0 ? r : found > 0;
}

const char *const chroma_space_names[3] = {
    [CHROMA_L2] = "l2", [CHROMA_COSINE] = "cosine", [CHROMA_IP] = "ip"};

enum chroma_space chroma_space_of(const char *name)
{
	int i;

	for (i = CHROMA_L2; name && i <= CHROMA_IP; i++)
		if (strcmp(name, chroma_space_names[i]) == 0)
			return (enum chroma_space)i;
	return CHROMA_L2;
}

/*
 * The migration took a number's decimal digits for the bytes of a BLOB, and padded them in front
 * with 0x11: 502498 became 0x1111353032343938.
 */
uint64_t chroma_mark_restore(uint64_t value)
{
	uint64_t result = 0;
	int shift;

	if (value < CHROMA_MARK_POISONED)
		return value;
	for (shift = 56; shift >= 0; shift -= 8) {
		unsigned digit = (unsigned)(value >> shift) & 0xff;

		if (digit == 0x11 && result == 0)
			continue;
		if (digit < '0' || digit > '9')
			return value;
		result = result * 10 + digit - '0';
	}
	return result;
}

#define VALID(column, value) "CASE WHEN json_valid(c." column ") THEN " value " END"
#define JSON(column, path) VALID(column, "json_extract(c." column ", '" path "')")
#define IN_SCHEMA "$.keys.\"#embedding\".float_list.vector_index.config."
#define IN_CONFIG "$.vector_index.hnsw."

/*
 * The settings have moved with the releases: schema_str (1.3.0), config_json_str (1.0.0), and the
 * metadata before. The config_json_str of 0.5.4 to 0.6.3 holds defaults that were never used.
 */
static int make_query(sqlite3 *db, char *sql, size_t room)
{
	int databases = database_has_table(db, "databases");
	int config = database_has_column(db, "collections", "config_json_str");
	int schema = database_has_column(db, "collections", "schema_str");
	int topic = database_has_column(db, "collections", "topic");

	if (databases < 0 || config < 0 || schema < 0 || topic < 0)
		return databases < 0 ? databases
		       : config < 0  ? config
		       : schema < 0  ? schema
				     : topic;
#define VECTOR "?2"
#define METADATA "?3"
#define HNSW(name)                                                                                \
	"coalesce(%s, %s, (SELECT %s FROM segment_metadata WHERE segment_id = " VECTOR            \
	" AND key = 'hnsw:" name "'), (SELECT %s FROM collection_metadata WHERE collection_id = " \
	"c.id AND key = 'hnsw:" name "'))"
	snprintf(sql, room,
		 "SELECT c.id, c.name, c.dimension, %s, " VECTOR ", " METADATA ", "
		 "(SELECT seq_id FROM max_seq_id WHERE segment_id = " VECTOR "), "
		 "(SELECT seq_id FROM max_seq_id WHERE segment_id = " METADATA "), "
		 "%s, " HNSW("space") ", " HNSW("sync_threshold") " FROM collections c %s "
								  "WHERE c.id = ?1",
		 databases ? "d.name, d.tenant_id" : "NULL, NULL", topic ? "c.topic" : "NULL",
		 schema ? JSON("schema_str", IN_SCHEMA "space") : "NULL",
		 config ? JSON("config_json_str", IN_CONFIG "space") : "NULL", "str_value",
		 "str_value", schema ? JSON("schema_str", IN_SCHEMA "hnsw.sync_threshold") : "NULL",
		 config ? JSON("config_json_str", IN_CONFIG "sync_threshold") : "NULL", "int_value",
		 "int_value", databases ? "LEFT JOIN databases d ON d.id = c.database_id" : "");
	return 0;
}

/* ?1: the collection, ?2: its vector segment */
static const char index_sql[] =
    "WITH names(setting, before) AS (VALUES ('ef_construction', 'hnsw:construction_ef'), "
    "('ef_search', 'hnsw:search_ef'), ('max_neighbors', 'hnsw:M'), "
    "('num_threads', 'hnsw:num_threads'), ('batch_size', 'hnsw:batch_size'), "
    "('sync_threshold', 'hnsw:sync_threshold'), ('resize_factor', 'hnsw:resize_factor')), "
    "found AS (SELECT setting, coalesce(%s, %s, "
    "(SELECT coalesce(int_value, float_value) FROM segment_metadata "
    "WHERE segment_id = ?2 AND key = before), "
    "(SELECT coalesce(int_value, float_value) FROM collection_metadata "
    "WHERE collection_id = c.id AND key = before)) AS value "
    "FROM collections c, names WHERE c.id = ?1) "
    "SELECT setting, NULL, CASE typeof(value) WHEN 'integer' THEN value END, "
    "CASE typeof(value) WHEN 'real' THEN value END, NULL FROM found "
    "WHERE typeof(value) IN ('integer', 'real')";
#define EACH(column, at) VALID(column, "json_extract(c." column ", '" at "' || setting)")

int chroma_index_settings(sqlite3 *db, const struct chroma_collection *c, sqlite3_stmt **rows)
{
	int config = database_has_column(db, "collections", "config_json_str");
	int schema = database_has_column(db, "collections", "schema_str");
	char sql[sizeof(index_sql) + 400];
	int r;

	*rows = NULL;
	if (config < 0 || schema < 0)
		return config < 0 ? config : schema;
	snprintf(sql, sizeof(sql), index_sql,
		 schema ? EACH("schema_str", IN_SCHEMA "hnsw.") : "NULL",
		 config ? EACH("config_json_str", IN_CONFIG) : "NULL");
	r = database_prepare(db, rows, sql);
	if (r == 0) {
		sqlite3_bind_text(*rows, 1, c->id, -1, SQLITE_STATIC);
		sqlite3_bind_text(*rows, 2, c->vector_segment, -1, SQLITE_STATIC);
	}
	return r;
}

static void copy_text(char *out, size_t room, sqlite3_stmt *row, int column)
{
	const char *s = (const char *)sqlite3_column_text(row, column);

	snprintf(out, room, "%s", s ? s : "");
}

static struct chroma_mark get_mark(sqlite3_stmt *row, int column)
{
	struct chroma_mark mark;

	mark.type = database_sequence(row, column, &mark.value);
	return mark;
}

/* A copy of a column, NULL if it is NULL; false: no memory. */
static bool copy_column(char **out, sqlite3_stmt *row, int column)
{
	const char *s = (const char *)sqlite3_column_text(row, column);

	*out = s ? strdup(s) : NULL;
	return !s || *out;
}

struct names {
	char *name, *database, *tenant;
};

static int get_collection(struct chroma_collection *c, struct names *names, sqlite3_stmt *row)
{
	const char *space = (const char *)sqlite3_column_text(row, 10);

	*c = (struct chroma_collection){0};
	if (!copy_column(&names->name, row, 1) || !copy_column(&names->database, row, 3) ||
	    !copy_column(&names->tenant, row, 4))
		return -ENOMEM;
	c->name = names->name ? names->name : "";
	c->database = names->database;
	c->tenant = names->tenant;
	copy_text(c->id, sizeof(c->id), row, 0);
	c->dimension = sqlite3_column_int64(row, 2);
	copy_text(c->vector_segment, sizeof(c->vector_segment), row, 5);
	copy_text(c->metadata_segment, sizeof(c->metadata_segment), row, 6);
	c->vector_mark = get_mark(row, 7);
	c->metadata_mark = get_mark(row, 8);
	copy_text(c->topic, sizeof(c->topic), row, 9);
	if (!c->topic[0])
		snprintf(c->topic, sizeof(c->topic), CHROMA_TOPIC_PREFIX "%s", c->id);
	c->space = chroma_space_of(space);
	c->sync_threshold = sqlite3_column_int64(row, 11);
	if (c->sync_threshold <= 0)
		c->sync_threshold = CHROMA_SYNC_THRESHOLD;
	return 0;
}

/* A collection and its segments, of which neither changes while it lives. */
struct listed {
	char id[CHROMA_ID_SIZE], vector[CHROMA_ID_SIZE], metadata[CHROMA_ID_SIZE];
};

/* One collection in a read transaction of its own. */
static int chroma_visit(sqlite3 *db, sqlite3_stmt *query, const struct listed *listed,
			chroma_collection_fn *each, void *context)
{
	struct chroma_collection collection;
	struct names names = {0};
	int r = database_error(sqlite3_exec(db, "BEGIN", NULL, NULL, NULL));

	if (r < 0)
		return r;
	sqlite3_bind_text(query, 1, listed->id, -1, SQLITE_STATIC);
	sqlite3_bind_text(query, 2, listed->vector, -1, SQLITE_STATIC);
	sqlite3_bind_text(query, 3, listed->metadata, -1, SQLITE_STATIC);
	r = database_step(query); /* 0: it has been deleted meanwhile */
	if (r == 1)
		r = get_collection(&collection, &names, query) < 0 ? -ENOMEM : 1;
	sqlite3_reset(query);
	if (r == 1)
		r = each(context, &collection);
	free(names.name);
	free(names.database);
	free(names.tenant);
	sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
	return r;
}

#define HAS_MARK "(s.id IN (SELECT segment_id FROM max_seq_id))"

/*
 * All of them first, so that no lock is held from one collection to the next; and in one join,
 * since table segments has no index by collection. Where there are several rows for one thing, one
 * that was written counts.
 */
static int list_collections(sqlite3 *db, struct listed **list_out, size_t *count_out)
{
	struct listed *list = NULL, *more;
	size_t count = 0, room = 0;
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(
	    db, &rows,
	    "SELECT c.id, substr(max(CASE s.scope WHEN 'VECTOR' THEN " HAS_MARK
	    " || s.id END), 2), "
	    "substr(max(CASE s.scope WHEN 'METADATA' THEN " HAS_MARK
	    " || s.id END), 2) FROM collections c "
	    "LEFT JOIN segments s ON s.collection = c.id GROUP BY c.rowid ORDER BY c.rowid");

	while (r == 0 && (r = database_step(rows)) == 1) {
		r = 0;
		if (count == room) {
			room = room ? 2 * room : 64;
			more = realloc(list, room * sizeof(*list));
			if (!more) {
				r = -ENOMEM;
				break;
			}
			list = more;
		}
		copy_text(list[count].id, CHROMA_ID_SIZE, rows, 0);
		copy_text(list[count].vector, CHROMA_ID_SIZE, rows, 1);
		copy_text(list[count++].metadata, CHROMA_ID_SIZE, rows, 2);
	}
	sqlite3_finalize(rows);
	*list_out = list;
	*count_out = count;
	return r;
}

int chroma_each_collection(sqlite3 *db, chroma_collection_fn *each, void *context)
{
	struct listed *list = NULL;
	sqlite3_stmt *query = NULL;
	size_t count = 0, i;
	char sql[4096];
	int r = make_query(db, sql, sizeof(sql));

	if (r == 0)
		r = database_prepare(db, &query, sql);
	if (r == 0)
		r = list_collections(db, &list, &count);
	for (i = 0; r == 0 && i < count; i++)
		r = chroma_visit(db, query, &list[i], each, context);
	sqlite3_finalize(query);
	free(list);
	return r;
}
