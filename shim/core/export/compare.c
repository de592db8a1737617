/* SPDX-License-Identifier: MIT
 *
 * Comparing the records of two moments.
 */
#include "core/export/compare.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/export/fingerprint.h"
#include "core/sqlite/database.h"

/* `twin` is the id by which a collection's records are kept, the same at both moments. */
static const char schema[] =
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
    "CREATE TABLE collection(moment INTEGER, id TEXT, home TEXT, name TEXT, twin TEXT, "
    "PRIMARY KEY (moment, id)) WITHOUT ROWID;"
    "CREATE TABLE record(moment INTEGER, collection TEXT, id TEXT, vector INTEGER, document "
    "INTEGER, metadata INTEGER, norm REAL, projection REAL, "
    "PRIMARY KEY (moment, collection, id)) WITHOUT ROWID;"
    "CREATE TABLE named(id TEXT PRIMARY KEY) WITHOUT ROWID;"
    "CREATE TABLE wanted(id TEXT PRIMARY KEY, replaced INTEGER) WITHOUT ROWID;";

#define VECTOR_CHANGED                                                                     \
	"((a.vector IS NULL) <> (b.vector IS NULL) OR ifnull(" FINGERPRINT_VECTORS_DIFFER( \
	    "a", "b") ", 0))"
#define DOCUMENT_CHANGED "(a.document <> b.document)"
#define METADATA_CHANGED "(a.metadata <> b.metadata)"
#define IS_CHANGED "(" VECTOR_CHANGED " OR " DOCUMENT_CHANGED " OR " METADATA_CHANGED ")"
#define AFTER_OF_BEFORE                                                                          \
	" FROM record b LEFT JOIN record a ON a.moment = 1 AND a.collection = b.collection AND " \
	"a.id = b.id WHERE b.moment = 0 "
#define NEW_AFTER                                                                         \
	" FROM record a WHERE a.moment = 1 AND NOT EXISTS (SELECT 1 FROM record b WHERE " \
	"b.moment = 0 AND b.collection = a.collection AND b.id = a.id) "

int compare_open(struct compare *c)
{
	int r;

	*c = (struct compare){.db = NULL};
	r = database_error(sqlite3_open_v2("", &c->db, SQLITE_OPEN_READWRITE, NULL));
	return r < 0 ? r : database_error(sqlite3_exec(c->db, schema, NULL, NULL, NULL));
}

void compare_close(struct compare *c)
{
	sqlite3_finalize(c->insert);
	sqlite3_close(c->db);
	*c = (struct compare){.db = NULL};
}

/* ---- taking ---- */

static int compare_begin(void *context, const struct export_collection *e)
{
	const struct chroma_collection *n = e->collection;
	struct compare *c = context;
	sqlite3_stmt *put = NULL;
	char *home =
	    sqlite3_mprintf("%s/%s", n->tenant ? n->tenant : "", n->database ? n->database : "");
	int r = home ? database_prepare(c->db, &put,
					"INSERT OR REPLACE INTO collection VALUES "
					"(?1, ?2, ?3, ?4, ?2)")
		     : -ENOMEM;

	if (r == 0) {
		sqlite3_bind_int(put, 1, c->moment);
		sqlite3_bind_text(put, 2, n->id, -1, SQLITE_STATIC);
		sqlite3_bind_text(put, 3, home, -1, SQLITE_STATIC);
		sqlite3_bind_text(put, 4, n->name, -1, SQLITE_STATIC);
		r = database_step(put);
	}
	sqlite3_finalize(put);
	sqlite3_free(home);
	return r;
}

static int compare_record(void *context, const struct export_record *record)
{
	struct compare *c = context;
	struct fingerprint f;
	int r;

	fingerprint_take(record, &f);
	c->records[c->moment]++;
	sqlite3_bind_int(c->insert, 1, c->moment);
	sqlite3_bind_text(c->insert, 2, record->collection->id, -1, SQLITE_STATIC);
	sqlite3_bind_text(c->insert, 3, record->id, (int)record->id_size, SQLITE_STATIC);
	sqlite3_bind_null(c->insert, 4);
	if (f.has_vector)
		sqlite3_bind_int64(c->insert, 4, (sqlite3_int64)f.vector);
	else
		c->without_vector[c->moment]++;
	sqlite3_bind_int64(c->insert, 5, (sqlite3_int64)f.document);
	sqlite3_bind_int64(c->insert, 6, (sqlite3_int64)f.metadata);
	sqlite3_bind_double(c->insert, 7, f.norm);
	sqlite3_bind_double(c->insert, 8, f.projection);
	r = database_step(c->insert);
	sqlite3_reset(c->insert);
	return r;
}

