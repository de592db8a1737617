/* SPDX-License-Identifier: MIT
 *
 * What the store's log of acts tells of collections: the names of those that have lost them, and
 * which were deleted.
 */
#include <errno.h>
#include <inttypes.h>

#include "core/chroma/collection_names.h"
#include "core/recover/internal.h"

static struct collection_names *open_log(const struct recovery *r)
{
	return r->options->storefd > 0 ? collection_names_open(r->options->storefd, NULL, -1)
				       : NULL;
}

int recover_names_of_log(struct recovery *r)
{
	struct recover_account *account = r->options->account;
	struct collection_names *names = open_log(r);
	uint64_t count = 0;
	sqlite3_stmt *rows = NULL;
	int error = !names
			? 0
			: database_prepare(r->db, &rows,
					   "SELECT id FROM collections WHERE name = 'lost-' || id");

	while (names && error == 0 && (error = database_step(rows)) == 1) {
		const char *id = (const char *)sqlite3_column_text(rows, 0);
		const char *name = collection_names_find(names, id);

		error = name ? RECOVER_CHANGE(
				   r, "UPDATE OR IGNORE collections SET name = ?1 WHERE id = ?2",
				   name, id)
			     : 0;
		count += name && error == 0 && sqlite3_changes64(r->db) > 0;
	}
	sqlite3_finalize(rows);
	collection_names_close(names);
	if (error < 0 || !count)
		return error == -ENOENT || error == -EBADMSG ? 0 : error;
	if (account) {
		account->nameless -= count < account->nameless ? count : account->nameless;
		account->is_taken = false; /* with the names of before */
	}
	recover_say(r, RECOVER_SEGMENTS, NULL,
		    "%" PRIu64 " collections are called again as the log has it", count);
	return 0;
}

int recover_forget_deleted(struct recovery *r, sqlite3 *db)
{
	struct collection_names *names = open_log(r);
	sqlite3_stmt *rows = NULL;
	int error = !names ? 0 : database_prepare(db, &rows, "SELECT collection FROM temp.need");

	while (names && error == 0 && (error = database_step(rows)) == 1) {
		const char *id = (const char *)sqlite3_column_text(rows, 0);
		char *sql = collection_names_is_deleted(names, id)
				? sqlite3_mprintf("INSERT OR IGNORE INTO temp.gone VALUES (%Q)", id)
				: NULL;

		error = sql ? database_error(sqlite3_exec(db, sql, NULL, NULL, NULL)) : 0;
		sqlite3_free(sql);
	}
	sqlite3_finalize(rows);
	collection_names_close(names);
	return error;
}
