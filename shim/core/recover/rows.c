/* SPDX-License-Identifier: MIT
 *
 * Rows without which Chroma does not find a collection, and settings that it cannot read.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "core/recover/internal.h"
#include "core/segment/hnsw.h"

/* As Chroma's migrations make them. */
#define DEFAULT_DATABASE "'00000000-0000-0000-0000-000000000000'"
#define DEFAULT_TENANT "'default_tenant'"

/* What a release does not have is passed over. */
static const struct {
	const char *sql, *said;
} mended[] = {
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

static int mend_dimension(struct recovery *r, const char *segment)
{
	int dirfd = file_follow_directory_at(r->dirfd, segment);
	int fd = dirfd < 0 ? dirfd : file_open_at(dirfd, HNSW_HEADER_FILE);
	unsigned char raw[HNSW_HEADER_SIZE];
	struct hnsw_header h;
	char dimension[24];
	int error = 0;

	if (fd >= 0 && file_read_at(fd, raw, sizeof(raw), 0) == (ssize_t)sizeof(raw) &&
	    hnsw_header_parse(&h, raw, sizeof(raw)) == 0) {
		snprintf(dimension, sizeof(dimension), "%" PRIu64, hnsw_dimension(&h));
		error = RECOVER_CHANGE(r,
				       "UPDATE collections SET dimension = CAST(?1 AS INTEGER) "
				       "WHERE id = (SELECT collection FROM segments WHERE id = ?2)",
				       dimension, segment);
		r->healed += error == 0;
		recover_say(
		    r, RECOVER_SEGMENTS, NULL,
		    "the dimension of the collection with the vectors %.36s is %s again, as "
		    "its index has it",
		    segment, dimension);
	}
	if (fd >= 0)
		close(fd);
	if (dirfd >= 0)
		close(dirfd);
	return error;
}

int recover_rows(struct recovery *r)
{
	sqlite3_stmt *known = NULL;
	int error = 0;
	size_t i;

	for (i = 0; i < sizeof(mended) / sizeof(mended[0]) && error == 0; i++) {
		if (database_prepare(r->db, &known, mended[i].sql) < 0)
			continue;
		sqlite3_finalize(known);
		error = recover_sql(r, mended[i].sql);
		if (error < 0 || sqlite3_changes64(r->db) == 0)
			continue;
		r->healed++;
		recover_say(r, RECOVER_SEGMENTS, NULL, "%" PRId64 " %s",
			    (int64_t)sqlite3_changes64(r->db), mended[i].said);
	}
	for (i = 0; i < r->judgement->count && error == 0; i++)
		if (r->judgement->list[i].code == DIAGNOSE_DIMENSION_LOST)
			error = mend_dimension(r, r->judgement->list[i].segment);
	return error;
}
