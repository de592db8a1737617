/* SPDX-License-Identifier: MIT
 *
 * Property: whatever is in a queue row's metadata, the record's values stay a well-formed list, and
 * what is no JSON changes nothing and is counted.
 *
 * The input is the metadata of two rows, with a zero byte between them.
 */
#include <stdlib.h>
#include <string.h>

#include "core/export/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char schema[] =
    "CREATE TABLE embedding_metadata (id INTEGER, key TEXT, string_value TEXT, int_value INTEGER, "
    "float_value REAL, bool_value INTEGER);"
    "CREATE TABLE embedding_metadata_array (id INTEGER, key TEXT, string_value TEXT, int_value "
    "INTEGER, float_value REAL, bool_value INTEGER);"
    "CREATE TABLE embeddings_queue (seq_id INTEGER PRIMARY KEY, operation INTEGER, metadata TEXT);"
    "CREATE TEMP TABLE pending (id TEXT, seq INTEGER, PRIMARY KEY (id, seq)) WITHOUT ROWID;"
    "INSERT INTO embedding_metadata VALUES (1, 'chroma:document', 'old', NULL, NULL, NULL),"
    "(1, 'a', NULL, 7, NULL, NULL);"
    "INSERT INTO embedding_metadata_array VALUES (1, 'list', 'x', NULL, NULL, NULL),"
    "(1, 'list', 'y', NULL, NULL, NULL);"
    "INSERT INTO pending VALUES ('r', 1), ('r', 2);"
    "INSERT INTO embeddings_queue VALUES (1, 2, NULL), (2, 1, NULL);";

static sqlite3 *get_database(void)
{
	static sqlite3 *db;

	if (!db && (sqlite3_open(":memory:", &db) != SQLITE_OK ||
		    sqlite3_exec(db, schema, NULL, NULL, NULL) != SQLITE_OK))
		abort();
	return db;
}

static void put_row(sqlite3 *db, int sequence, const uint8_t *text, size_t size)
{
	sqlite3_stmt *s = NULL;

	sqlite3_prepare_v2(db, "UPDATE embeddings_queue SET metadata = ? WHERE seq_id = ?", -1, &s,
			   NULL);
	sqlite3_bind_text(s, 1, (const char *)text, (int)size, SQLITE_STATIC);
	sqlite3_bind_int(s, 2, sequence);
	if (sqlite3_step(s) != SQLITE_DONE)
		abort();
	sqlite3_finalize(s);
}

static void look_at(const struct export_values *v)
{
	size_t i;

	for (i = 0; i < v->count; i++) {
		const struct export_value *value = &v->list[i];

		if (!value->key || (value->type == EXPORT_STRING) != (value->text != NULL) ||
		    (value->text && value->text[value->size] != '\0'))
			abort();
	}
}

/* Over the row of the database, or as a record that only the queue has. */
static void apply(sqlite3 *db, bool exists)
{
	struct export_values v;

	if (export_values_open(&v, db) < 0 || (exists && export_values_load(&v, 1) < 0))
		abort();
	/* Deep nesting and the like are refused; anything else is read. */
	if (export_values_apply(&v, "r", 1, &exists) == 0 && !exists)
		abort();
	look_at(&v);
	export_values_take(&v, "chroma:document");
	export_values_take(&v, "list");
	look_at(&v);
	export_values_close(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *second = size ? memchr(data, 0, size) : NULL;
	size_t first_size = second ? (size_t)(second - data) : size;
	sqlite3 *db = get_database();

	put_row(db, 1, data, first_size);
	if (second)
		put_row(db, 2, second + 1, size - first_size - 1);
	else
		put_row(db, 2, (const uint8_t *)"{}", 2);
	apply(db, true);
	apply(db, false);
	return 0;
}
