/* SPDX-License-Identifier: MIT */
#include "core/chroma/acquire_row.h"

#include <string.h>

#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"

#define LEAF 0x0d   /* of a table */
#define PARENT 0x05 /* the same */
#define LEAF_HEADER 8
#define PARENT_HEADER 12
#define FREELIST_TRUNK 32 /* where page 1 names the first */
/* What of page 1's first 100 bytes a transaction without a new schema changes. */
#define COUNTERS_FIRST 24 /* change counter, page count, freelist */
#define COUNTERS_END 40
#define VERSIONS_FIRST 92 /* valid-for, version of the library */

/* ---- pages of acquire_write ---- */

/* id is the rowid and so a NULL in the record; serial types 8 and 9 are the numbers 0 and 1. */
static bool is_row(const unsigned char *p, size_t have)
{
	size_t rowid = 1, most = have < 10 ? have : 10;

	while (rowid < most && p[rowid] & 0x80 && rowid < 9)
		rowid++;
	p += rowid + 1;
	if (have < rowid + 1 + 3 || p[0] != 3 || p[1] != 0)
		return false;
	return p[2] == 1 || p[2] == 8 || p[2] == 9;
}

static bool is_cell(const unsigned char *page, uint32_t size, uint32_t at)
{
	if (at >= size || (page[at] != 3 && page[at] != 4))
		return false;
	return is_row(page + at, size - at);
}

static bool is_leaf(const unsigned char *page, uint32_t size)
{
	uint32_t i, n = get_be16(page + 3);

	if (page[0] != LEAF || n == 0 || LEAF_HEADER + 2 * n > size)
		return false;
	for (i = 0; i < n; i++)
		if (!is_cell(page, size, get_be16(page + LEAF_HEADER + 2 * i)))
			return false;
	return true;
}

/* One level of them is room for some 200 000 openings. */
static bool is_parent(const struct acquire_row *t, const unsigned char *page)
{
	uint32_t n = get_be16(page + 3), at, child = get_be32(page + 8);

	if (page[0] != PARENT)
		return false;
	if (n > 0) {
		at = get_be16(page + PARENT_HEADER);
		if (at > t->page_size - 4)
			return false;
		child = get_be32(page + at);
	}
	return child > 1 &&
	       t->read(t, t->room, t->page_size, (uint64_t)(child - 1) * t->page_size) &&
	       is_leaf(t->room, t->page_size);
}

static bool is_trunk(const struct acquire_row *t, uint32_t page)
{
	unsigned char first[4];

	return t->read(t, first, sizeof(first), FREELIST_TRUNK) && get_be32(first) == page;
}

/* ---- the journal ---- */

static const unsigned char *record(const struct acquire_row *t, uint32_t i, uint32_t *page)
{
	const unsigned char *p = t->journal + t->sector_size + (size_t)i * (t->page_size + 8);

	*page = get_be32(p);
	return p + 4;
}

static const unsigned char *saved(const struct acquire_row *t, uint32_t page)
{
	const unsigned char *bytes;
	uint32_t i, number;

	for (i = 0; i < t->records; i++) {
		bytes = record(t, i, &number);
		if (number == page)
			return bytes;
	}
	return NULL;
}

/* Its first bytes are zeros until it is synced, which comes after the lock for writing. */
bool acquire_row_header(struct acquire_row *t)
{
	unsigned char bytes[SQLITE_JOURNAL_HEADER_SIZE];
	struct sqlite_journal_header h;

	if (t->size < sizeof(bytes))
		return false;
	memcpy(bytes, t->journal, sizeof(bytes));
	if (get_be32(bytes) == 0)
		memcpy(bytes, sqlite_journal_magic, sizeof(sqlite_journal_magic));
	if (sqlite_journal_header_parse(&h, bytes, sizeof(bytes)) < 0)
		return false;
	t->page_size = h.page_size;
	t->sector_size = h.sector_size;
	return true;
}

bool acquire_row_open(struct acquire_row *t)
{
	size_t bytes;

	if (!acquire_row_header(t) || t->sector_size > t->size)
		return false;
	bytes = t->size - t->sector_size;
	t->records = (uint32_t)(bytes / (t->page_size + 8));
	return bytes % (t->page_size + 8) == 0 && t->records > 0 &&
	       bytes / (t->page_size + 8) <= ACQUIRE_ROW_PAGES;
}

bool acquire_row_saves(const struct acquire_row *t, uint32_t page, const unsigned char *bytes)
{
	return page == 1 || is_leaf(bytes, t->page_size) || is_parent(t, bytes) ||
	       is_trunk(t, page);
}

bool acquire_row_saved(const struct acquire_row *t)
{
	const unsigned char *bytes;
	uint32_t i, page, rows = 0;

	for (i = 0; i < t->records; i++) {
		bytes = record(t, i, &page);
		if (!acquire_row_saves(t, page, bytes))
			return false;
		/* A leaf that is full stays as it is, and its parent gets another one. */
		rows += page != 1 && (is_leaf(bytes, t->page_size) || is_parent(t, bytes));
	}
	return rows > 0;
}

/* The schema, and all of the header that is no counter, stays as it was. */
bool acquire_row_first_page(const unsigned char *old, const unsigned char *bytes, uint32_t size)
{
	return memcmp(old, bytes, COUNTERS_FIRST) == 0 &&
	       memcmp(old + COUNTERS_END, bytes + COUNTERS_END, VERSIONS_FIRST - COUNTERS_END) ==
		   0 &&
	       memcmp(old + SQLITE_HEADER_SIZE, bytes + SQLITE_HEADER_SIZE,
		      size - SQLITE_HEADER_SIZE) == 0;
}

bool acquire_row_writes(const struct acquire_row *t, uint32_t page, const unsigned char *bytes)
{
	const unsigned char *old = saved(t, page);

	if (page == 1)
		return old && acquire_row_first_page(old, bytes, t->page_size);
	return old || is_leaf(bytes, t->page_size);
}
