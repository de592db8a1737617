/* SPDX-License-Identifier: MIT */
#include "core/chroma/table_roots.h"

#include <string.h>

#include "core/sqlite/page.h"
#include "core/sqlite/tree.h"

#define DEPTH 3	  /* levels below page 1, which is a page of the schema's table itself */
#define LEVELS 20 /* SQLite's own bound */
#define PAGES 256 /* a schema that takes more is none of Chroma's */

struct walk {
	struct table_roots *out;
	const struct file_source *database;
	unsigned char *room; /* a page for each level */
	uint32_t page_size, usable, left;
};

static bool is_named(const struct sqlite_value *v, const char *name)
{
	return v->bytes && v->size == strlen(name) && memcmp(v->bytes, name, v->size) == 0;
}

/* The full-text index is kept in tables of its own, but for the virtual one, which has no root. */
static enum table_kind kind_of(const struct sqlite_value *table)
{
	static const char *const records[] = {
	    "embeddings",
	    "embedding_metadata",
	    "embedding_metadata_array",
	    "embedding_fulltext_search_data",
	    "embedding_fulltext_search_idx",
	    "embedding_fulltext_search_content",
	    "embedding_fulltext_search_docsize",
	    "embedding_fulltext_search_config",
	};
	size_t i;

	for (i = 0; i < sizeof(records) / sizeof(*records); i++)
		if (is_named(table, records[i]))
			return TABLE_RECORDS;
	if (is_named(table, "max_seq_id"))
		return TABLE_MARKS;
	if (is_named(table, "embeddings_queue"))
		return TABLE_QUEUE;
	if (is_named(table, "migrations"))
		return TABLE_MIGRATIONS;
	return is_named(table, "acquire_write") ? TABLE_ACQUIRE : TABLE_ANY_OTHER;
}

/* sqlite_master(type, name, tbl_name, rootpage, sql): the text may be on other pages. */
static bool table_root_add(struct walk *w, const struct sqlite_tree_cell *cell)
{
	struct table_roots *out = w->out;
	struct sqlite_record row;
	const struct sqlite_value *root = &row.values[3];

	if (sqlite_record_parse(&row, cell->local, cell->local_size, cell->size) < 0 ||
	    row.columns != 5 || !row.values[2].bytes)
		return false;
	if (root->type != SQLITE_VALUE_INTEGER || root->integer == 0)
		return true; /* a view, a trigger, a virtual table */
	if (root->integer < 2 || root->integer > UINT32_MAX || out->count == TABLE_ROOTS_MOST)
		return false;
	out->at[out->count].page = (uint32_t)root->integer;
	out->at[out->count++].kind = kind_of(&row.values[2]);
	return true;
}

static bool walk(struct walk *w, uint32_t number, unsigned depth)
{
	unsigned char *bytes = w->room + (size_t)depth * w->page_size;
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	uint32_t i;

	if (number == 0 || depth > DEPTH || !w->left-- ||
	    file_source_read(w->database, bytes, w->page_size,
			     (uint64_t)(number - 1) * w->page_size) < 0 ||
	    sqlite_tree_page_parse(&page, bytes, w->page_size, w->usable, number) < 0)
		return false;
	if (page.kind != SQLITE_TABLE_LEAF && page.kind != SQLITE_TABLE_INTERIOR)
		return false;
	for (i = 0; i < page.cells; i++)
		if (sqlite_tree_cell(&page, i, &cell) < 0 ||
		    !(page.kind == SQLITE_TABLE_LEAF ? table_root_add(w, &cell)
						     : walk(w, cell.child, depth + 1)))
			return false;
	return page.kind == SQLITE_TABLE_LEAF || walk(w, page.right, depth + 1);
}

bool table_roots_read(struct table_roots *out, const struct file_source *database, void *room)
{
	struct walk w = {.out = out, .database = database, .room = room, .left = PAGES};
	struct sqlite_header header;

	out->count = 0;
	if (file_source_read(database, room, SQLITE_HEADER_SIZE, 0) < 0 ||
	    sqlite_header_parse(&header, room, SQLITE_HEADER_SIZE) < 0)
		return false;
	w.page_size = header.page_size;
	w.usable = header.page_size - header.reserved;
	out->page_size = header.page_size;
	out->cookie = header.schema_cookie;
	return walk(&w, 1, 0);
}

enum table_kind table_root_kind(const struct table_roots *r, uint32_t page)
{
	uint32_t i;

	for (i = 0; i < r->count; i++)
		if (r->at[i].page == page)
			return r->at[i].kind;
	return TABLE_NONE;
}

static uint32_t root_of(const struct table_roots *r, enum table_kind kind)
{
	uint32_t i;

	for (i = 0; i < r->count; i++)
		if (r->at[i].kind == kind)
			return r->at[i].page;
	return 0;
}

uint32_t table_first_leaf(const struct table_roots *r, enum table_kind kind,
			  const struct file_source *database, void *room)
{
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	uint32_t number = root_of(r, kind), levels;

	for (levels = 0; levels < LEVELS; levels++) {
		if (number < 2 ||
		    file_source_read(database, room, r->page_size,
				     (uint64_t)(number - 1) * r->page_size) < 0 ||
		    sqlite_tree_page_parse(&page, room, r->page_size, r->page_size, number) < 0)
			return 0;
		if (page.kind != SQLITE_TABLE_INTERIOR)
			return levels ? number : 0;
		if (sqlite_tree_cell(&page, 0, &cell) < 0)
			return 0; /* the last rows are all that there are */
		number = cell.child;
	}
	return 0;
}
