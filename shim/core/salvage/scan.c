/* SPDX-License-Identifier: MIT
 *
 * Listing the pages of a damaged database: what each is, which are free, and which tree leads to
 * it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/salvage/salvage.h"

#define GUESS_PAGES 4096 /* of the smallest size; where the page size is guessed from */

static const char lists[] =
    "CREATE TEMP TABLE page(no INTEGER PRIMARY KEY, kind INTEGER, mask INTEGER, columns INTEGER, "
    "tree INTEGER DEFAULT 0, certain INTEGER DEFAULT 0, free INTEGER DEFAULT 0);"
    "CREATE TEMP TABLE child(no INTEGER, parent INTEGER, PRIMARY KEY(no, parent)) WITHOUT ROWID;"
    "CREATE TEMP TABLE free(no INTEGER, trunk INTEGER, PRIMARY KEY(no, trunk)) WITHOUT ROWID;"
    "CREATE TEMP TABLE gap(tree INTEGER, low INTEGER, high INTEGER, is_deep INTEGER);"
    "CREATE TEMP TABLE damage(name TEXT PRIMARY KEY, root INTEGER, lacks INTEGER, doubtful "
    "INTEGER);"
    "CREATE TEMP TABLE uncertain(name TEXT, row INTEGER, PRIMARY KEY(name, row)) WITHOUT ROWID;"
    "CREATE TEMP TABLE harm(id INTEGER PRIMARY KEY);"
    "CREATE TEMP TABLE top(no INTEGER PRIMARY KEY);"
    "CREATE TEMP TABLE size(tree INTEGER PRIMARY KEY, pages INTEGER);";

void salvage_say(const struct salvage *s, const char *collection, const char *format, ...)
{
	char sentence[512];
	va_list ap;

	if (!s->help || !s->help->say)
		return;
	va_start(ap, format);
	vsnprintf(sentence, sizeof(sentence), format, ap);
	va_end(ap);
	s->help->say(s->help->context, collection, sentence);
}

int salvage_sql(struct salvage *s, const char *sql)
{
	return database_error(sqlite3_exec(s->to, sql, NULL, NULL, NULL));
}

/* ---- the page size ---- */

/* Bytes on pages of that size whose cells end where the page does. */
static uint64_t explained(struct salvage *s, uint32_t size)
{
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	uint64_t at, sum = 0, most = (uint64_t)GUESS_PAGES * 512;
	uint32_t i;

	for (at = 0; at + size <= s->source.size && at < most; at += size) {
		if (file_source_read(&s->source, s->page, size, at) < 0)
			break;
		if (sqlite_tree_page_parse(&page, s->page, size, size, at ? 2 : 1) < 0)
			continue;
		for (i = 0; i < page.cells; i++) {
			if (sqlite_tree_cell(&page, i, &cell) == 0 && cell.end == size) {
				sum += size;
				break;
			}
		}
	}
	return sum;
}

static void guess_page_size(struct salvage *s)
{
	static const uint32_t sizes[] = {4096, 8192, 16384, 32768, 65536, 2048, 1024, 512};
	uint64_t best = 0, sum;
	uint32_t i;

	s->page_size = sizes[0];
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		sum = explained(s, sizes[i]);
		if (sum > best) {
			best = sum;
			s->page_size = sizes[i];
		}
	}
}

static int open_pages(struct salvage *s)
{
	unsigned char head[SQLITE_HEADER_SIZE];
	int error = file_source_open_data(&s->source, s->fd);

	s->page = malloc(SQLITE_PAGE_MAX);
	if (error < 0 || !s->page)
		return error < 0 ? error : -ENOMEM;
	s->has_header = file_source_read(&s->source, head, sizeof(head), 0) == 0 &&
			sqlite_header_parse(&s->header, head, sizeof(head)) == 0;
	if (s->has_header)
		s->page_size = s->header.page_size;
	else
		guess_page_size(s);
	s->usable = s->page_size - (s->has_header ? s->header.reserved : 0);
	return 0;
}

/* ---- the list ---- */

static int read_bytes(struct salvage *s, uint32_t number, uint32_t *have_out)
{
	uint64_t at = (uint64_t)(number - 1) * s->page_size;
	uint64_t have = at < s->source.size ? s->source.size - at : 0;

	*have_out = have < s->page_size ? (uint32_t)have : s->page_size;
	return have ? file_source_read(&s->source, s->page, *have_out, at) : -ENODATA;
}

