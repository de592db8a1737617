/* SPDX-License-Identifier: MIT
 *
 * Reader of b-tree pages and records.
 */
#include "core/sqlite/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"

#define PAYLOAD_MAX UINT64_C(1000000000) /* SQLite's own limit */

/* SQLite's: up to nine bytes, high ones first. Returns how many, 0 if they are not all there. */
static uint32_t get_varint(const unsigned char *p, uint64_t have, uint64_t *out)
{
	uint64_t value = 0;
	uint32_t i;

	for (i = 0; i < 9 && i < have; i++) {
		if (i == 8) {
			*out = value << 8 | p[8];
			return 9;
		}
		value = value << 7 | (p[i] & 0x7f);
		if (!(p[i] & 0x80)) {
			*out = value;
			return i + 1;
		}
	}
	return 0;
}

static bool is_interior(enum sqlite_tree_kind kind)
{
	return kind == SQLITE_TABLE_INTERIOR || kind == SQLITE_INDEX_INTERIOR;
}

static uint32_t cells_at(const struct sqlite_tree_page *page)
{
	return page->start + (is_interior(page->kind) ? 12 : 8);
}

int sqlite_tree_page_parse(struct sqlite_tree_page *out, const void *bytes, uint32_t have,
			   uint32_t usable, uint32_t number)
{
	const unsigned char *p = bytes;
	uint32_t start = number == 1 ? 100 : 0, content, freeblock;

	if (have < start + 12)
		return -ENODATA;
	p += start;
	*out = (struct sqlite_tree_page){
	    .bytes = bytes,
	    .have = have,
	    .usable = usable,
	    .start = start,
	    .kind = (enum sqlite_tree_kind)p[0],
	    .cells = get_be16(p + 3),
	};
	freeblock = get_be16(p + 1);
	content = get_be16(p + 5) ? get_be16(p + 5) : 65536;
	if (p[0] != SQLITE_TABLE_LEAF && p[0] != SQLITE_TABLE_INTERIOR &&
	    p[0] != SQLITE_INDEX_LEAF && p[0] != SQLITE_INDEX_INTERIOR)
		return -EBADMSG;
	if (is_interior(out->kind))
		out->right = get_be32(p + 8);
	if (content > usable || freeblock >= usable || cells_at(out) + 2 * out->cells > content)
		return -EBADMSG;
	return 0;
}

/* How much of a record is on the page itself. */
static uint32_t local_size(const struct sqlite_tree_page *page, uint64_t size)
{
	uint32_t usable = page->usable, least = (usable - 12) * 32 / 255 - 23, most, local;

	most = page->kind == SQLITE_TABLE_LEAF ? usable - 35 : (usable - 12) * 64 / 255 - 23;
	if (size <= most)
		return (uint32_t)size;
	local = least + (uint32_t)((size - least) % (usable - 4));
	return local <= most ? local : least;
}

int sqlite_tree_cell(const struct sqlite_tree_page *page, uint32_t i, struct sqlite_tree_cell *out)
{
	uint32_t pointer = cells_at(page) + 2 * i, at, n;
	uint64_t rowid;

	*out = (struct sqlite_tree_cell){0};
	if (i >= page->cells || pointer + 2 > page->have)
		return -ENODATA;
	at = get_be16(page->bytes + pointer);
	if (at < cells_at(page) + 2 * page->cells || at + 4 > page->usable)
		return -EBADMSG;
	if (at + 4 > page->have)
		return -ENODATA;
	if (is_interior(page->kind)) {
		out->child = get_be32(page->bytes + at);
		at += 4;
	}
	if (page->kind != SQLITE_TABLE_INTERIOR) {
		n = get_varint(page->bytes + at, page->have - at, &out->size);
		at += n;
		if (!n || out->size > PAYLOAD_MAX)
			return -EBADMSG;
	}
	if (page->kind == SQLITE_TABLE_LEAF || page->kind == SQLITE_TABLE_INTERIOR) {
		n = get_varint(page->bytes + at, page->have - at, &rowid);
		at += n;
		if (!n)
			return -EBADMSG;
		out->rowid = (int64_t)rowid;
	}
	out->end = at;
	if (page->kind == SQLITE_TABLE_INTERIOR)
		return 0;
	out->local_size = local_size(page, out->size);
	n = out->local_size + (out->local_size < out->size ? 4 : 0);
	out->end += n;
	if (n > page->usable - at)
		return -EBADMSG;
	if (n > page->have - at)
		return -ENODATA;
	out->local = page->bytes + at;
	if (out->local_size < out->size)
		out->overflow = get_be32(out->local + out->local_size);
	return 0;
}

/* ---- records ---- */

static int64_t get_integer(const unsigned char *p, uint64_t size)
{
	uint64_t value = p[0] & 0x80 ? UINT64_MAX : 0, i;

	for (i = 0; i < size; i++)
		value = value << 8 | p[i];
	return (int64_t)value;
}

/* -EBADMSG: 10 and 11 are SQLite's own. */
static int set_type(struct sqlite_value *v, uint64_t serial)
{
	static const unsigned char sizes[] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0};

	if (serial >= 12) {
		v->type = serial & 1 ? SQLITE_VALUE_TEXT : SQLITE_VALUE_BLOB;
		v->size = (serial - 12) / 2;
		return 0;
	}
	if (serial >= sizeof(sizes))
		return -EBADMSG;
	v->type = serial == 0	? SQLITE_VALUE_NULL
		  : serial == 7 ? SQLITE_VALUE_FLOAT
				: SQLITE_VALUE_INTEGER;
	v->size = sizes[serial];
	v->integer = serial == 9;
	return 0;
}

