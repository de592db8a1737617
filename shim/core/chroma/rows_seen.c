/* SPDX-License-Identifier: MIT */
#include "core/chroma/rows_seen.h"

#include <string.h>

#include "core/base/checksum.h"
#include "core/sqlite/page.h"

#define LEAF 0x0d /* of a table */
#define UUID 36	  /* characters */
#define TOPIC "persistent://"
#define SCHEMA_PAGES 256

/* ---- the shapes of rows ---- */

static bool is_text(const struct sqlite_value *v)
{
	return v->type == SQLITE_VALUE_TEXT;
}

/* Long ones may be behind the row's beginning: no bytes of them then. */
static bool is_text_or_null(const struct sqlite_value *v)
{
	return is_text(v) || v->type == SQLITE_VALUE_NULL;
}

static bool is_integer_or_null(const struct sqlite_value *v)
{
	return v->type == SQLITE_VALUE_INTEGER || v->type == SQLITE_VALUE_NULL;
}

static bool is_uuid(const struct sqlite_value *v)
{
	return is_text(v) && v->size == UUID && v->bytes && v->bytes[8] == '-' &&
	       v->bytes[13] == '-' && v->bytes[18] == '-' && v->bytes[23] == '-';
}

static bool begins_with(const struct sqlite_value *v, const char *text)
{
	size_t n = strlen(text);

	return is_text(v) && v->bytes && v->size >= n && memcmp(v->bytes, text, n) == 0;
}

/* seq_id, which is the rowid and so NULL in the row, created_at, operation, topic, id, vector,
 * encoding, metadata */
static bool is_queue_row(const struct sqlite_record *row)
{
	const struct sqlite_value *v = row->values;

	return row->columns == 8 && v[0].type == SQLITE_VALUE_NULL &&
	       v[2].type == SQLITE_VALUE_INTEGER && begins_with(&v[3], TOPIC) && is_text(&v[4]);
}

/* id, name, dimension, database_id, and in later releases config_json_str, schema_str */
static bool is_collection_row(const struct sqlite_record *row)
{
	const struct sqlite_value *v = row->values;

	return row->columns >= 4 && row->columns <= 6 && is_uuid(&v[0]) && is_text(&v[1]) &&
	       is_integer_or_null(&v[2]) && is_uuid(&v[3]) &&
	       (row->columns < 5 || is_text_or_null(&v[4])) &&
	       (row->columns < 6 || is_text_or_null(&v[5]));
}

/* id, type, scope, collection */
static bool is_segment_row(const struct sqlite_record *row)
{
	const struct sqlite_value *v = row->values;

	return row->columns == 4 && is_uuid(&v[0]) && begins_with(&v[1], "urn:") &&
	       is_text(&v[2]) && v[2].bytes && is_uuid(&v[3]);
}

/* dir, version, filename, sql, hash */
static bool is_migration_row(const struct sqlite_record *row)
{
	const struct sqlite_value *v = row->values;

	return row->columns == 5 && is_text(&v[0]) && v[0].bytes &&
	       v[1].type == SQLITE_VALUE_INTEGER && is_text(&v[2]) && v[2].bytes && v[2].size > 4 &&
	       memcmp(v[2].bytes + v[2].size - 4, ".sql", 4) == 0 && is_text(&v[3]) &&
	       is_text(&v[4]);
}

static enum rows_table table_of(const struct sqlite_record *row)
{
	if (is_queue_row(row))
		return ROWS_QUEUE;
	if (is_collection_row(row))
		return ROWS_COLLECTIONS;
	if (is_segment_row(row))
		return ROWS_SEGMENTS;
	return is_migration_row(row) ? ROWS_MIGRATIONS : ROWS_TABLES;
}

static bool read_row(struct sqlite_record *out, const struct sqlite_tree_cell *cell)
{
	return sqlite_record_parse(out, cell->local, cell->local_size, cell->size) == 0;
}

/* ---- rows of the queue ---- */

static struct rows_text text_of(const struct sqlite_value *v)
{
	return (struct rows_text){(const char *)v->bytes, v->bytes ? v->size : 0};
}

/* What comes after the last slash; the whole of it must be in the row's beginning. */
static struct rows_text collection_of(const struct sqlite_value *topic)
{
	struct rows_text all = text_of(topic);
	const char *slash = all.bytes ? memrchr(all.bytes, '/', all.size) : NULL;

	if (!slash)
		return (struct rows_text){NULL, 0};
	return (struct rows_text){slash + 1, all.size - (size_t)(slash + 1 - all.bytes)};
}