static void compare_trouble(void *context, const char *collection, const char *what, int error)
{
	struct compare *c = context;

	(void)collection;
	(void)what; /* check says it */
	(void)error;
	c->troubles[c->moment]++;
}

/* One that was deleted and made anew has another id and the same name. */
static int pair_by_name(struct compare *c)
{
	return database_error(sqlite3_exec(
	    c->db,
	    "UPDATE collection AS a SET twin = (SELECT b.id FROM collection b WHERE b.moment = 0 "
	    "AND b.home = a.home AND b.name = a.name) WHERE a.moment = 1 AND NOT EXISTS (SELECT 1 "
	    "FROM collection b WHERE b.moment = 0 AND b.id = a.id) AND EXISTS (SELECT 1 FROM "
	    "collection b WHERE b.moment = 0 AND b.home = a.home AND b.name = a.name AND NOT "
	    "EXISTS (SELECT 1 FROM collection s WHERE s.moment = 1 AND s.id = b.id));"
	    "UPDATE record SET collection = (SELECT twin FROM collection c WHERE c.moment = 1 AND "
	    "c.id = record.collection) WHERE moment = 1 AND collection IN (SELECT id FROM "
	    "collection WHERE moment = 1 AND twin <> id)",
	    NULL, NULL, NULL));
}

int compare_take(struct compare *c, const struct compare_moment *m, const char *collection)
{
	struct export_options options = {.collection = collection,
					 .vectors = true,
					 .begin = compare_begin,
					 .record = compare_record,
					 .trouble = compare_trouble,
					 .context = c};
	struct export_summary summary;
	int r = database_error(sqlite3_exec(c->db, "BEGIN", NULL, NULL, NULL));

	if (r == 0)
		r = database_prepare(c->db, &c->insert,
				     "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, "
				     "?)");
	if (r == 0)
		r = m->manifest ? export_snapshot(m->store, m->manifest, &options, &summary)
				: export_directory(m->path, m->dirfd, &options, &summary);
	sqlite3_finalize(c->insert);
	c->insert = NULL;
	if (r == 0 && c->moment)
		r = pair_by_name(c);
	if (r == 0)
		r = database_error(sqlite3_exec(c->db, "COMMIT", NULL, NULL, NULL));
	c->moment = 1;
	return r;
}

/* ---- telling ---- */

static const char each_sql[] =
    "SELECT r.kind, n.id, n.name, r.id, r.vector, r.document, r.metadata FROM ("
    "SELECT 1 AS kind, b.collection, b.id, 0 AS vector, 0 AS document, 0 AS "
    "metadata" AFTER_OF_BEFORE "AND a.id IS NULL UNION ALL "
    "SELECT 2, b.collection, b.id, " VECTOR_CHANGED ", " DOCUMENT_CHANGED
    ", " METADATA_CHANGED AFTER_OF_BEFORE "AND a.id IS NOT NULL AND " IS_CHANGED " UNION ALL "
    "SELECT 0, a.collection, a.id, 0, 0, 0" NEW_AFTER
    ") r JOIN collection n ON n.twin = r.collection AND n.moment = (SELECT min(moment) FROM "
    "collection WHERE twin = r.collection) ORDER BY n.name, n.id, r.id";

int compare_each(struct compare *c, int (*each)(void *context, const struct compare_change *change),
		 void *context)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(c->db, &rows, each_sql);

	while (r == 0 && (r = database_step(rows)) == 1) {
		struct compare_change change = {
		    .kind = (enum compare_kind)sqlite3_column_int(rows, 0),
		    .collection_id = (const char *)sqlite3_column_text(rows, 1),
		    .collection = (const char *)sqlite3_column_text(rows, 2),
		    .id = (const char *)sqlite3_column_text(rows, 3),
		    .id_size = (size_t)sqlite3_column_bytes(rows, 3),
		    .vector = sqlite3_column_int(rows, 4) != 0,
		    .document = sqlite3_column_int(rows, 5) != 0,
		    .metadata = sqlite3_column_int(rows, 6) != 0,
		};

		r = each(context, &change);
	}
	sqlite3_finalize(rows);
	return r;
}

