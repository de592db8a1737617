/* SPDX-License-Identifier: MIT
 *
 * Tables that are gone are made again, empty, as the release that wrote the database has them. What
 * was in them is found missing after that, and is looked for elsewhere.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/chroma/migrations.h"
#include "core/recover/internal.h"
#include "core/salvage/salvage.h"

/* Rows of it that are lost cost more than what others tell of them. */
static void note_table(struct recovery *r, const char *name)
{
	r->lost_rows |= strcmp(name, "embeddings") == 0;
	r->lacks_queue |= strcmp(name, "embeddings_queue") == 0;
	r->lost_segments |= strcmp(name, "segments") == 0;
	r->lost_marks |= strcmp(name, "max_seq_id") == 0;
	if (r->options->account && strcmp(name, "maintenance_log") != 0 &&
	    strcmp(name, "embeddings_queue_config") != 0)
		r->options->account->may_lack = true;
}

/* What of the model has no name here yet, of one kind. */
static int make_objects(struct recovery *r, sqlite3 *model, bool tables)
{
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(model, &rows,
				     "SELECT name, sql FROM sqlite_master WHERE sql NOTNULL AND "
				     "(type = 'table') = ? AND name "
				     "NOT GLOB 'sqlite_*' AND name <> '" FULLTEXT_TABLE
				     "' AND " SALVAGE_NO_SHADOW "ORDER BY rowid");

	if (error == 0)
		sqlite3_bind_int(rows, 1, tables);
	while (error == 0 && (error = database_step(rows)) == 1) {
		const char *name = (const char *)sqlite3_column_text(rows, 0);
		int64_t there = 0;

		error = database_number(r->db, "SELECT count(*) FROM sqlite_master WHERE name = ?",
					name, &there);
		if (error == 0 && !there)
			error = database_create(r->db, (const char *)sqlite3_column_text(rows, 1));
		if (error < 0 || there || !tables)
			continue;
		note_table(r, name);
		r->healed++;
		recover_say(
		    r, RECOVER_TABLES, NULL,
		    "table %s was gone, and is there again, empty; what it had is taken from "
		    "elsewhere as far as anything tells of it",
		    name);
	}
	sqlite3_finalize(rows);
	return error;
}

int recover_tables(struct recovery *r)
{
	const struct migration_era *era;
	struct migration_state m;
	sqlite3 *model = NULL;
	int error = migrations_read(r->db, &m);

	if (error < 0 || !m.has_table)
		return error == -EBADMSG ? 0 : error;
	era = migrations_find_era(m.counts);
	if (!era)
		return 0;
	error = database_error(
	    sqlite3_open_v2(":memory:", &model, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL));
	if (error == 0)
		error = migrations_make(model, era);
	if (error == 0)
		error = make_objects(r, model, true);
	if (error == 0)
		error = make_objects(r, model, false);
	sqlite3_close(model);
	return error;
}
