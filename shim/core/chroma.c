/* SPDX-License-Identifier: MIT
 *
 * Collections and their segments, from every schema since 0.4.0.
 */
#include "core/chroma.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/database.h"

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
#define VECTOR "(SELECT id FROM segments WHERE collection = c.id AND scope = 'VECTOR')"
#define METADATA "(SELECT id FROM segments WHERE collection = c.id AND scope = 'METADATA')"
#define HNSW(name)                                                                                \
	"coalesce(%s, %s, (SELECT %s FROM segment_metadata WHERE segment_id = " VECTOR            \
	" AND key = 'hnsw:" name "'), (SELECT %s FROM collection_metadata WHERE collection_id = " \
	"c.id AND key = 'hnsw:" name "'))"
#define JSON(column, path) \
	"CASE WHEN json_valid(c." column ") THEN json_extract(c." column ", '" path "') END"
#define IN_SCHEMA "$.keys.\"#embedding\".float_list.vector_index.config."
	snprintf(sql, room,
		 "SELECT c.id, c.name, c.dimension, %s, " VECTOR ", " METADATA ", "
		 "(SELECT seq_id FROM max_seq_id WHERE segment_id = " VECTOR "), "
		 "(SELECT seq_id FROM max_seq_id WHERE segment_id = " METADATA "), "
		 "%s, " HNSW("space") ", " HNSW("sync_threshold") " FROM collections c %s "
								  "ORDER BY c.rowid",
		 databases ? "d.name, d.tenant_id" : "NULL, NULL", topic ? "c.topic" : "NULL",
		 schema ? JSON("schema_str", IN_SCHEMA "space") : "NULL",
		 config ? JSON("config_json_str", "$.vector_index.hnsw.space") : "NULL",
		 "str_value", "str_value",
		 schema ? JSON("schema_str", IN_SCHEMA "hnsw.sync_threshold") : "NULL",
		 config ? JSON("config_json_str", "$.vector_index.hnsw.sync_threshold") : "NULL",
		 "int_value", "int_value",
		 databases ? "LEFT JOIN databases d ON d.id = c.database_id" : "");
	return 0;
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

static void get_collection(struct chroma_collection *c, sqlite3_stmt *row)
{
	const char *space = (const char *)sqlite3_column_text(row, 10);

	*c = (struct chroma_collection){0};
	copy_text(c->id, sizeof(c->id), row, 0);
	c->name = (const char *)sqlite3_column_text(row, 1);
	c->dimension = sqlite3_column_int64(row, 2);
	c->database = (const char *)sqlite3_column_text(row, 3);
	c->tenant = (const char *)sqlite3_column_text(row, 4);
	copy_text(c->vector_segment, sizeof(c->vector_segment), row, 5);
	copy_text(c->metadata_segment, sizeof(c->metadata_segment), row, 6);
	c->vector_mark = get_mark(row, 7);
	c->metadata_mark = get_mark(row, 8);
	copy_text(c->topic, sizeof(c->topic), row, 9);
	if (!c->topic[0])
		snprintf(c->topic, sizeof(c->topic), CHROMA_TOPIC_PREFIX "%s", c->id);
	c->space = space && strcmp(space, "cosine") == 0 ? CHROMA_COSINE
		   : space && strcmp(space, "ip") == 0	 ? CHROMA_IP
							 : CHROMA_L2;
	c->sync_threshold = sqlite3_column_int64(row, 11);
	if (c->sync_threshold <= 0)
		c->sync_threshold = CHROMA_SYNC_THRESHOLD;
	if (!c->name)
		c->name = "";
}

int chroma_each_collection(sqlite3 *db, chroma_collection_fn *each, void *context)
{
	struct chroma_collection collection;
	sqlite3_stmt *rows = NULL;
	char sql[4096];
	int r = make_query(db, sql, sizeof(sql));

	if (r == 0)
		r = database_prepare(db, &rows, sql);
	while (r == 0 && (r = database_step(rows)) == 1) {
		get_collection(&collection, rows);
		r = each(context, &collection);
	}
	sqlite3_finalize(rows);
	return r;
}
