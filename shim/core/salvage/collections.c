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

/* A collection that segments tell of, a segment that records tell of. */
const char salvage_lacking[] =
    "SELECT (SELECT count(*) FROM segments WHERE collection NOT IN (SELECT id FROM collections)) + "
    "(SELECT count(*) FROM (SELECT DISTINCT segment_id FROM embeddings) WHERE segment_id NOT IN "
    "(SELECT id FROM segments))";

static int64_t dimension_of(int dirfd, const char *segment)
{
	int fd = file_open_directory_at(dirfd, segment);
	struct hnsw_header header;
	int64_t dimension = 0;

	if (fd < 0)
		return 0;
	if (hnsw_header_read(fd, &header) == 0)
		dimension = (int64_t)hnsw_dimension(&header);
	close(fd);
	return dimension;
}

/* Of the vectors in the queue, or in the index; 0: not known. */
static int64_t find_dimension(struct salvage *s, const char *collection)
{
	sqlite3_stmt *row = NULL;
	int64_t dimension = 0;
	int error = database_number(s->to,
				    "SELECT length(vector) / 4 FROM embeddings_queue WHERE vector "
				    "IS NOT NULL AND substr(topic, -36) = ?1",
				    collection, &dimension);

	if (error == 0 && !dimension)
		error = database_prepare(
		    s->to, &row,
		    "SELECT id FROM segments WHERE scope = 'VECTOR' AND collection = ?");
	if (row)
		sqlite3_bind_text(row, 1, collection, -1, SQLITE_STATIC);
	if (row && database_step(row) == 1)
		dimension = dimension_of(s->dirfd, (const char *)sqlite3_column_text(row, 0));
	sqlite3_finalize(row);
	return dimension;
}

/* What a release has in other columns may be left out. */
static int make_up(struct salvage *s, const char *collection)
{
	bool has_topic = database_has_column(s->to, "collections", "topic") == 1;
	bool has_database = database_has_column(s->to, "collections", "database_id") == 1;
	char *topic = sqlite3_mprintf(has_topic ? ", '" CHROMA_TOPIC_PREFIX "%q'" : "", collection);
	char *sql = sqlite3_mprintf(
	    "INSERT OR IGNORE INTO collections(id, name, dimension%s%s) SELECT %Q, 'lost-' || %Q, "
	    "nullif(%lld, 0)%s%s",
	    has_topic ? ", topic" : "", has_database ? ", database_id" : "", collection, collection,
	    find_dimension(s, collection), topic,
	    has_database ? ", coalesce((SELECT id FROM databases ORDER BY name <> "
			   "'default_database' LIMIT 1), '00000000-0000-0000-0000-000000000000')"
			 : "");
	int error = sql ? salvage_sql(s, sql) : -ENOMEM;

	if (error == 0)
		salvage_say(s, collection,
			    "its name and settings are lost: it is called 'lost-%.36s', and its "
			    "distance is taken for l2",
			    collection);
	sqlite3_free(sql);
	sqlite3_free(topic);
	return error;
}

static int make_up_all(struct salvage *s)
{
	sqlite3_stmt *rows = NULL;
	int error =
	    salvage_sql(s, "CREATE TEMP TABLE lost_collection AS SELECT DISTINCT collection "
			   "AS id FROM segments WHERE collection NOT IN (SELECT id FROM "
			   "collections)");

	if (error == 0)
		error = database_prepare(s->to, &rows, "SELECT id FROM lost_collection");
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

	if (error < 0 || (!lacks && s->has_schema) || database_has_table(s->to, "databases") != 1)
		return error;
	return salvage_sql(
	    s, "INSERT OR IGNORE INTO tenants(id) VALUES ('default_tenant');"
	       "INSERT OR IGNORE INTO databases(id, name, tenant_id) VALUES "
	       "('00000000-0000-0000-0000-000000000000', 'default_database', 'default_tenant');"
	       "INSERT OR IGNORE INTO tenants(id) SELECT DISTINCT tenant_id FROM databases;"
	       "INSERT OR IGNORE INTO databases(id, name, tenant_id) SELECT DISTINCT database_id, "
	       "'lost-' || database_id, 'default_tenant' FROM collections");
}

int salvage_collections(struct salvage *s)
{
	int64_t lacks, nameless = 0;
	int error = make_up_databases(s);

	if (error == 0)
		error = database_number(s->to, salvage_lacking, NULL, &lacks);
	if (error == 0 && lacks && s->help && s->help->find_collections) {
		error = s->help->find_collections(s->help->context, s);
		if (error == 0)
			error = database_number(s->to, salvage_lacking, NULL, &lacks);
	}
	if (error == 0 && lacks)
		error = make_up_all(s);
	if (error == 0 && lacks)
		error =
		    database_number(s->to,
				    "SELECT count(*) FROM embeddings WHERE segment_id NOT IN "
				    "(SELECT id FROM segments) AND EXISTS (SELECT 1 FROM damage "
				    "WHERE lacks AND name = 'segments')",
				    NULL, &nameless);
	if (error == 0 && nameless)
		salvage_say(s, NULL,
			    "%lld records belong to collections of which nothing else is left",
			    (long long)nameless);
	return error;
}
