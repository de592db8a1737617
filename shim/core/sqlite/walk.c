/* SPDX-License-Identifier: MIT */
#include "core/sqlite/walk.h"

#include <errno.h>

static int read_page(struct sqlite_walk *w, uint32_t level, uint32_t number,
		     struct sqlite_tree_page *page)
{
	unsigned char *bytes = w->room + (size_t)level * w->page_size;

	if (number == 0)
		return -EBADMSG;
	if (w->there[level] != number) {
		if (!w->left)
			return -E2BIG;
		w->left--;
		w->there[level] = 0;
		if (file_source_read(w->source, bytes, w->page_size,
				     (uint64_t)(number - 1) * w->page_size) < 0)
			return -ENODATA;
		w->there[level] = number;
	}
	return sqlite_tree_page_parse(page, bytes, w->page_size, w->usable, number);
}

/* Where on an interior page a row is, if it is anywhere; *end: the last that can be there. */
static int child_of(const struct sqlite_tree_page *page, int64_t rowid, uint32_t *child,
		    int64_t *end)
{
	uint32_t from = 0, to = page->cells;
	struct sqlite_tree_cell cell;
	int r;

	*child = page->right;
	while (from < to) {
		uint32_t i = from + (to - from) / 2;

		r = sqlite_tree_cell(page, i, &cell);
		if (r < 0)
			return r;
		if (cell.rowid < rowid) {
			from = i + 1;
			continue;
		}
		to = i;
		*child = cell.child;
		*end = cell.rowid < *end ? cell.rowid : *end;
	}
	return 0;
}

/* The leaf that a row is on, if it is anywhere. */
static int find_leaf(struct sqlite_walk *w, uint32_t root, int64_t rowid,
		     struct sqlite_tree_page *page, int64_t *end)
{
	uint32_t level, number = root;
	int r;

	*end = INT64_MAX;
	for (level = 0; level < SQLITE_WALK_LEVELS; level++) {
		r = read_page(w, level, number, page);
		if (r < 0 || page->kind == SQLITE_TABLE_LEAF)
			return r;
		if (page->kind != SQLITE_TABLE_INTERIOR)
			return -EBADMSG;
		r = child_of(page, rowid, &number, end);
		if (r < 0)
			return r;
	}
	return -EBADMSG;
}

static int leaf_rows(const struct sqlite_walk *w, const struct sqlite_tree_page *page,
		     int64_t first, int64_t last)
{
	struct sqlite_tree_cell cell;
	uint32_t i;
	int r = 0;

	for (i = 0; i < page->cells && r == 0; i++) {
		r = sqlite_tree_cell(page, i, &cell);
		if (r == 0 && cell.rowid >= first && cell.rowid <= last)
			r = w->row(w->context, &cell);
	}
	return r;
}

int sqlite_walk(struct sqlite_walk *w, uint32_t root, int64_t first, int64_t last)
{
	struct sqlite_tree_page page;
	int64_t end;
	int r;

	for (;;) {
		r = find_leaf(w, root, first, &page, &end);
		if (r == 0)
			r = leaf_rows(w, &page, first, last);
		if (r != 0 || end >= last)
			return r;
		first = end + 1;
	}
}

int sqlite_walk_last(struct sqlite_walk *w, uint32_t root, int64_t *rowid)
{
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell = {.rowid = 0};
	int64_t end;
	int r = find_leaf(w, root, INT64_MAX, &page, &end);

	if (r == 0 && page.cells)
		r = sqlite_tree_cell(&page, page.cells - 1, &cell);
	*rowid = cell.rowid;
	return r;
}
