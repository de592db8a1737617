/* SPDX-License-Identifier: MIT
 *
 * Half a migration (chroma/migrations_half.c) is taken back, and one that lacks its last step
 * ended.
 */
#include <errno.h>
#include <stdio.h>

#include "core/chroma/migrations.h"
#include "core/recover/internal.h"
#include "core/sqlite/database.h"

/* A table that has its final name back by the renaming has what the migration records last. */
static int run_all(struct recovery *r, const struct migration_state *m)
{
	const struct migration_trace *t;
	unsigned at = 0;
	int result;

	while ((result = migrations_next_trace(r->db, m, &at, &t)) == 1) {
		result = recover_sql(r, t->undo);
		if (result < 0)
			return result;
		r->healed++;
		recover_say(r, RECOVER_MIGRATION, NULL,
			    "migration %s %u was half done, and was taken back: %s",
			    migration_dir_names[t->dir], t->version, t->undo);
	}
	return result;
}

/* The migration was recorded, and only the renaming at its end is missing. */
static int end_renaming(struct recovery *r)
{
	static const char *const names[][2] = {{"collections_tmp", "collections"},
					       {"segments_temp", "segments"}};
	char sql[128];
	unsigned i;
	int result = 0;

	for (i = 0; i < 2 && result == 0; i++) {
		int left = database_has_table(r->db, names[i][0]);
		int there = database_has_table(r->db, names[i][1]);

		if (left != 1 || there < 0)
			continue;
		if (there)
			snprintf(sql, sizeof(sql), "DROP TABLE %s", names[i][0]);
		else
			snprintf(sql, sizeof(sql), "ALTER TABLE %s RENAME TO %s", names[i][0],
				 names[i][1]);
		result = recover_sql(r, sql);
		if (result == 0) {
			r->healed++;
			recover_say(r, RECOVER_MIGRATION, NULL, "a migration was ended: %s", sql);
		}
	}
	return result;
}

/* `reset` of Chroma >= 1.0 drops this table first of all. */
static int record_again(struct recovery *r)
{
	const struct migration_era *era;
	int result = migrations_recognise(r->db, &era);

	if (result < 0 || !era)
		return result;
	result = migrations_record(r->db, era);
	if (result == 0) {
		r->healed++;
		recover_say(r, RECOVER_MIGRATION, NULL,
			    "which migrations were applied is recorded again, as by Chroma %s to "
			    "%s, whose tables these are",
			    era->first, era->last);
	}
	return result;
}

int recover_migration(struct recovery *r)
{
	const struct migration_era *era;
	struct migration_state m;
	char half[64];
	int result = migrations_read(r->db, &m);

	if (result < 0)
		return result == -EBADMSG ? 0 : result;
	if (migrations_are_lost(r->db, &m))
		return record_again(r);
	if (!m.has_table)
		return 0;
	if (migrations_find_half(r->db, half, sizeof(half)) == 0 &&
	    migrations_have_holes(r->db, &m, &era) == 1)
		return record_again(r);
	if (result == 0)
		result = recover_sql(r, "BEGIN IMMEDIATE");
	if (result == 0)
		result = run_all(r, &m);
	if (result == 0)
		result = end_renaming(r);
	return result == 0 ? recover_sql(r, "COMMIT") : result;
}
