/* SPDX-License-Identifier: MIT
 *
 * Ids about which the two maps of a pickle contradict each other. Which map is right cannot be
 * told, so the vector of such an id may be another record's: it is not given back, unless it comes
 * from the queue.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "core/recover/internal.h"
#include "core/segment/pickle.h"

static int note_pair(void *context, enum pickle_map map, const char *id, size_t size, int64_t label)
{
	sqlite3_stmt *put = context;
	int error;

	if (map != PICKLE_ID_TO_LABEL && map != PICKLE_LABEL_TO_ID)
		return 0;
	sqlite3_bind_int(put, 1, (int)map);
	sqlite3_bind_int64(put, 2, label);
	sqlite3_bind_text(put, 3, id, (int)size, SQLITE_STATIC);
	error = database_step(put);
	sqlite3_reset(put);
	return error;
}

static int read_pairs(struct recovery *r, const char *segment)
{
	struct pickle_index index;
	struct file_source source;
	sqlite3_stmt *put = NULL;
	int dirfd = file_follow_directory_at(r->dirfd, segment);
	int fd = dirfd < 0 ? dirfd : file_open_at(dirfd, PICKLE_FILE);
	int error = fd < 0 ? fd : file_source_open(&source, fd);

	if (error == 0)
		error = database_prepare(r->db, &put, "INSERT INTO temp.pair VALUES (?, ?, ?)");
	if (error == 0)
		error = pickle_read_index(&source, note_pair, put, &index);
	sqlite3_finalize(put);
	if (fd >= 0)
		close(fd);
	if (dirfd >= 0)
		close(dirfd);
	return error;
}

int recover_drop_contradictions(struct recovery *r, const struct chroma_collection *c,
				uint64_t *dropped_out)
{
	static const char drop[] =
	    "DELETE FROM temp.given WHERE id IN (SELECT f.id FROM temp.pair f JOIN temp.pair b ON "
	    "b.label = f.label AND b.map = 1 WHERE f.map = 0 AND b.id <> f.id) AND id NOT IN "
	    "(SELECT id FROM embeddings_queue WHERE topic = ? AND vector IS NOT NULL)";
	sqlite3_stmt *s = NULL;
	int error;

	_Static_assert(PICKLE_ID_TO_LABEL == 0 && PICKLE_LABEL_TO_ID == 1, "numbers in the SQL");
	*dropped_out = 0;
	error = recover_sql(r, "DROP TABLE IF EXISTS temp.pair; SAVEPOINT pairs; CREATE TEMP TABLE "
			       "pair(map INTEGER, label INTEGER, id TEXT)");
	/* What can be read of it counts; a pickle that lacks has no contradictions. */
	if (error == 0 && read_pairs(r, c->vector_segment) == -ENOMEM)
		error = -ENOMEM;
	if (error == 0)
		error = recover_sql(r, "CREATE INDEX temp.pair_label ON pair(label, map); "
				       "RELEASE pairs");
	if (error == 0)
		error = database_prepare(r->db, &s, drop);
	if (error < 0)
		return error;
	sqlite3_bind_text(s, 1, c->topic, -1, SQLITE_STATIC);
	error = database_step(s);
	sqlite3_finalize(s);
	if (error < 0)
		return error;
	*dropped_out = (uint64_t)sqlite3_changes64(r->db);
	return 0;
}
