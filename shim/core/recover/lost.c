/* SPDX-License-Identifier: MIT
 *
 * What cannot stay where it was is set aside in RECOVER_LOST_FILE.
 */
#include <errno.h>
#include <stdio.h>

#include "core/recover/internal.h"
#include "core/sqlite/fulltext.h"

int recover_lost_open(sqlite3 *db, const char *path)
{
	char sql[128];

	snprintf(sql, sizeof(sql), "ATTACH '%s/" RECOVER_LOST_FILE "' AS lost", path);
	sqlite3_exec(db, sql, NULL, NULL, NULL); /* attached already: good */
	return database_error(sqlite3_exec(db,
					   "CREATE TABLE IF NOT EXISTS lost.lost(collection TEXT, "
					   "id TEXT, document TEXT, metadata TEXT)",
					   NULL, NULL, NULL));
}

/* Numbers with all their digits, which json_group_object() of older SQLites cuts. */
char *recover_lost_metadata(sqlite3 *db, const char *row)
{
	int has_bool = database_has_column(db, "embedding_metadata", "bool_value");

	return sqlite3_mprintf(
	    "(SELECT '{' || group_concat(json_quote(m.key) || ':' || CASE WHEN m.string_value IS "
	    "NOT NULL THEN json_quote(m.string_value) WHEN m.int_value IS NOT NULL THEN "
	    "m.int_value WHEN m.float_value IS NOT NULL THEN printf('%%!.17g', m.float_value) %s "
	    "ELSE 'null' END) || '}' FROM embedding_metadata m WHERE m.id = %s AND m.key <> "
	    "'chroma:document')",
	    has_bool == 1 ? "WHEN m.bool_value = 1 THEN 'true' WHEN m.bool_value = 0 THEN 'false'"
			  : "",
	    row);
}

/* ---- metadata without a record ---- */

#define NAMELESS "id NOT IN (SELECT id FROM embeddings)"

static int run(sqlite3 *db, const char *sql)
{
	return database_error(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static int keep_nameless(sqlite3 *db, const char *path)
{
	char *metadata, *sql;
	int error = recover_lost_open(db, path);

	if (error < 0)
		return error;
	metadata = recover_lost_metadata(db, "n.id");
	sql = sqlite3_mprintf(
	    "INSERT INTO lost.lost SELECT NULL, NULL, (SELECT string_value FROM embedding_metadata "
	    "d WHERE d.id = n.id AND d.key = 'chroma:document'), %s FROM (SELECT DISTINCT id FROM "
	    "embedding_metadata WHERE " NAMELESS ") n",
	    metadata);
	error = metadata && sql ? run(db, sql) : -ENOMEM;
	sqlite3_free(sql);
	sqlite3_free(metadata);
	return error;
}

int recover_nameless(sqlite3 *db, const char *path, uint64_t *count_out)
{
	int64_t count;
	int error = database_number(
	    db, "SELECT count(DISTINCT id) FROM embedding_metadata WHERE " NAMELESS, NULL, &count);

	*count_out = 0;
	if (error < 0 || !count)
		return error == -ENOENT ? 0 : error;
	error = keep_nameless(db, path);
	/* What cannot be taken out of the full-text index is found missing there, or too much. */
	if (error == 0 && database_has_table(db, FULLTEXT_TABLE) == 1)
		run(db, "DELETE FROM " FULLTEXT_TABLE
			" WHERE rowid IN (SELECT id FROM embedding_metadata WHERE " NAMELESS ")");
	if (error == 0)
		error = run(db, "DELETE FROM embedding_metadata WHERE " NAMELESS);
	if (error == 0 && database_has_table(db, "embedding_metadata_array") == 1)
		error = run(db, "DELETE FROM embedding_metadata_array WHERE " NAMELESS);
	*count_out = (uint64_t)count;
	return error;
}

int recover_nameless_documents(sqlite3 *db, const char *path, uint64_t *count_out)
{
	int64_t count;
	int error = database_number(
	    db, "SELECT count(*) FROM " FULLTEXT_TABLE "_docsize WHERE " NAMELESS, NULL, &count);

	*count_out = 0;
	if (error < 0 || !count)
		return error == -ENOENT ? 0 : error;
	error = recover_lost_open(db, path);
	if (error == 0)
		error = run(db, "INSERT INTO lost.lost SELECT NULL, NULL, c0, NULL FROM "
				"" FULLTEXT_TABLE "_content WHERE " NAMELESS);
	*count_out = error == 0 ? (uint64_t)count : 0;
	return error == 0 ? fulltext_refill(db) : error;
}