static void set_value(struct sqlite_value *v, const unsigned char *p)
{
	if (v->type == SQLITE_VALUE_TEXT || v->type == SQLITE_VALUE_BLOB) {
		v->bytes = p;
	} else if (v->size) {
		v->integer = get_integer(p, v->size);
		if (v->type == SQLITE_VALUE_FLOAT)
			memcpy(&v->real, &v->integer, sizeof(v->real));
	}
}

int sqlite_record_parse(struct sqlite_record *out, const unsigned char *payload, uint64_t have,
			uint64_t size)
{
	uint64_t header, serial, at, sum;
	uint32_t i, n = get_varint(payload, have, &header);

	out->columns = 0;
	if (!n || header < n || header > have)
		return -EBADMSG;
	for (at = n, sum = header; at < header; at += n) {
		struct sqlite_value *v = &out->values[out->columns];

		n = get_varint(payload + at, header - at, &serial);
		*v = (struct sqlite_value){.type = SQLITE_VALUE_NULL};
		if (!n || out->columns == SQLITE_TREE_COLUMNS - 1 || set_type(v, serial) < 0 ||
		    v->size > size - sum)
			return -EBADMSG;
		sum += v->size;
		out->columns++;
	}
	if (sum != size || !out->columns)
		return -EBADMSG;
	for (i = 0, at = header; i < out->columns && at + out->values[i].size <= have; i++) {
		set_value(&out->values[i], payload + at);
		at += out->values[i].size;
	}
	return 0;
}

void sqlite_record_reader_open(struct sqlite_record_reader *r, const struct file_source *source,
			       uint32_t page_size, uint32_t usable, uint64_t budget)
{
	*r = (struct sqlite_record_reader){
	    .source = source, .page_size = page_size, .usable = usable, .budget = budget};
}

void sqlite_record_reader_close(struct sqlite_record_reader *r)
{
	free(r->page);
	free(r->payload);
	*r = (struct sqlite_record_reader){.source = NULL};
}

/* Doubling, so that what is read is what is paid for, whatever a cell says of its size. */
static int make_room(struct sqlite_record_reader *r, uint64_t size)
{
	uint64_t room = r->room ? r->room : 16384;
	unsigned char *payload;

	if (!r->page)
		r->page = malloc(r->page_size);
	while (room < size)
		room *= 2;
	if (room > r->room) {
		payload = realloc(r->payload, room);
		if (!payload)
			return -ENOMEM;
		r->payload = payload;
		r->room = room;
	}
	return r->page ? 0 : -ENOMEM;
}

/* A page of an overflow chain; a page of zeros is one that was lost. */
static int read_overflow(struct sqlite_record_reader *r, uint32_t page)
{
	if (page < 2 || !r->budget)
		return -EBADMSG;
	r->budget--;
	if (file_source_read(r->source, r->page, r->usable, (uint64_t)(page - 1) * r->page_size) <
	    0)
		return -ENODATA;
	return bytes_are_zero(r->page, r->usable) ? -ENODATA : 0;
}

int sqlite_record_read(struct sqlite_record_reader *r, const struct sqlite_tree_cell *cell,
		       struct sqlite_record *out)
{
	uint64_t have = cell->local_size;
	uint32_t page = cell->overflow, seen = 0, steps = 0, power = 1;
	int error;

	if (have == cell->size)
		return sqlite_record_parse(out, cell->local, have, have);
	if (cell->size > r->source->size)
		return -EBADMSG;
	error = make_room(r, have);
	if (error == 0)
		memcpy(r->payload, cell->local, have);
	while (error == 0 && have < cell->size) {
		uint64_t part = cell->size - have;

		if (page == seen) /* Brent: a loop */
			return -EBADMSG;
		if (steps++ == power) {
			seen = page;
			power *= 2;
		}
		part = part < r->usable - 4 ? part : r->usable - 4;
		error = make_room(r, have + part);
		if (error == 0)
			error = read_overflow(r, page);
		if (error < 0)
			break;
		memcpy(r->payload + have, r->page + 4, part);
		have += part;
		page = get_be32(r->page);
	}
	if (error == 0 && page != 0)
		error = -EBADMSG;
	return error < 0 ? error : sqlite_record_parse(out, r->payload, have, have);
}

static int64_t rowid_at(const struct sqlite_tree_page *page, uint32_t i)
{
	struct sqlite_tree_cell cell;

	return sqlite_tree_cell(page, i, &cell) < 0 ? INT64_MIN : cell.rowid;
}

bool sqlite_tree_has_lost(const void *before, const void *after, uint32_t size)
{
	struct sqlite_tree_page old, new;
	uint32_t i, k = 0;

	if (sqlite_tree_page_parse(&old, before, size, size, 0) < 0 ||
	    sqlite_tree_page_parse(&new, after, size, size, 0) < 0)
		return false;
	if (old.kind == SQLITE_TABLE_INTERIOR)
		return new.kind == SQLITE_TABLE_LEAF ||
		       (new.kind == SQLITE_TABLE_INTERIOR &&new.cells < old.cells);
	if (old.kind != SQLITE_TABLE_LEAF || new.kind != SQLITE_TABLE_LEAF)
		return false;
	for (i = 0; i < old.cells; i++, k++) {
		while (k < new.cells && rowid_at(&new, k) < rowid_at(&old, i))
			k++;
		if (k == new.cells || rowid_at(&new, k) != rowid_at(&old, i))
			return true;
	}
	return false;
}