static bool is_topic(const struct rows_topic *t, struct rows_text id)
{
	return t->id_size == id.size && memcmp(t->id, id.bytes, id.size) == 0;
}

/* Rows of one collection mostly come together. */
static struct rows_topic *find_topic(struct rows_seen *r, const struct sqlite_record *row)
{
	struct rows_text id = collection_of(&row->values[3]);
	struct rows_topic *t = NULL;
	uint32_t i;

	if (!id.size || id.size > ROWS_ID)
		return NULL;
	if (r->topic_last < r->topics_count && is_topic(&r->topics[r->topic_last], id))
		return &r->topics[r->topic_last];
	for (i = 0; i < r->topics_count && !t; i++)
		if (is_topic(&r->topics[i], id))
			t = &r->topics[i];
	if (!t && r->topics_count < ROWS_TOPICS) {
		t = &r->topics[r->topics_count++];
		memset(t, 0, sizeof(*t));
		memcpy(t->id, id.bytes, id.size);
		t->id_size = (uint8_t)id.size;
	}
	if (t)
		r->topic_last = (uint32_t)(t - r->topics);
	return t;
}

static void old_queue_row(struct rows_topic *t, int64_t rowid)
{
	if (!t->old++)
		t->old_first = rowid;
	t->old_last = rowid;
}

static void note_id(struct rows_seen *r, struct rows_topic *t, unsigned operation)
{
	const struct sqlite_value *id = &r->record.values[4];
	unsigned char *at = r->ids + r->ids_size;
	uint8_t n;

	if (!id->bytes || !r->id || sizeof(r->ids) - r->ids_size < 3 + UINT8_MAX)
		return;
	n = r->id(r->context, id->bytes, id->size, at + 3);
	if (!n)
		return;
	at[0] = (uint8_t)(t - r->topics);
	at[1] = (uint8_t)operation;
	at[2] = n;
	r->ids_size += n + 3u;
	t->ids++;
}

/*
 * Chroma before 1.0 persists and purges in the transaction that brings the rows: those that are
 * gone by its end were of the same call as the one behind them, which stays.
 */
static void new_queue_row(struct rows_seen *r, struct rows_topic *t, int64_t rowid)
{
	int64_t operation = r->record.values[2].integer;
	bool is_known = operation >= 0 && operation < ROWS_OPERATIONS - 1;
	uint32_t gone = (uint32_t)(rowid - r->next);

	if (!t->count)
		t->first = r->next;
	t->last = rowid;
	t->gone += gone;
	if (gone)
		t->gone_last = rowid - 1;
	t->count += gone + 1;
	t->by_operation[is_known ? operation : ROWS_OPERATIONS - 1] += gone + 1;
	note_id(r, t, operation >= 0 && operation <= UINT8_MAX ? (unsigned)operation : UINT8_MAX);
	r->next = rowid + 1;
}

static void queue_row(struct rows_seen *r, int64_t rowid)
{
	struct rows_topic *t = is_queue_row(&r->record) ? find_topic(r, &r->record) : NULL;

	if (!t)
		*(r->is_before ? &r->is_old_known : &r->more) = !r->is_before;
	else if (r->is_before)
		old_queue_row(t, rowid);
	else if (rowid > r->highest.row[ROWS_QUEUE])
		new_queue_row(r, t, rowid);
	else if (!t->left++)
		t->left_first = rowid;
}

/* ---- rows of `collections` ---- */

static uint64_t sum_value(const struct sqlite_value *v, uint64_t seed)
{
	seed = checksum64(&v->size, sizeof(v->size), seed + (uint64_t)v->type);
	if (v->bytes)
		return checksum64(v->bytes, v->size, seed);
	return checksum64(&v->integer, sizeof(v->integer), seed);
}

/* What a release has no column for is as if there were nothing in it. */
static void sum_collection(const struct sqlite_record *row, uint64_t out[ROWS_PARTS])
{
	static const uint8_t columns[ROWS_PARTS] = {1, 2, 4, 5};
	static const struct sqlite_value none = {.type = SQLITE_VALUE_NULL};
	unsigned i;

	for (i = 0; i < ROWS_PARTS; i++)
		out[i] = sum_value(columns[i] < row->columns ? &row->values[columns[i]] : &none, i);
}