int salvage_read_page(struct salvage *s, uint32_t number, struct sqlite_tree_page *out)
{
	uint32_t have;
	int error = number ? read_bytes(s, number, &have) : -EBADMSG;

	return error < 0 ? error : sqlite_tree_page_parse(out, s->page, have, s->usable, number);
}

static int put_numbers(sqlite3_stmt *put, int64_t a, int64_t b, int64_t c, int64_t d)
{
	int error;

	sqlite3_bind_int64(put, 1, a);
	sqlite3_bind_int64(put, 2, b);
	sqlite3_bind_int64(put, 3, c);
	sqlite3_bind_int64(put, 4, d);
	error = database_step(put);
	sqlite3_reset(put);
	return error;
}

struct listing {
	struct salvage *s;
	sqlite3_stmt *page, *child, *free;
};

static int list_children(struct listing *l, const struct sqlite_tree_page *page, uint32_t number)
{
	struct sqlite_tree_cell cell;
	uint32_t i;
	int error = put_numbers(l->child, page->right, number, 0, 0);

	for (i = 0; error == 0 && i < page->cells; i++)
		if (sqlite_tree_cell(page, i, &cell) == 0)
			error = put_numbers(l->child, cell.child, number, 0, 0);
	return error;
}

/* A trunk page of the freelist by its form, for when page 1 does not lead there any more. */
static int list_trunk(struct listing *l, uint32_t number, uint32_t have)
{
	const unsigned char *p = l->s->page;
	uint64_t most = 4 * (l->s->source.size / l->s->page_size) + 1024;
	uint32_t count = get_be32(p + 4), i;
	int error;

	if (have < l->s->usable || count < 1 || count > l->s->usable / 4 - 2 ||
	    get_be32(p) > most || get_be32(p) == 1 || get_be32(p) == number)
		return 0;
	for (i = 0; i < count; i++) {
		uint32_t leaf = get_be32(p + 8 + 4 * i);

		if (leaf < 2 || leaf > most || leaf == number)
			return 0;
	}
	for (i = 0, error = 0; error == 0 && i < count; i++)
		error = put_numbers(l->free, get_be32(p + 8 + 4 * i), number, 0, 0);
	return error;
}

/* Whether the page in s->page is one of what Chroma's users would miss. */
static int has_rows(struct listing *l, uint32_t number, uint32_t have)
{
	static const uint32_t wanted = 1u << SHAPE_COLLECTIONS | 1u << SHAPE_EMBEDDINGS |
				       1u << SHAPE_QUEUE | 1u << SHAPE_METADATA;
	struct sqlite_tree_page page;
	uint32_t columns;

	return sqlite_tree_page_parse(&page, l->s->page, have, l->s->usable, number) == 0 &&
	       page.kind == SQLITE_TABLE_LEAF && salvage_shapes_of(&page, &columns) & wanted;
}

static int list_page(struct listing *l, uint32_t number)
{
	struct sqlite_tree_page page;
	uint32_t have, mask = 0, columns = 0;
	int error = read_bytes(l->s, number, &have);

	if (error < 0 || have < 16)
		return error == -ENODATA ? 0 : error;
	l->s->pages++;
	if (!l->page) /* only asked */
		return has_rows(l, number, have);
	if (sqlite_tree_page_parse(&page, l->s->page, have, l->s->usable, number) < 0)
		return number > 1 && l->s->page[0] == 0 ? list_trunk(l, number, have) : 0;
	if (page.kind == SQLITE_TABLE_LEAF)
		mask = salvage_shapes_of(&page, &columns);
	error = put_numbers(l->page, number, page.kind, mask, columns);
	if (error == 0 && page.kind == SQLITE_TABLE_INTERIOR)
		error = list_children(l, &page, number);
	return error;
}

