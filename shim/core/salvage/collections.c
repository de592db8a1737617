/* SPDX-License-Identifier: MIT
 *
 * Collections whose own row is lost, while their records are there: what nobody else has the row of
 * gets one that is made up, with a name that says so.
 */
#include <errno.h>
#include <unistd.h>

#include "core/chroma/chroma.h"
#include "core/salvage/salvage.h"
#include "core/segment/hnsw.h"

static const char without_row[] = CHROMA_WITHOUT_ROW;

#define LACKS(table) "coalesce((SELECT lacks FROM damage WHERE name = '" table "'), 0)"
static const char queued[] = " UNION SELECT substr(topic, -36) FROM embeddings_queue WHERE " LACKS(
    "collections") " AND " LACKS("segments") " AND substr(topic, -37, 1) = '/' AND substr(topic, "
					     "-36) "
					     "NOT IN (SELECT id FROM collections)";

/* temp.lost_collection: those that must have a row, and have none. */
static int list_lost(struct salvage *s, int64_t *count_out)
{
	char *sql = sqlite3_mprintf(
	    "CREATE TEMP TABLE IF NOT EXISTS lost_collection(id TEXT PRIMARY "
	    "KEY); DELETE FROM lost_collection; INSERT INTO "
	    "lost_collection %s%s",
	    s->is_traced ? CHROMA_TRACED " UNION SELECT collection FROM temp.unlisted WHERE "
					 "collection NOT IN (SELECT id FROM collections)"
			 : without_row,
	    queued);
	int error = sql ? salvage_sql(s, sql) : -ENOMEM;

	sqlite3_free(sql);
	return error < 0 ? error
			 : database_number(s->to, "SELECT count(*) FROM lost_collection", NULL,
					   count_out);
}

/* What a collection is made up of. */
struct made_up {
	int64_t dimension; /* 0: not known */
	int space;	   /* enum chroma_space, or how far it can be told */
};

static void look_at_index(int dirfd, const char *segment, struct made_up *m)
{
	int fd = file_open_directory_at(dirfd, segment);
	struct hnsw_header header;

	if (fd < 0)
		return;
	if (hnsw_header_read(fd, &header) == 0 &&
	    !(hnsw_header_check(&header) & HNSW_FAULT_LAYOUT)) {
		m->dimension = (int64_t)hnsw_dimension(&header);
		m->space = chroma_space_of_files(fd, &header);
	}
	close(fd);
}

/* Of its index, else of the vectors in the queue; Chroma below 1.0 has the space in other rows. */
static void find_settings(struct salvage *s, const char *collection, struct made_up *m)
{
	sqlite3_stmt *row = NULL;
	int64_t told = 0;

	*m = (struct made_up){.space = CHROMA_SPACE_OPEN};
	if (database_prepare(s->to, &row,
			     "SELECT id FROM segments WHERE scope = 'VECTOR' AND collection = ?") ==
	    0) {
		sqlite3_bind_text(row, 1, collection, -1, SQLITE_STATIC);
		if (database_step(row) == 1)
			look_at_index(s->dirfd, (const char *)sqlite3_column_text(row, 0), m);
	}
	sqlite3_finalize(row);
	if (!m->dimension)
		database_number(s->to,
				"SELECT length(vector) / 4 FROM embeddings_queue WHERE vector "
				"IS NOT NULL AND substr(topic, -36) = ?1",
				collection, &m->dimension);
	database_number(
	    s->to,
	    "SELECT (SELECT count(*) FROM segment_metadata WHERE key = 'hnsw:space' AND "
	    "segment_id IN (SELECT id FROM segments WHERE collection = ?1)) + (SELECT "
	    "count(*) FROM collection_metadata WHERE key = 'hnsw:space' AND "
	    "collection_id = ?1)",
	    collection, &told);
	if (told)
		m->space = CHROMA_L2; /* what those rows tell counts */
}

