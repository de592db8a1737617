/* SPDX-License-Identifier: MIT
 *
 * Comparing two moments of a table.
 */
#include "core/sqlite/rows_between.h"

#include <errno.h>
#include <stdlib.h>

#define LEVELS 16u /* more than a table can have */

struct pages {
	uint32_t *all;
	size_t count, room;
};

static int add_page(struct pages *p, uint32_t number)
{
	if (p->count == p->room) {
		size_t room = p->room ? 2 * p->room : 64;
		uint32_t *more = reallocarray(p->all, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		p->all = more;
		p->room = room;
	}
	p->all[p->count++] = number;
	return 0;
}

static int read_page(const struct sqlite_rows_between *r, const struct file_source *source,
		     uint32_t number, unsigned char *room, struct sqlite_tree_page *out)
{
	int e = number ? file_source_read(source, room, r->page_size,
					  (uint64_t)(number - 1) * r->page_size)
		       : -EBADMSG;

	return e == 0 ? sqlite_tree_page_parse(out, room, r->page_size, r->usable, number) : e;
}

/* ---- which leaves it has ---- */

static int add_children(const struct sqlite_tree_page *page, struct pages *out)
{
	struct sqlite_tree_cell cell;
	uint32_t i;
	int e = 0;

	if (page->kind != SQLITE_TABLE_INTERIOR)
		return -EBADMSG;
	for (i = 0; i < page->cells && e == 0; i++) {
		e = sqlite_tree_cell(page, i, &cell);
		if (e == 0)
			e = add_page(out, cell.child);
	}
	return e == 0 ? add_page(out, page->right) : e;
}

/* The pages below those of a level, in `level`; 1: it was the leaves'. */
static int go_down(const struct sqlite_rows_between *r, const struct file_source *source,
		   struct pages *level, unsigned char *room)
{
	struct pages below = {NULL, 0, 0};
	struct sqlite_tree_page page;
	size_t i;
	int e = 0;

	for (i = 0; i < level->count && e == 0; i++) {
		e = read_page(r, source, level->all[i], room, &page);
		if (e == 0 && i == 0 && page.kind == SQLITE_TABLE_LEAF)
			return 1;
		if (e == 0)
			e = add_children(&page, &below);
		if (e == 0 && below.count > source->size / r->page_size)
			e = -EBADMSG; /* in a circle */
	}
	free(level->all);
	*level = below;
	return e;
}

static int compare_numbers(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int find_leaves(const struct sqlite_rows_between *r, const struct file_source *source,
		       uint32_t root, unsigned char *room, struct pages *out)
{
	unsigned levels;
	int e = add_page(out, root);

	for (levels = 0; e == 0 && levels < LEVELS; levels++)
		e = go_down(r, source, out, room);
	if (e == 1)
		qsort(out->all, out->count, sizeof(*out->all), compare_numbers);
	return e == 1 ? 0 : e < 0 ? e : -EBADMSG;
}

/* ---- the rows on those that differ ---- */

static int give_rows(const struct sqlite_rows_between *r, uint32_t number, int sign,
		     unsigned char *room)
{
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	struct sqlite_record record;
	uint32_t i;
	int e = read_page(r, sign < 0 ? r->before : r->after, number, room, &page);

	if (e == 0 && page.kind != SQLITE_TABLE_LEAF)
		e = -EBADMSG;
	for (i = 0; e == 0 && i < page.cells; i++) {
		e = sqlite_tree_cell(&page, i, &cell);
		if (e == 0)
			e = sqlite_record_parse(&record, cell.local, cell.local_size, cell.size);
		if (e == 0)
			e = r->row(r->context, &record, sign);
	}
	return e;
}

static int compare_leaves(const struct sqlite_rows_between *r, const struct pages *before,
			  const struct pages *after, unsigned char *room)
{
	size_t i = 0, j = 0;
	int e = 0;

	while (e == 0 && (i < before->count || j < after->count)) {
		uint32_t old = i < before->count ? before->all[i] : UINT32_MAX;
		uint32_t new = j < after->count ? after->all[j] : UINT32_MAX;
		uint32_t number = old < new ? old : new;
		bool is_same =
		    old == new &&
		    r->is_same(r->context, (uint64_t)(number - 1) * r->page_size, r->page_size);

		if (old == number && !is_same)
			e = give_rows(r, number, -1, room);
		if (e == 0 && new == number && !is_same)
			e = give_rows(r, number, 1, room);
		i += old == number;
		j += new == number;
	}
	return e;
}

int sqlite_rows_between(const struct sqlite_rows_between *r, uint32_t root)
{
	struct pages before = {NULL, 0, 0}, after = {NULL, 0, 0};
	unsigned char *room = malloc(r->page_size);
	int e = room ? find_leaves(r, r->before, root, room, &before) : -ENOMEM;

	if (e == 0)
		e = find_leaves(r, r->after, root, room, &after);
	if (e == 0)
		e = compare_leaves(r, &before, &after, room);
	free(before.all);
	free(after.all);
	free(room);
	return e;
}