static void old_collection_row(struct rows_seen *r)
{
	const struct sqlite_value *v = r->record.values;
	struct rows_old *o = &r->olds[r->old_count];
	size_t n = v[1].bytes ? v[1].size : 0;

	if (r->old_count == ROWS_OLD || n > sizeof(r->names) - r->names_size) {
		r->is_full = true;
		return;
	}
	memcpy(o->id, v[0].bytes, UUID);
	o->id_size = UUID;
	o->is_there = false;
	o->name = r->names_size;
	o->name_size = (uint16_t)n;
	if (n)
		memcpy(r->names + r->names_size, v[1].bytes, n);
	sum_collection(&r->record, o->sums);
	r->names_size += (uint32_t)n;
	r->old_count++;
}

static struct rows_old *find_old(struct rows_seen *r, struct rows_text id)
{
	uint32_t i;

	for (i = 0; i < r->old_count; i++)
		if (r->olds[i].id_size == id.size && memcmp(r->olds[i].id, id.bytes, id.size) == 0)
			return &r->olds[i];
	return NULL;
}

static struct rows_text old_name(const struct rows_seen *r, const struct rows_old *o)
{
	return (struct rows_text){r->names + o->name, o->name_size};
}

static void tell(struct rows_seen *r, struct rows_event event)
{
	if (r->event)
		r->event(r->context, &event);
}

static unsigned changed_parts(const struct rows_seen *r, const struct rows_old *o)
{
	uint64_t sums[ROWS_PARTS];
	unsigned i, parts = 0;

	sum_collection(&r->record, sums);
	for (i = 0; i < ROWS_PARTS; i++)
		parts |= (unsigned)(sums[i] != o->sums[i]) << i;
	return parts;
}

/* A row that was not saved and is not new is from a page that is no more. */
static void collection_row(struct rows_seen *r, int64_t rowid)
{
	const struct sqlite_value *v = r->record.values;
	struct rows_event event = {.kind = ROWS_COLLECTION_CREATED};
	struct rows_old *o;

	if (!is_collection_row(&r->record))
		return;
	event.collection = text_of(&v[0]);
	event.name = text_of(&v[1]);
	event.number = v[2].integer;
	o = find_old(r, event.collection);
	if (!o && rowid > r->highest.row[ROWS_COLLECTIONS])
		tell(r, event);
	if (!o)
		return;
	o->is_there = true;
	event.parts = changed_parts(r, o);
	if (event.parts & 1u << ROWS_NAME) {
		event.kind = ROWS_COLLECTION_RENAMED;
		event.other = old_name(r, o);
		tell(r, event);
	}
	event.parts &= ~(1u << ROWS_NAME);
	event.other = (struct rows_text){NULL, 0};
	event.kind = ROWS_COLLECTION_CONFIGURED;
	if (event.parts)
		tell(r, event);
}

static void tell_deleted(struct rows_seen *r)
{
	uint32_t i;

	for (i = 0; i < r->old_count; i++)
		if (!r->olds[i].is_there)
			tell(r,
			     (struct rows_event){.kind = ROWS_COLLECTION_DELETED,
						 .collection = {r->olds[i].id, r->olds[i].id_size},
						 .name = old_name(r, &r->olds[i])});
}

/* ---- rows of the others ---- */

static void segment_row(struct rows_seen *r)
{
	const struct sqlite_value *v = r->record.values;

	if (is_segment_row(&r->record))
		tell(r, (struct rows_event){.kind = ROWS_SEGMENT,
					    .collection = text_of(&v[3]),
					    .name = text_of(&v[0]),
					    .other = text_of(&v[2])});
}

static void migration_row(struct rows_seen *r)
{
	const struct sqlite_value *v = r->record.values;

	if (is_migration_row(&r->record))
		tell(r, (struct rows_event){.kind = ROWS_MIGRATION,
					    .name = text_of(&v[0]),
					    .other = text_of(&v[2]),
					    .number = v[1].integer});
}

/* ---- pages that pass by ---- */

void rows_begin(struct rows_seen *r, const struct rows_highest *highest)
{
	memset(r->is_touched, 0, sizeof(r->is_touched));
	r->more = r->is_full = r->is_old_known = false;
	r->highest = *highest;
	r->from = r->looked_from = INT64_MAX;
	r->topics_count = r->topic_last = r->ids_size = 0;
	r->ranges_count = r->old_count = r->names_size = 0;
}

/* The page, and which table it is of, as its first row tells. */
static enum rows_table look(struct rows_seen *r, const void *bytes, uint32_t size,
			    struct sqlite_tree_page *page)
{
	struct sqlite_tree_cell cell;