/* What a release has in other columns may be left out. */
static int make_up(struct salvage *s, const char *collection)
{
	bool has_topic = database_has_column(s->to, "collections", "topic") == 1;
	bool has_database = database_has_column(s->to, "collections", "database_id") == 1;
	char *topic = sqlite3_mprintf(has_topic ? ", '" CHROMA_TOPIC_PREFIX "%q'" : "", collection);
	struct made_up m;
	char *sql;
	int error;

	find_settings(s, collection, &m);
	sql = sqlite3_mprintf(
	    "INSERT OR IGNORE INTO collections(id, name, dimension%s%s) SELECT %Q, 'lost-' || %Q, "
	    "nullif(%lld, 0)%s%s",
	    has_topic ? ", topic" : "", has_database ? ", database_id" : "", collection, collection,
	    m.dimension, topic,
	    has_database ? ", coalesce((SELECT id FROM databases ORDER BY name <> "
			   "'default_database' LIMIT 1), '00000000-0000-0000-0000-000000000000')"
			 : "");
	error = sql ? salvage_sql(s, sql) : -ENOMEM;
	if (error == 0 && m.space == CHROMA_COSINE)
		error = chroma_make_cosine(s->to, collection);
	if (error == 0)
		salvage_say(s, collection,
			    "its name and settings are lost: it is called 'lost-%.36s'%s",
			    collection,
			    m.space == CHROMA_COSINE ? ", and its distance is cosine, as its "
						       "index tells"
			    : m.space == CHROMA_L2   ? ""
						     : ", and its distance is taken for l2");
	s->nameless += error == 0;
	sqlite3_free(sql);
	sqlite3_free(topic);
	return error;
}

static int make_up_all(struct salvage *s)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(s->to, &rows, "SELECT id FROM lost_collection");

	while (error == 0 && (error = database_step(rows)) == 1)
		error = make_up(s, (const char *)sqlite3_column_text(rows, 0));
	sqlite3_finalize(rows);
	return error;
}

/* Chroma's default ones are always there; others can only be told by their ids. */
static int make_up_databases(struct salvage *s)
{
	int64_t lacks;
	int error = database_number(
	    s->to, "SELECT count(*) FROM damage WHERE lacks AND name IN ('tenants', 'databases')",
	    NULL, &lacks);

	if (error < 0 || (!lacks && (s->has_schema || s->is_traced)) ||
	    database_has_table(s->to, "databases") != 1)
		return error;
	return salvage_sql(
	    s, "INSERT OR IGNORE INTO tenants(id) VALUES ('default_tenant');"
	       "INSERT OR IGNORE INTO databases(id, name, tenant_id) VALUES "
	       "('00000000-0000-0000-0000-000000000000', 'default_database', 'default_tenant');"
	       "INSERT OR IGNORE INTO tenants(id) SELECT DISTINCT tenant_id FROM databases;"
	       "INSERT OR IGNORE INTO databases(id, name, tenant_id) SELECT DISTINCT database_id, "
	       "'lost-' || database_id, 'default_tenant' FROM collections");
}

/* Asked for elsewhere also where nothing here tells of any: all that did may be lost. */
int salvage_collections(struct salvage *s)
{
	int64_t lost, lacks = 0;
	int error = list_lost(s, &lost);

	if (error == 0)
		error = database_number(s->to,
					"SELECT count(*) FROM damage WHERE lacks AND name IN "
					"('collections', 'segments', 'databases', 'tenants')",
					NULL, &lacks);
	if (error == 0 && (lost || lacks) && s->help && s->help->find_collections)
		error = s->help->find_collections(s->help->context, s);
	if (error == 0)
		error = make_up_databases(s);
	if (error == 0)
		error = list_lost(s, &lost);
	return error < 0 ? error : make_up_all(s);
}

int salvage_traced_collections(struct salvage *s)
{
	s->is_traced = true;
	return salvage_collections(s);
}
