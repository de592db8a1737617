/* SPDX-License-Identifier: MIT
 *
 * Telling by the rows of a page which of Chroma's tables it belongs to.
 */
#include <string.h>

#include "core/chroma/chroma.h"
#include "core/salvage/salvage.h"

#define UUID_LENGTH 36

/*
 * A letter for each column, in the order of all releases: n NULL (the row number stands for it),
 * i integer, t text, u UUID, b blob, r number, q sequence number, v anything; capitals: or NULL.
 */
static const struct shape {
	enum salvage_shape shape;
	uint32_t least; /* columns: later ones came with a migration */
	const char *columns, *start;
	uint32_t column; /* which begins with `start` */
} shapes[] = {
    {SHAPE_SCHEMA, 5, "tttIT", "", 0},
    {SHAPE_MIGRATIONS, 5, "tittt", "0000", 2},
    {SHAPE_ACQUIRE_WRITE, 2, "ni", "", 0},
    {SHAPE_MAINTENANCE_LOG, 3, "Iit", "", 0},
    {SHAPE_TENANTS, 1, "t", "", 0},
    {SHAPE_DATABASES, 3, "utt", "", 0},
    {SHAPE_COLLECTIONS, 3, "uttI", "persistent://", 2},
    {SHAPE_COLLECTIONS, 5, "uttIu", "persistent://", 2},
    {SHAPE_COLLECTIONS, 4, "utIuTT", "", 0},
    {SHAPE_SEGMENTS, 4, "uttTT", "urn:", 1},
    {SHAPE_COLLECTION_METADATA, 5, "utTIRI", "", 0},
    {SHAPE_QUEUE, 8, "nvittBTT", "persistent://", 3},
    {SHAPE_QUEUE_CONFIG, 2, "nt", "{\"automatically_purge\"", 1},
    {SHAPE_EMBEDDINGS, 5, "nutqv", "", 0},
    {SHAPE_METADATA, 5, "itTIRI", "", 0},
    {SHAPE_METADATA_ARRAY, 6, "itTIRI", "", 0},
    {SHAPE_MAX_SEQ_ID, 2, "uq", "", 0},
    {SHAPE_FULLTEXT_CONTENT, 2, "nt", "", 0},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

const char *const salvage_shape_tables[SALVAGE_SHAPES] = {
    [SHAPE_SCHEMA] = "sqlite_schema",
    [SHAPE_MIGRATIONS] = "migrations",
    [SHAPE_ACQUIRE_WRITE] = "acquire_write",
    [SHAPE_MAINTENANCE_LOG] = "maintenance_log",
    [SHAPE_TENANTS] = "tenants",
    [SHAPE_DATABASES] = "databases",
    [SHAPE_COLLECTIONS] = "collections",
    [SHAPE_SEGMENTS] = "segments",
    [SHAPE_COLLECTION_METADATA] = "collection_metadata",
    [SHAPE_QUEUE] = "embeddings_queue",
    [SHAPE_QUEUE_CONFIG] = "embeddings_queue_config",
    [SHAPE_EMBEDDINGS] = "embeddings",
    [SHAPE_METADATA] = "embedding_metadata",
    [SHAPE_METADATA_ARRAY] = "embedding_metadata_array",
    [SHAPE_MAX_SEQ_ID] = "max_seq_id",
    [SHAPE_FULLTEXT_CONTENT] = "embedding_fulltext_search_content",
};

uint32_t salvage_shape_bit(const char *table)
{
	uint32_t i;

	for (i = 0; i < SALVAGE_SHAPES; i++)
		if (strcmp(salvage_shape_tables[i], table) == 0)
			return 1u << i;
	return strcmp(table, "segment_metadata") == 0 ? 1u << SHAPE_COLLECTION_METADATA : 0;
}

static bool begins(const struct sqlite_value *v, const char *start)
{
	size_t n = strlen(start);

	return n == 0 || (v->bytes && v->size >= n && memcmp(v->bytes, start, n) == 0);
}

static bool is_uuid(const struct sqlite_value *v)
{
	char text[UUID_LENGTH + 1];

	if (v->type != SQLITE_VALUE_TEXT || v->size != UUID_LENGTH || !v->bytes)
		return false;
	memcpy(text, v->bytes, v->size);
	text[v->size] = '\0';
	return chroma_is_uuid(text);
}

static bool fits_letter(const struct sqlite_value *v, char letter)
{
	bool is_number = v->type == SQLITE_VALUE_INTEGER;

	if (v->type == SQLITE_VALUE_NULL)
		return letter < 'a' || letter == 'n' || letter == 'v';
	switch (letter) {
	case 'i':
	case 'I':
		return is_number;
	case 't':
	case 'T':
		return v->type == SQLITE_VALUE_TEXT;
	case 'u':
		return is_uuid(v);
	case 'B':
		return v->type == SQLITE_VALUE_BLOB;
	case 'R':
		return is_number || v->type == SQLITE_VALUE_FLOAT;
	case 'q':
		return is_number || (v->type == SQLITE_VALUE_BLOB && v->size == 8);
	default:
		return letter == 'v';
	}
}

static bool fits(const struct shape *shape, const struct sqlite_record *record)
{
	uint32_t i;

	if (record->columns < shape->least || record->columns > strlen(shape->columns))
		return false;
	for (i = 0; i < record->columns; i++)
		if (!fits_letter(&record->values[i], shape->columns[i]))
			return false;
	return begins(&record->values[shape->column], shape->start);
}

bool salvage_has_shape(enum salvage_shape shape, const struct sqlite_record *record)
{
	uint32_t i;

	for (i = 0; i < SHAPES; i++)
		if (shapes[i].shape == shape && fits(&shapes[i], record))
			return true;
	return false;
}

/* The same id and key twice in a row: elements of an array. */
static bool repeats(const struct sqlite_record *a, const struct sqlite_record *b)
{
	const struct sqlite_value *x = &a->values[1], *y = &b->values[1];

	return a->columns > 1 && b->columns > 1 && a->values[0].integer == b->values[0].integer &&
	       x->bytes && y->bytes && x->size == y->size &&
	       memcmp(x->bytes, y->bytes, x->size) == 0;
}

uint32_t salvage_shapes_of(const struct sqlite_tree_page *page, uint32_t *columns_out)
{
	uint32_t rows = 0, count[SALVAGE_SHAPES] = {0}, mask = 0, i, k;
	struct sqlite_record record, before = {0};
	struct sqlite_tree_cell cell;
	bool is_array = false;

	*columns_out = 0;
	for (i = 0; i < page->cells; i++) {
		if (sqlite_tree_cell(page, i, &cell) < 0 ||
		    sqlite_record_parse(&record, cell.local, cell.local_size, cell.size) < 0)
			continue;
		rows++;
		*columns_out = record.columns > *columns_out ? record.columns : *columns_out;
		for (k = 0; k < SALVAGE_SHAPES; k++)
			count[k] += salvage_has_shape((enum salvage_shape)k, &record);
		is_array = is_array || repeats(&before, &record);
		before = record;
	}
	for (k = 0; k < SALVAGE_SHAPES; k++)
		if (rows && count[k] * 4 >= rows * 3)
			mask |= 1u << k;
	if (mask & 1u << SHAPE_METADATA)
		mask &= ~(1u << (is_array ? SHAPE_METADATA : SHAPE_METADATA_ARRAY));
	if (mask & 1u << SHAPE_QUEUE_CONFIG)
		mask &= ~(1u << SHAPE_FULLTEXT_CONTENT);
	return mask;
}