	if (*(const unsigned char *)bytes != LEAF ||
	    sqlite_tree_page_parse(page, bytes, size, size, 0) < 0 ||
	    sqlite_tree_cell(page, 0, &cell) < 0 || !read_row(&r->record, &cell))
		return ROWS_TABLES;
	return table_of(&r->record);
}

static int64_t rowid_of(const struct sqlite_tree_page *page, uint32_t i)
{
	struct sqlite_tree_cell cell;

	return sqlite_tree_cell(page, i, &cell) < 0 ? 0 : cell.rowid;
}

static void add_range(struct rows_seen *r, int64_t first, int64_t last)
{
	struct rows_range *end = &r->ranges[r->ranges_count];

	if (r->ranges_count == ROWS_RANGES)
		r->is_full = true;
	else
		*end = (struct rows_range){first, last}, r->ranges_count++;
}

static void old_collections(struct rows_seen *r, const struct sqlite_tree_page *page)
{
	struct sqlite_tree_cell cell;
	uint32_t i;

	for (i = 0; i < page->cells; i++)
		if (sqlite_tree_cell(page, i, &cell) == 0 && read_row(&r->record, &cell) &&
		    is_collection_row(&r->record))
			old_collection_row(r);
}

void rows_page(struct rows_seen *r, const void *bytes, uint32_t size, bool is_old)
{
	struct sqlite_tree_page page;
	enum rows_table table = look(r, bytes, size, &page);
	int64_t first;

	if (table == ROWS_TABLES)
		return;
	r->is_touched[table] = true;
	first = rowid_of(&page, 0);
	if (table == ROWS_QUEUE && is_old && first < r->from)
		r->from = first;
	if (table == ROWS_COLLECTIONS)
		add_range(r, first, rowid_of(&page, page.cells - 1));
	if (table == ROWS_COLLECTIONS && is_old)
		old_collections(r, &page);
}

/* ---- the database ---- */

static int walk_row(void *context, const struct sqlite_tree_cell *cell)
{
	struct rows_seen *r = context;

	if (!read_row(&r->record, cell))
		return 0;
	switch (r->table) {
	case ROWS_QUEUE:
		queue_row(r, cell->rowid);
		break;
	case ROWS_COLLECTIONS:
		collection_row(r, cell->rowid);
		break;
	case ROWS_SEGMENTS:
		segment_row(r);
		break;
	default:
		migration_row(r);
		break;
	}
	return 0;
}

static void walk_open(struct rows_seen *r, const struct file_source *database,
		      const struct rows_roots *roots)
{
	r->walk = (struct sqlite_walk){
	    .source = database,
	    .room = r->room,
	    .page_size = roots->page_size,
	    .usable = roots->usable,
	    .left = ROWS_PAGES,
	    .row = walk_row,
	    .context = r,
	};
}

/* sqlite_master(type, name, tbl_name, rootpage, sql) */
static int schema_row(void *context, const struct sqlite_tree_cell *cell)
{
	static const char *const names[ROWS_TABLES] = {
	    [ROWS_QUEUE] = "embeddings_queue",
	    [ROWS_COLLECTIONS] = "collections",
	    [ROWS_SEGMENTS] = "segments",
	    [ROWS_MIGRATIONS] = "migrations",
	};
	struct rows_seen *r = ((void **)context)[0];
	struct rows_roots *out = ((void **)context)[1];
	const struct sqlite_value *v = r->record.values;
	unsigned i;

	if (!read_row(&r->record, cell) || r->record.columns != 5 || !begins_with(&v[0], "table") ||
	    !v[1].bytes || v[3].type != SQLITE_VALUE_INTEGER || v[3].integer < 2 ||
	    v[3].integer > UINT32_MAX)
		return 0;
	for (i = 0; i < ROWS_TABLES; i++)
		if (v[1].size == strlen(names[i]) && memcmp(v[1].bytes, names[i], v[1].size) == 0)
			out->root[i] = (uint32_t)v[3].integer;
	return 0;
}

static bool read_roots(struct rows_seen *r, const struct file_source *database,
		       struct rows_roots *out)
{
	struct sqlite_header h;
	void *both[] = {r, out};

	*out = (struct rows_roots){0};
	if (file_source_read(database, r->room, SQLITE_HEADER_SIZE, 0) < 0 ||
	    sqlite_header_parse(&h, r->room, SQLITE_HEADER_SIZE) < 0 ||
	    h.page_size > ROWS_PAGE_MAX || h.reserved > h.page_size / 2)
		return false;
	out->page_size = h.page_size;
	out->usable = h.page_size - h.reserved;
	out->page_count = h.page_count;
	out->counter = h.change_counter;
	out->cookie = h.schema_cookie;
	walk_open(r, database, out);
	r->walk.row = schema_row;
	r->walk.context = both;
	return sqlite_walk(&r->walk, 1, 1, INT64_MAX) == 0;
}

