/* SPDX-License-Identifier: MIT
 *
 * A transaction of the METADATA segment that is there by half: its mark says that the queue has
 * been applied, but rows of the records are as they were, or lost. The queue still has all that the
 * VECTOR segment has not persisted: with the mark set back to that segment's, Chroma applies it
 * again. That changes nothing where it had been applied.
 */
#include <string.h>

#include "core/recover/internal.h"

struct replay {
	struct recovery *r;
	bool only_half; /* where a deletion is known to be there by half */
	int64_t again;	/* collections */
};

static int run_for(struct replay *p, const char *sql, const struct chroma_collection *c,
		   int64_t *out)
{
	sqlite3_stmt *s = NULL;
	int error = database_prepare(p->r->db, &s, sql);
	int count = error == 0 ? sqlite3_bind_parameter_count(s) : 0;

	if (error == 0)
		sqlite3_bind_text(s, 1, c->metadata_segment, -1, SQLITE_STATIC);
	if (count >= 2)
		sqlite3_bind_text(s, 2, c->vector_segment, -1, SQLITE_STATIC);
	if (count >= 3)
		sqlite3_bind_text(s, 3, c->topic, -1, SQLITE_STATIC);
	if (count >= 4)
		sqlite3_bind_int64(s, 4, (sqlite3_int64)c->vector_mark.value);
	if (count >= 5)
		sqlite3_bind_int64(s, 5, (sqlite3_int64)c->metadata_mark.value);
	if (error == 0)
		error = database_step(s);
	if (error == 1 && out)
		*out = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return error < 0 ? error : 0;
}

static int set_back(void *context, const struct chroma_collection *c)
{
	static const char waiting[] =
	    "SELECT count(*) FROM embeddings_queue WHERE topic = ?3 AND seq_id > ?4 AND seq_id <= "
	    "?5 AND ?1 IS NOT ?2";
	static const char half[] = "SELECT count(*) FROM (" CHROMA_HALF_DELETED ") WHERE ?2 <> ''";
	struct replay *p = context;
	int64_t rows = 0;
	int error;

	if (c->metadata_mark.type == SQLITE_NULL ||
	    c->metadata_mark.value >= CHROMA_MARK_POISONED ||
	    c->vector_mark.value >= CHROMA_MARK_POISONED)
		return 0;
	error = run_for(p, p->only_half ? half : waiting, c, &rows);
	if (error < 0 || rows == 0)
		return error;
	p->again++;
	if (c->vector_mark.type == SQLITE_NULL)
		return run_for(p, "DELETE FROM max_seq_id WHERE segment_id = ?1", c, NULL);
	return run_for(p,
		       "UPDATE max_seq_id SET seq_id = (SELECT seq_id FROM max_seq_id WHERE "
		       "segment_id = ?2) WHERE segment_id = ?1",
		       c, NULL);
}

int recover_replay(struct recovery *r, bool only_half, int64_t *again_out)
{
	struct replay p = {.r = r, .only_half = only_half};
	int error = chroma_each_collection(r->db, set_back, &p);

	*again_out = p.again;
	return error;
}
