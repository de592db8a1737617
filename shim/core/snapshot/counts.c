/* SPDX-License-Identifier: MIT
 *
 * Counting records by what has changed.
 */
#include "core/snapshot/counts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/chroma/chroma.h"
#include "core/sqlite/page.h"
#include "core/sqlite/rows_between.h"

#define ID_LENGTH 36u /* of a UUID */
#define OTHERS 1024u  /* segments with changed rows; with more of them all is counted */

struct delta {
	char segment[CHROMA_ID_SIZE];
	int64_t rows;
};

struct counting {
	const struct counts_since *since;
	uint32_t column; /* of the segment in a row of embeddings */
	struct delta *all;
	size_t count, last;
};

static bool is_same(void *context, uint64_t offset, uint64_t length)
{
	const struct counts_since *s = ((struct counting *)context)->since;

	return s->is_same(s->context, offset, length);
}

/* ---- rows ---- */

static int note_any(void *context, const struct sqlite_record *row, int sign)
{
	(void)context;
	(void)row;
	(void)sign;
	return 1;
}

static struct delta *find_delta(struct counting *c, const struct sqlite_value *segment)
{
	size_t i, n = ID_LENGTH;

	if (c->count && !memcmp(c->all[c->last].segment, segment->bytes, n))
		return &c->all[c->last];
	for (i = 0; i < c->count && memcmp(c->all[i].segment, segment->bytes, n) != 0; i++)
		;
	if (i == OTHERS)
		return NULL;
	if (i == c->count) {
		memcpy(c->all[i].segment, segment->bytes, n);
		c->count++;
	}
	c->last = i;
	return &c->all[i];
}

static int note_record(void *context, const struct sqlite_record *row, int sign)
{
	struct counting *c = context;
	const struct sqlite_value *segment = &row->values[c->column];
	struct delta *d;

	if (row->columns <= c->column || segment->type != SQLITE_VALUE_TEXT || !segment->bytes ||
	    segment->size != ID_LENGTH)
		return -EBADMSG;
	d = find_delta(c, segment);
	if (!d)
		return -E2BIG;
	d->rows += sign;
	return 0;
}

/* 0: all has been told to row(), and there was nothing that ended it. */
static int compare_table(struct counting *c, const struct manifest *m, sqlite3 *db,
			 const char *table,
			 int (*row)(void *context, const struct sqlite_record *row, int sign))
{
	struct sqlite_rows_between between = {.before = c->since->before,
					      .after = c->since->now,
					      .page_size = m->header.page_size,
					      .usable = m->header.page_size,
					      .is_same = is_same,
					      .row = row,
					      .context = c};
	int64_t root;
	int r = database_number(
	    db, "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = ?", table,
	    &root);

	if (r < 0 || root <= 0 || root > UINT32_MAX)
		return -EBADMSG;
	return sqlite_rows_between(&between, (uint32_t)root);
}

/* ---- collections ---- */

static int copy_collections(struct manifest *m, const struct manifest *earlier)
{
	uint32_t i;
	int r = 0;

	for (i = 0; i < earlier->collection_count && r == 0; i++)
		r = manifest_add_collection(m, earlier->collections[i].id,
					    earlier->collections[i].name,
					    earlier->collections[i].records);
	return r;
}

/* What belongs to no collection is not counted, then or now. */
static int apply_delta(struct manifest *m, sqlite3 *db, const struct delta *d)
{
	sqlite3_stmt *s = NULL;
	int r = database_prepare(db, &s, "SELECT collection FROM segments WHERE id = ?");
	uint32_t i;

	if (r == 0)
		sqlite3_bind_text(s, 1, d->segment, -1, SQLITE_STATIC);
	r = r == 0 ? database_step(s) : r;
	if (r == 1) {
		const char *id = (const char *)sqlite3_column_text(s, 0);

		for (i = 0; id && i < m->collection_count; i++)
			if (!strcmp(m->collections[i].id, id))
				break;
		if (id && i < m->collection_count) {
			m->collections[i].records += (uint64_t)d->rows;
			r = (int64_t)m->collections[i].records < 0 ? -EBADMSG : 0;
		}
	}
	sqlite3_finalize(s);
	return r < 0 ? r : 0;
}

/* The number of bytes at the end of each page that SQLite leaves alone: Chroma has none. */
static bool has_whole_pages(const struct file_source *database)
{
	unsigned char page[SQLITE_HEADER_SIZE];
	struct sqlite_header h;

	return file_source_read(database, page, sizeof(page), 0) == 0 &&
	       sqlite_header_parse(&h, page, sizeof(page)) == 0 && h.reserved == 0;
}

static bool is_same_database(const struct manifest *m, const struct counts_since *since)
{
	const struct snapshot_header *a = &m->header, *b = &since->earlier->header;

	return a->page_size && a->page_size == b->page_size &&
	       a->schema_cookie == b->schema_cookie && has_whole_pages(since->before) &&
	       has_whole_pages(since->now);
}

bool counts_note(struct manifest *m, sqlite3 *db, const struct counts_since *since)
{
	struct counting c = {.since = since, .all = calloc(OTHERS, sizeof(*c.all))};
	int64_t column = -1;
	size_t i;
	int r = c.all && is_same_database(m, since) ? 0 : -ENOTSUP;

	if (r == 0)
		r = database_number(
		    db, "SELECT cid FROM pragma_table_info('embeddings') WHERE name = ?",
		    "segment_id", &column);
	if (r == 0 && (column < 1 || column >= SQLITE_TREE_COLUMNS))
		r = -EBADMSG;
	c.column = (uint32_t)column;
	if (r == 0)
		r = compare_table(&c, m, db, "collections", note_any);
	if (r == 0)
		r = compare_table(&c, m, db, "segments", note_any);
	if (r == 0)
		r = compare_table(&c, m, db, "embeddings", note_record);
	if (r == 0)
		r = copy_collections(m, since->earlier);
	for (i = 0; i < c.count && r == 0; i++)
		r = c.all[i].rows ? apply_delta(m, db, &c.all[i]) : 0;
	if (r == 0)
		r = since->judge(since->context);
	free(c.all);
	if (r != 0)
		manifest_forget_collections(m);
	return r == 0;
}