static int64_t last_row(struct rows_seen *r, uint32_t root)
{
	int64_t last = 0;

	if (root && sqlite_walk_last(&r->walk, root, &last) < 0)
		return ROWS_UNKNOWN;
	return last < 0 ? ROWS_UNKNOWN : last;
}

bool rows_read(struct rows_seen *r, const struct file_source *database, struct rows_roots *roots,
	       struct rows_highest *highest)
{
	unsigned i;

	if (!read_roots(r, database, roots))
		return false;
	walk_open(r, database, roots);
	for (i = 0; i < ROWS_TABLES; i++)
		highest->row[i] = last_row(r, roots->root[i]);
	return true;
}

void rows_before(struct rows_seen *r, const struct file_source *database,
		 const struct rows_roots *roots, bool more)
{
	int64_t highest = r->highest.row[ROWS_QUEUE];

	r->looked_from = more ? 1 : r->from;
	r->is_old_known = roots->root[ROWS_QUEUE] != 0;
	if (!r->is_old_known || r->looked_from > highest)
		return;
	walk_open(r, database, roots);
	r->table = ROWS_QUEUE;
	r->is_before = true;
	if (sqlite_walk(&r->walk, roots->root[ROWS_QUEUE], r->looked_from, highest) < 0)
		r->is_old_known = false;
}

/* First what is left of the rows that were there, then what is new. */
static void look_at_queue(struct rows_seen *r, uint32_t root)
{
	int64_t highest = r->highest.row[ROWS_QUEUE];

	if (r->from < r->looked_from)
		r->is_old_known = false;
	r->next = highest + 1;
	if (r->is_old_known && r->looked_from <= highest &&
	    sqlite_walk(&r->walk, root, r->looked_from, highest) < 0)
		r->is_old_known = false;
	r->walk.left = ROWS_PAGES;
	if (sqlite_walk(&r->walk, root, highest + 1, INT64_MAX) < 0)
		r->more = true;
}

/* In order, and none twice. */
static void sort_ranges(struct rows_seen *r)
{
	uint32_t i, k, n = 0;

	for (i = 0; i < r->ranges_count; i++) {
		struct rows_range range = r->ranges[i];

		for (k = i; k > 0 && r->ranges[k - 1].first > range.first; k--)
			r->ranges[k] = r->ranges[k - 1];
		r->ranges[k] = range;
	}
	for (i = 0; i < r->ranges_count; i++) {
		struct rows_range range = r->ranges[i], *end = &r->ranges[n - (n > 0)];

		if (n == 0 || range.first > end->last)
			r->ranges[n++] = range;
		else if (range.last > end->last)
			end->last = range.last;
	}
	r->ranges_count = n;
}

static void look_at_collections(struct rows_seen *r, uint32_t root)
{
	bool is_whole = !r->is_full;
	uint32_t i;

	sort_ranges(r);
	for (i = 0; i < r->ranges_count; i++)
		if (sqlite_walk(&r->walk, root, r->ranges[i].first, r->ranges[i].last) < 0)
			is_whole = false;
	if (is_whole)
		tell_deleted(r);
}

static void look_at(struct rows_seen *r, enum rows_table table, uint32_t root)
{
	r->table = table;
	r->is_before = false;
	r->walk.left = ROWS_PAGES;
	if (table == ROWS_QUEUE)
		look_at_queue(r, root);
	else if (table == ROWS_COLLECTIONS)
		look_at_collections(r, root);
	else
		sqlite_walk(&r->walk, root, r->highest.row[table] + 1, INT64_MAX);
}

void rows_committed(struct rows_seen *r, const struct file_source *database,
		    const struct rows_roots *roots, bool schema_changed,
		    struct rows_highest *highest)
{
	unsigned i;

	walk_open(r, database, roots);
	*highest = r->highest;
	for (i = 0; i < ROWS_TABLES; i++) {
		if (!r->is_touched[i] || !roots->root[i])
			continue;
		if (r->highest.row[i] != ROWS_UNKNOWN && (!schema_changed || i == ROWS_MIGRATIONS))
			look_at(r, i, roots->root[i]);
		r->walk.left = SQLITE_WALK_LEVELS;
		highest->row[i] = last_row(r, roots->root[i]);
	}
}
