/* SPDX-License-Identifier: MIT
 *
 * The full-text index against the documents.
 */
#include "core/sqlite/fulltext.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "core/sqlite/database.h"

static int run(sqlite3 *db, const char *sql)
{
	return database_error(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

/* FTS5 counts the terms of each document in a varint, high bits first. */
static void term_count(sqlite3_context *context, int count, sqlite3_value **values)
{
	const unsigned char *p = sqlite3_value_blob(values[0]);
	int size = sqlite3_value_bytes(values[0]), i;
	uint64_t terms = 0;

	(void)count;
	for (i = 0; i < size && i < 8; i++) {
		terms = terms << 7 | (p[i] & 0x7f);
		if (!(p[i] & 0x80))
			break;
	}
	sqlite3_result_int64(context, (sqlite3_int64)terms);
}

/* In one statement: a writer may be at work. SQLite < 3.44 has no check of it for a reader. */
static int count_terms(sqlite3 *db, int64_t *out)
{
	int r = database_error(sqlite3_create_function(
	    db, "term_count", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, term_count, NULL, NULL));

	if (r == 0)
		r = run(db,
			"CREATE VIRTUAL TABLE temp.fts_walk USING fts5vocab(main, " FULLTEXT_TABLE
			", row)");
	if (r == 0)
		r = database_number(
		    db,
		    "SELECT coalesce((SELECT sum(term_count(sz)) FROM " FULLTEXT_TABLE "_docsize), "
		    "0) - coalesce((SELECT sum(cnt) FROM temp.fts_walk), 0)",
		    NULL, out);
	sqlite3_exec(db, "DROP TABLE IF EXISTS temp.fts_walk", NULL, NULL, NULL);
	return r;
}

/* What deleted collections have left behind does not count. */
static int count_documents(sqlite3 *db, int64_t *out)
{
	return database_number(
	    db,
	    "SELECT count(*) FROM embedding_metadata m NOT INDEXED CROSS JOIN embeddings e ON e.id "
	    "= m.id CROSS JOIN segments s ON s.id = e.segment_id LEFT JOIN " FULLTEXT_TABLE
	    "_content f ON f.id = m.id WHERE m.key = 'chroma:document' AND m.string_value IS NOT "
	    "NULL AND f.c0 IS NOT "
	    "m.string_value",
	    NULL, out);
}

int fulltext_missing(sqlite3 *db, int64_t *documents_out, int64_t *terms_out)
{
	int r = database_has_table(db, FULLTEXT_TABLE);

	*documents_out = *terms_out = 0;
	if (r <= 0)
		return r;
	r = count_terms(db, terms_out);
	return r < 0 ? r : count_documents(db, documents_out);
}

int fulltext_fill(sqlite3 *db)
{
	if (database_has_table(db, FULLTEXT_TABLE) != 1)
		return 0;
	return run(db, "INSERT INTO " FULLTEXT_TABLE
		       "(rowid, string_value) SELECT id, string_value FROM embedding_metadata "
		       "WHERE key = 'chroma:document' AND string_value IS NOT NULL ORDER BY id");
}

static const char schema[] =
    "CREATE VIRTUAL TABLE " FULLTEXT_TABLE " USING fts5(string_value, tokenize='trigram')";

/* Without blanks, quotes and capitals, and without what does not change the table. */
static void make_plain(const char *sql, char *out, size_t room)
{
	char *p;
	size_t n = 0;

	for (; *sql && n + 1 < room; sql++)
		if (!strchr(" \t\r\n\"'`[];", *sql))
			out[n++] = (char)tolower((unsigned char)*sql);
	out[n] = '\0';
	p = strstr(out, "ifnotexists");
	if (p)
		memmove(p, p + 11, strlen(p + 11) + 1);
}

enum fulltext_make fulltext_made_as(sqlite3 *db)
{
	enum fulltext_make made = FULLTEXT_CHROMAS;
	char mine[256], wanted[256];
	sqlite3_stmt *row = NULL;
	int r = database_prepare(db, &row,
				 "SELECT sql FROM sqlite_master WHERE name = '" FULLTEXT_TABLE "'");

	if (r == 0 && database_step(row) == 1) {
		const char *sql = (const char *)sqlite3_column_text(row, 0);

		make_plain(sql ? sql : "", mine, sizeof(mine));
		make_plain(schema, wanted, sizeof(wanted));
		if (strcmp(mine, wanted) != 0)
			made = strncmp(mine, wanted, strcspn(wanted, ",")) == 0 &&
				       !strstr(mine, "content")
				   ? FULLTEXT_OTHER
				   : FULLTEXT_NONE;
	}
	sqlite3_finalize(row);
	return made;
}

static int make_anew(sqlite3 *db, const char *sql)
{
	int r = run(db, "BEGIN; DROP TABLE " FULLTEXT_TABLE);

	if (r == 0)
		r = database_create(db, sql);
	if (r == 0)
		r = fulltext_fill(db);
	return r == 0 ? run(db, "COMMIT") : r;
}

/* As Chroma's migration does; whatever is left of one, or stands in its place, goes before. */
int fulltext_make(sqlite3 *db)
{
	static const char *const parts[] = {"data", "idx", "content", "docsize", "config"};
	char sql[128];
	unsigned i;
	int r;

	sqlite3_exec(db, "DROP VIEW " FULLTEXT_TABLE, NULL, NULL, NULL);
	sqlite3_exec(db, "DROP TABLE " FULLTEXT_TABLE, NULL, NULL, NULL); /* if that can be */
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 0, NULL);
	r = run(db, "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name = "
		    "'" FULLTEXT_TABLE "'; PRAGMA writable_schema = RESET");
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	if (r == 0)
		r = run(db, "BEGIN");

	for (i = 0; r == 0 && i < sizeof(parts) / sizeof(parts[0]); i++) {
		sqlite3_snprintf(sizeof(sql), sql, "DROP TABLE IF EXISTS " FULLTEXT_TABLE "_%s",
				 parts[i]);
		r = run(db, sql);
	}
	if (r == 0)
		r = database_create(db, schema);
	if (r == 0)
		r = fulltext_fill(db);
	return r == 0 ? run(db, "COMMIT") : r;
}

bool fulltext_works(sqlite3 *db)
{
	static const char *const asked[] = {
	    "SELECT count(*) FROM " FULLTEXT_TABLE " WHERE rowid = 0",
	    "SELECT count(*) FROM " FULLTEXT_TABLE "_docsize",
	};
	int64_t ignored;
	unsigned i;

	for (i = 0; i < 2; i++) {
		int r = database_number(db, asked[i], NULL, &ignored);

		if (r == -ENOENT || r == -EBADMSG)
			return false;
	}
	return true;
}

int fulltext_refill(sqlite3 *db)
{
	sqlite3_stmt *row = NULL;
	char *sql = NULL;
	int r = database_prepare(db, &row,
				 "SELECT sql FROM sqlite_master WHERE name = '" FULLTEXT_TABLE "'");

	if (r == 0 && (r = database_step(row)) == 1) {
		sql = sqlite3_mprintf("%s", sqlite3_column_text(row, 0));
		r = sql ? 1 : -ENOMEM;
	}
	sqlite3_finalize(row); /* before the table goes */
	if (r == 1)
		r = make_anew(db, sql);
	sqlite3_free(sql);
	return r;
}
