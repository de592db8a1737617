/* SPDX-License-Identifier: MIT
 *
 * Rows of `segments` that are too many for their collection, or of a scope that there is not. What
 * was written is never taken out: of several that have something, none.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "core/recover/internal.h"

/* By the type, else by what it has, else what the collection's other segment is not. */
static const char scopes[] =
    "UPDATE segments SET scope = told.scope FROM (SELECT s.id, CASE "
    "WHEN s.type GLOB 'urn:chroma:segment/vector/*' THEN 'VECTOR' "
    "WHEN s.type GLOB 'urn:chroma:segment/metadata/*' "
    "OR EXISTS (SELECT 1 FROM embeddings e WHERE e.segment_id = s.id) THEN 'METADATA' "
    "WHEN EXISTS (SELECT 1 FROM segments o WHERE o.collection = s.collection "
    "AND o.scope = 'METADATA') THEN 'VECTOR' "
    "WHEN EXISTS (SELECT 1 FROM segments o WHERE o.collection = s.collection "
    "AND o.scope = 'VECTOR') THEN 'METADATA' END AS scope "
    "FROM segments s WHERE NOT s." CHROMA_SEGMENT_SCOPE_FITS
    ") told WHERE told.id = segments.id AND told.scope NOTNULL";

static int mend_scopes(struct recovery *r)
{
	int64_t count;
	int error = recover_sql(r, scopes);

	if (error < 0)
		return error == -ENOENT ? 0 : error;
	count = sqlite3_changes64(r->db);
	if (!count)
		return 0;
	r->healed++;
	recover_say(r, RECOVER_SEGMENTS, NULL,
		    "%" PRId64
		    " segments had a scope that there is not, and have that of their type or "
		    "of what is in them",
		    count);
	return 0;
}

/* To temp.twice: those of which there are several; `has`: something belongs to it. */
static int find_twice(struct recovery *r)
{
	return recover_sql(
	    r, "DROP TABLE IF EXISTS temp.twice; CREATE TEMP TABLE twice AS "
	       "SELECT rowid AS n, id, scope, collection, "
	       "EXISTS (SELECT 1 FROM embeddings e WHERE e.segment_id = s.id) "
	       "OR EXISTS (SELECT 1 FROM max_seq_id m WHERE m.segment_id = s.id) AS has "
	       "FROM segments s WHERE scope IN ('VECTOR', 'METADATA') AND (collection, scope) IN "
	       "(SELECT collection, scope FROM segments GROUP BY 1, 2 HAVING count(*) > 1)");
}

/* A vector segment also has its directory. */
static int look_for_directories(struct recovery *r)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(
	    r->db, &rows, "SELECT id FROM temp.twice WHERE scope = 'VECTOR' AND NOT has");

	while (error == 0 && (error = database_step(rows)) == 1) {
		const char *id = (const char *)sqlite3_column_text(rows, 0);

		error = 0;
		if (chroma_is_uuid(id) && faccessat(r->dirfd, id, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			error =
			    RECOVER_CHANGE(r, "UPDATE temp.twice SET has = 1 WHERE id = ?1", id);
	}
	sqlite3_finalize(rows);
	return error;
}

/* Where nothing belongs to any of them, the first one stays. */
static int take_out(struct recovery *r)
{
	static const char surplus[] =
	    "DELETE FROM temp.twice WHERE has OR n = (SELECT min(n) FROM temp.twice t "
	    "WHERE t.collection IS twice.collection AND t.scope = twice.scope "
	    "AND NOT EXISTS (SELECT 1 FROM temp.twice h "
	    "WHERE h.collection IS t.collection AND h.scope = t.scope AND h.has))";
	int64_t count = 0;
	int error = recover_sql(r, surplus);

	if (error == 0)
		error =
		    recover_sql(r, "DELETE FROM segment_metadata WHERE segment_id IN (SELECT id "
				   "FROM temp.twice)");
	if (error == 0 || error == -ENOENT)
		error =
		    recover_sql(r, "DELETE FROM segments WHERE id IN (SELECT id FROM temp.twice)");
	if (error == 0)
		count = sqlite3_changes64(r->db);
	if (error < 0 || !count)
		return error;
	r->healed++;
	recover_say(r, RECOVER_SEGMENTS, NULL,
		    "%" PRId64
		    " rows of segments were one too many for their collection and nothing "
		    "belonged to them: they are taken out",
		    count);
	return 0;
}

/* Which of them is right, nobody can tell here. */
static int tell_left(struct recovery *r)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(
	    r->db, &rows,
	    "SELECT c.name, t.scope, group_concat(t.id, ' and ') FROM temp.twice t JOIN "
	    "collections c ON "
	    "c.id = t.collection WHERE t.has GROUP BY c.id, t.scope HAVING count(*) > 1");

	while (error == 0 && (error = database_step(rows)) == 1) {
		error = 0;
		recover_say(
		    r, RECOVER_SEGMENTS, (const char *)sqlite3_column_text(rows, 0),
		    "it has several %s segments, and something is in each of them: %s. They are "
		    "left as they are; `chromashim restore` goes back to before",
		    (const char *)sqlite3_column_text(rows, 1),
		    (const char *)sqlite3_column_text(rows, 2));
	}
	sqlite3_finalize(rows);
	return error;
}

int recover_twice(struct recovery *r)
{
	int error = mend_scopes(r);

	if (error == 0)
		error = find_twice(r);
	if (error < 0) /* there is no such table; it is told elsewhere */
		return error == -ENOENT ? 0 : error;
	error = look_for_directories(r);
	if (error == 0)
		error = tell_left(r);
	return error < 0 ? error : take_out(r);
}
