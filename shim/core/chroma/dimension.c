/* SPDX-License-Identifier: MIT
 *
 * The dimension of a collection, told by its vectors.
 */
#include <errno.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"
#include "core/sqlite/database.h"

/* Of an index with elements; 0: there is none, or its header is damaged. */
static int64_t of_index(int dirfd, const char *segment)
{
	int segmentfd = segment[0] ? file_follow_directory_at(dirfd, segment) : -ENOENT;
	struct hnsw_header h;
	int r;

	if (segmentfd < 0)
		return 0;
	r = hnsw_header_read(segmentfd, &h);
	close(segmentfd);
	return r == 0 && h.count > 0 ? (int64_t)hnsw_dimension(&h) : 0;
}

/*
 * If the first of its vectors, which are so many at least, have the same; 0: they have not. Who has
 * no records is not looked for in the queue, which is read from end to end for it.
 */
static int64_t of_queue(sqlite3 *db, const struct chroma_collection *c, int least)
{
	static const char sql[] =
	    "SELECT min(length(vector)), max(length(vector)), count(*) FROM (SELECT vector FROM "
	    "embeddings_queue WHERE EXISTS (SELECT 1 FROM embeddings WHERE segment_id = ?2) AND "
	    "topic = ?1 AND typeof(vector) = 'blob' LIMIT 100)";
	sqlite3_stmt *row = NULL;
	int64_t size = 0;

	if (database_prepare(db, &row, sql) == 0) {
		sqlite3_bind_text(row, 1, c->topic, -1, SQLITE_STATIC);
		sqlite3_bind_text(row, 2, c->metadata_segment, -1, SQLITE_STATIC);
		if (database_step(row) == 1 && sqlite3_column_int64(row, 2) >= least &&
		    sqlite3_column_int64(row, 0) == sqlite3_column_int64(row, 1))
			size = sqlite3_column_int64(row, 0);
	}
	sqlite3_finalize(row);
	return size % (int64_t)sizeof(float) == 0 ? size / (int64_t)sizeof(float) : 0;
}

int64_t chroma_lost_dimension(sqlite3 *db, int dirfd, const struct chroma_collection *c)
{
	int64_t index = of_index(dirfd, c->vector_segment), queue;

	if (c->dimension <= 0)
		return index ? index : of_queue(db, c, 1);
	if (index == c->dimension)
		return 0;
	queue = of_queue(db, c, index ? 1 : 2); /* of one alone the vector may be damaged */
	return queue != c->dimension && (!index || queue == index) ? queue : 0;
}