/* Holes are passed over: a file of terabytes may hold a few pages. */
static int list_pages(struct listing *l)
{
	struct salvage *s = l->s;
	uint64_t at = 0, end;
	int error = 0;

	while (error == 0 && at < s->source.size) {
		off_t data = lseek(s->fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(s->fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		at = (uint64_t)data / s->page_size * s->page_size;
		end = (uint64_t)hole < s->source.size ? (uint64_t)hole : s->source.size;
		for (; error == 0 && at < end && at / s->page_size < UINT32_MAX; at += s->page_size)
			error = list_page(l, (uint32_t)(at / s->page_size) + 1);
		if (at / s->page_size >= UINT32_MAX)
			break;
	}
	return error;
}

bool salvage_has_rows(int fd)
{
	struct salvage s = {.fd = fd};
	struct listing l = {.s = &s};
	int r = open_pages(&s);

	if (r == 0)
		r = list_pages(&l);
	free(s.page);
	return r > 0;
}

/* ---- the freelist ---- */

static int list_free(void *context, uint32_t page, bool is_trunk)
{
	(void)is_trunk;
	return put_numbers(context, page, 0, 0, 0);
}

/* As page 1 tells, or else by the form of its trunk pages. */
static int mark_free(struct salvage *s, sqlite3_stmt *put)
{
	int error = -EBADMSG;

	if (s->has_header)
		error = sqlite_freelist_walk(&s->header, &s->source, list_free, put);
	s->has_freelist = error == 0;
	if (error < 0 && error != -EBADMSG && error != -ENODATA)
		return error;
	error = s->has_freelist ? salvage_sql(s, "DELETE FROM free WHERE trunk") : 0;
	if (error == 0)
		error =
		    salvage_sql(s, "UPDATE page SET free = 1 WHERE no IN (SELECT no FROM free)");
	return error;
}

/*
 * A free page may hold what it was when it was a trunk page: such a one lists pages that trees lead
 * to by now, or is listed itself.
 */
static int drop_stale_trunks(struct salvage *s)
{
	return salvage_sql(
	    s, "DELETE FROM free WHERE trunk IN (SELECT trunk FROM free JOIN page USING (no) WHERE "
	       "trunk AND tree);"
	       "DELETE FROM free WHERE trunk IN (SELECT no FROM free);"
	       "UPDATE page SET free = 0 WHERE free AND no NOT IN (SELECT no FROM free)");
}

int salvage_scan(struct salvage *s)
{
	struct listing l = {.s = s};
	int error = open_pages(s);

	if (error == 0)
		error = salvage_sql(s, lists);
	if (error == 0)
		error = database_prepare(
		    s->to, &l.page,
		    "INSERT OR IGNORE INTO page(no, kind, mask, columns) VALUES (?, ?, ?, ?)");
	if (error == 0)
		error =
		    database_prepare(s->to, &l.child, "INSERT OR IGNORE INTO child VALUES (?, ?)");
	if (error == 0)
		error =
		    database_prepare(s->to, &l.free, "INSERT OR IGNORE INTO free VALUES (?, ?)");
	if (error == 0)
		error = list_pages(&l);
	if (error == 0)
		error = mark_free(s, l.free);
	sqlite3_finalize(l.page);
	sqlite3_finalize(l.child);
	sqlite3_finalize(l.free);
	sqlite_record_reader_open(&s->reader, &s->source, s->page_size, s->usable,
				  8 * s->pages + 1024);
	return error;
}

/* ---- trees ---- */

struct branch {
	uint32_t page;
	int64_t low, high; /* its rows are above low, up to high */
};

struct climb {
	struct salvage *s;
	uint32_t root;
	bool is_certain;
	enum sqlite_tree_kind interior, leaf; /* of a table, or of an index */
	sqlite3_stmt *take, *gap;
	struct branch *todo; /* each page is there once at most */
	size_t count, room;
};

/* 0: there is no such page, or it is taken; else its kind. */
static int take_page(struct climb *c, uint32_t page)
{
	int kind = 0, r;

	sqlite3_bind_int64(c->take, 1, page);
	sqlite3_bind_int64(c->take, 2, c->root);
	sqlite3_bind_int(c->take, 3, c->is_certain);
	sqlite3_bind_int(c->take, 4, (int)c->interior);
	sqlite3_bind_int(c->take, 5, (int)c->leaf);
	sqlite3_bind_int(c->take, 6, c->is_certain || !c->s->has_freelist);
	r = database_step(c->take);
	if (r == 1)
		kind = sqlite3_column_int(c->take, 0);
	while (r == 1)
		r = database_step(c->take);
	sqlite3_reset(c->take);
	return r < 0 ? r : kind;
}

static int scan_push(struct climb *c, uint32_t page, int64_t low, int64_t high)
{
	if (c->count == c->room) {
		size_t room = c->room ? 2 * c->room : 64;
		struct branch *todo = realloc(c->todo, room * sizeof(*todo));

		if (!todo)
			return -ENOMEM;
		c->todo = todo;
		c->room = room;
	}
	c->todo[c->count++] = (struct branch){page, low, high};
	return 0;
}

/* is_deep: it may have been an interior page, with leaves below it that are still there. */
static int note_gap(struct climb *c, int64_t low, int64_t high, bool is_deep)
{
	c->s->gaps++;
	return put_numbers(c->gap, c->root, low, high, is_deep);
}

static int climb_to(struct climb *c, uint32_t page, int64_t low, int64_t high, bool *is_leaf)
{
	int kind = take_page(c, page);

	if (kind == 0)
		return note_gap(c, low, high, true);
	*is_leaf = *is_leaf || kind == (int)c->leaf;
	return kind == (int)c->interior ? scan_push(c, page, low, high) : kind < 0 ? kind : 0;
}

/* The children of an interior page. A leaf beside a lost one tells that this was a leaf too. */
static int climb_page(struct climb *c, const struct branch *b)
{
	unsigned long long noted = c->s->gaps;
	struct sqlite_tree_page page;
	struct sqlite_tree_cell cell;
	bool beside_leaf = false;
	int64_t low = b->low;
	char sql[96];
	uint32_t i;
	int error = salvage_read_page(c->s, b->page, &page);

	for (i = 0; error == 0 && i < page.cells; i++) {
		if (sqlite_tree_cell(&page, i, &cell) < 0)
			continue; /* its range goes with the next one's */
		error = climb_to(c, cell.child, low, cell.rowid, &beside_leaf);
		low = cell.rowid;
	}
	if (error == 0)
		error = climb_to(c, page.right, low, b->high, &beside_leaf);
	if (error < 0 || !beside_leaf)
		return error;
	snprintf(sql, sizeof(sql), "UPDATE gap SET is_deep = 0 WHERE rowid > %llu", noted);
	return salvage_sql(c->s, sql);
}

static int climb_begin(struct climb *c, struct salvage *s, bool is_certain, bool is_index)
{
	int error;

	*c = (struct climb){.s = s,
			    .is_certain = is_certain,
			    .interior = is_index ? SQLITE_INDEX_INTERIOR : SQLITE_TABLE_INTERIOR,
			    .leaf = is_index ? SQLITE_INDEX_LEAF : SQLITE_TABLE_LEAF};
	/* What a root leads to is not free, whatever the list says; nor what a page does that is
	 * not itself on a list that is only guessed. */
	error = database_prepare(
	    s->to, &c->take,
	    "UPDATE page SET tree = ?2, certain = ?3, free = 0 WHERE no = ?1 AND tree = 0 AND kind "
	    "IN (?4, ?5) AND (?6 OR free = 0) RETURNING kind");
	return error < 0 ? error
			 : database_prepare(s->to, &c->gap, "INSERT INTO gap VALUES (?, ?, ?, ?)");
}

static void climb_end(struct climb *c)
{
	sqlite3_finalize(c->take);
	sqlite3_finalize(c->gap);
	free(c->todo);
}

static int climb(struct climb *c, uint32_t root)
{
	bool is_leaf = false;
	int error;

	c->root = root;
	error = climb_to(c, root, INT64_MIN, INT64_MAX, &is_leaf);
	while (error == 0 && c->count) {
		struct branch b = c->todo[--c->count];

		error = climb_page(c, &b);
	}
	return error;
}

int salvage_claim(struct salvage *s, uint32_t root, bool is_index)
{
	struct climb c;
	int error = climb_begin(&c, s, true, is_index);

	if (error == 0)
		error = climb(&c, root);
	climb_end(&c);
	return error;
}

/* Begins at the pages that no other page leads to. */
static int climb_tops(struct climb *c)
{
	sqlite3_stmt *rows = NULL;
	int error = salvage_sql(
	    c->s,
	    "DELETE FROM top; INSERT INTO top SELECT no FROM page WHERE kind = 5 AND tree = 0 "
	    "AND free = 0 AND NOT EXISTS (SELECT 1 FROM child JOIN page p ON p.no = parent "
	    "WHERE child.no = page.no AND p.free = 0)");

	if (error == 0)
		error = database_prepare(c->s->to, &rows, "SELECT no FROM top ORDER BY no");
	while (error == 0 && (error = database_step(rows)) == 1)
		error = climb(c, (uint32_t)sqlite3_column_int64(rows, 0));
	sqlite3_finalize(rows);
	return error;
}

/* Tops first, then what is left: leaves on their own, and loops. */
int salvage_claim_rest(struct salvage *s)
{
	struct climb c;
	int error = climb_begin(&c, s, false, false), pass;

	for (pass = 0; error == 0 && pass < 2; pass++) {
		error = climb_tops(&c);
		if (error == 0 && !s->has_freelist)
			error = drop_stale_trunks(s);
	}
	climb_end(&c);
	return error < 0
		   ? error
		   : salvage_sql(s,
				 "UPDATE page SET tree = no WHERE tree = 0 AND kind IN (5, 13);"
				 "INSERT INTO size SELECT tree, count(*) FROM page GROUP BY tree");
}