static const char count_sql[] =
    "SELECT n.id, n.name, (SELECT count(*) FROM record WHERE moment = 0 AND collection = n.twin), "
    "(SELECT count(*) FROM record WHERE moment = 1 AND collection = n.twin), "
    "(SELECT count(*)" NEW_AFTER "AND a.collection = n.twin), "
    "(SELECT count(*)" AFTER_OF_BEFORE "AND a.id IS NULL AND b.collection = n.twin), "
    "(SELECT count(*)" AFTER_OF_BEFORE "AND " IS_CHANGED " AND a.id IS NOT NULL AND b.collection "
    "= n.twin), NOT EXISTS (SELECT 1 FROM collection o WHERE o.moment = 1 AND o.twin = n.twin), "
    "n.moment FROM collection n WHERE n.moment = (SELECT min(moment) FROM collection WHERE twin = "
    "n.twin) ORDER BY n.name, n.id";

int compare_each_collection(struct compare *c,
			    int (*each)(void *context, const struct compare_count *count),
			    void *context)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(c->db, &rows, count_sql);

	while (r == 0 && (r = database_step(rows)) == 1) {
		struct compare_count count = {
		    .collection_id = (const char *)sqlite3_column_text(rows, 0),
		    .collection = (const char *)sqlite3_column_text(rows, 1),
		    .before = (uint64_t)sqlite3_column_int64(rows, 2),
		    .after = (uint64_t)sqlite3_column_int64(rows, 3),
		    .added = (uint64_t)sqlite3_column_int64(rows, 4),
		    .deleted = (uint64_t)sqlite3_column_int64(rows, 5),
		    .changed = (uint64_t)sqlite3_column_int64(rows, 6),
		    .is_gone = sqlite3_column_int(rows, 7) != 0,
		    .is_new = sqlite3_column_int(rows, 8) != 0,
		};

		r = each(context, &count);
	}
	sqlite3_finalize(rows);
	return r;
}

/* ---- choosing ---- */

int compare_name(struct compare *c, const char *id, size_t size)
{
	sqlite3_stmt *put = NULL;
	int r = database_prepare(c->db, &put, "INSERT OR IGNORE INTO named VALUES (?)");

	if (r == 0) {
		sqlite3_bind_text(put, 1, id, (int)size, SQLITE_STATIC);
		r = database_step(put);
	}
	sqlite3_finalize(put);
	return r;
}

static int count_of(struct compare *c, const char *sql, uint64_t *out)
{
	int64_t n = 0;
	int r = database_number(c->db, sql, NULL, &n);

	*out = (uint64_t)n;
	return r;
}

int compare_choose(struct compare *c, const struct compare_choice *choice,
		   struct compare_chosen *out)
{
	static const char insert[] =
	    "DELETE FROM wanted; INSERT INTO wanted SELECT b.id, a.id IS NOT NULL" AFTER_OF_BEFORE
	    "AND (%d OR (%d AND a.id IS NULL) OR (%d AND a.id IS NOT NULL AND " IS_CHANGED
	    ")) AND (NOT %d OR b.id IN (SELECT id FROM named))";
	char *sql =
	    sqlite3_mprintf(insert, choice->all, choice->deleted, choice->changed, choice->named);
	int r = sql ? database_error(sqlite3_exec(c->db, sql, NULL, NULL, NULL)) : -ENOMEM;

	sqlite3_free(sql);
	if (r == 0)
		r = count_of(c, "SELECT count(*) FROM wanted WHERE NOT replaced", &out->deleted);
	if (r == 0)
		r = count_of(c, "SELECT count(*) FROM wanted WHERE replaced", &out->changed);
	if (r == 0)
		r = count_of(c,
			     "SELECT count(*) FROM named WHERE id NOT IN (SELECT id FROM record "
			     "WHERE moment = 0)",
			     &out->unknown);
	return r;
}

int compare_find_after(struct compare *c, const char *id, char out[CHROMA_ID_SIZE])
{
	sqlite3_stmt *row = NULL;
	int r = database_prepare(c->db, &row,
				 "SELECT id FROM collection WHERE moment = 1 AND twin = ?");

	out[0] = '\0';
	if (r == 0) {
		sqlite3_bind_text(row, 1, id, -1, SQLITE_STATIC);
		r = database_step(row);
	}
	if (r == 1)
		snprintf(out, CHROMA_ID_SIZE, "%s", (const char *)sqlite3_column_text(row, 0));
	sqlite3_finalize(row);
	return r < 0 ? r : 0;
}

int compare_each_wanted(struct compare *c, int (*each)(void *context, const char *id, size_t size),
			void *context)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(c->db, &rows, "SELECT id FROM wanted ORDER BY id");

	while (r == 0 && (r = database_step(rows)) == 1)
		r = each(context, (const char *)sqlite3_column_text(rows, 0),
			 (size_t)sqlite3_column_bytes(rows, 0));
	sqlite3_finalize(rows);
	return r;
}
