/* SPDX-License-Identifier: MIT
 *
 * A record's metadata: rows of the database, and over them the JSON of the queue.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/export/internal.h"
#include "core/sqlite/database.h"

int export_values_open(struct export_values *v, sqlite3 *db)
{
	int has_bool = database_has_column(db, "embedding_metadata", "bool_value");
	int has_arrays = database_has_table(db, "embedding_metadata_array");
	int r;

	*v = (struct export_values){0};
	if (has_bool < 0 || has_arrays < 0)
		return has_bool < 0 ? has_bool : has_arrays;
	r = database_prepare(
	    db, &v->scalars,
	    has_bool ? "SELECT key, string_value, int_value, float_value, bool_value FROM "
		       "embedding_metadata WHERE id = ?"
		     : "SELECT key, string_value, int_value, float_value, NULL FROM "
		       "embedding_metadata WHERE id = ?");
	if (r == 0 && has_arrays)
		r = database_prepare(db, &v->arrays,
				     "SELECT key, string_value, int_value, float_value, bool_value "
				     "FROM embedding_metadata_array WHERE id = ? "
				     "ORDER BY key, rowid");
	if (r == 0)
		r = database_prepare(db, &v->pending,
				     "SELECT q.operation, q.metadata FROM temp.pending p JOIN "
				     "embeddings_queue q ON q.seq_id = p.seq WHERE p.id = ? "
				     "ORDER BY p.seq");
	if (r == 0)
		r = database_prepare(db, &v->object,
				     "SELECT key, type, atom, value FROM json_each(?)");
	if (r == 0)
		r = database_prepare(db, &v->elements, "SELECT key, type, atom FROM json_each(?)");
	return r;
}

static void clear(struct export_values *v)
{
	size_t i;

	/* Not only up to count: values that were taken stand behind it. */
	for (i = 0; i < v->room; i++) {
		free(v->list[i].key);
		free(v->list[i].text);
		v->list[i] = (struct export_value){0};
	}
	v->count = 0;
}

void export_values_close(struct export_values *v)
{
	clear(v);
	free(v->list);
	sqlite3_finalize(v->scalars);
	sqlite3_finalize(v->arrays);
	sqlite3_finalize(v->pending);
	sqlite3_finalize(v->object);
	sqlite3_finalize(v->elements);
	*v = (struct export_values){0};
}

/* A new value with a copy of its key; NULL: no memory. */
static struct export_value *value_add(struct export_values *v, const char *key)
{
	struct export_value *value;

	if (v->count == v->room) {
		size_t room = v->room ? 2 * v->room : 16;
		struct export_value *more = realloc(v->list, room * sizeof(*more));

		if (!more)
			return NULL;
		memset(more + v->room, 0, (room - v->room) * sizeof(*more));
		v->list = more;
		v->room = room;
	}
	value = &v->list[v->count];
	value->key = strdup(key ? key : "");
	if (!value->key)
		return NULL;
	v->count++;
	return value;
}

static int set_text(struct export_value *value, sqlite3_stmt *row, int column)
{
	const void *text = sqlite3_column_blob(row, column);
	size_t size = (size_t)sqlite3_column_bytes(row, column);

	value->type = EXPORT_STRING;
	value->text = malloc(size + 1);
	if (!value->text)
		return -ENOMEM;
	if (size)
		memcpy(value->text, text, size);
	value->text[size] = '\0';
	value->size = size;
	return 0;
}

/* key, string, int, float, bool: the one that is not NULL */
static int add_row(struct export_values *v, sqlite3_stmt *row, bool is_element)
{
	struct export_value *value = value_add(v, (const char *)sqlite3_column_text(row, 0));

	if (!value)
		return -ENOMEM;
	value->is_element = is_element;
	if (sqlite3_column_type(row, 1) != SQLITE_NULL)
		return set_text(value, row, 1);
	if (sqlite3_column_type(row, 2) != SQLITE_NULL) {
		value->type = EXPORT_INT;
		value->number = sqlite3_column_int64(row, 2);
	} else if (sqlite3_column_type(row, 3) != SQLITE_NULL) {
		value->type = EXPORT_FLOAT;
		value->real = sqlite3_column_double(row, 3);
	} else if (sqlite3_column_type(row, 4) != SQLITE_NULL) {
		value->type = EXPORT_BOOL;
		value->number = sqlite3_column_int(row, 4) != 0;
	}
	return 0;
}

static int load_all(struct export_values *v, sqlite3_stmt *rows, bool is_element)
{
	int r;

	while ((r = database_step(rows)) == 1) {
		r = add_row(v, rows, is_element);
		if (r < 0)
			break;
	}
	return r;
}

static int load(struct export_values *v, sqlite3_stmt *rows, int64_t id, bool is_element)
{
	int r;

	sqlite3_reset(rows);
	sqlite3_bind_int64(rows, 1, id);
	r = load_all(v, rows, is_element);
	sqlite3_reset(rows);
	return r;
}

int export_values_load(struct export_values *v, int64_t id)
{
	int r;

	clear(v);
	r = load(v, v->scalars, id, false);
	if (r == 0 && v->arrays)
		r = load(v, v->arrays, id, true);
	return r;
}

int export_values_of_index(struct export_values *v, sqlite3 *db, const struct chroma_collection *c)
{
	sqlite3_stmt *rows;
	int r = chroma_index_settings(db, c, &rows);

	*v = (struct export_values){0};
	if (r == 0)
		r = load_all(v, rows, false);
	sqlite3_finalize(rows);
	return r;
}

int export_values_of_collection(struct export_values *v, sqlite3 *db, const char *id)
{
	sqlite3_stmt *rows = NULL;
	int has_bool = database_has_column(db, "collection_metadata", "bool_value");
	int r = has_bool < 0 ? has_bool : 0;

	*v = (struct export_values){0};
	if (r == 0)
		r = database_prepare(
		    db, &rows,
		    has_bool ? "SELECT key, str_value, int_value, float_value, bool_value FROM "
			       "collection_metadata WHERE collection_id = ? ORDER BY rowid"
			     : "SELECT key, str_value, int_value, float_value, NULL FROM "
			       "collection_metadata WHERE collection_id = ? ORDER BY rowid");
	if (r == 0) {
		sqlite3_bind_text(rows, 1, id, -1, SQLITE_STATIC);
		r = load_all(v, rows, false);
	}
	sqlite3_finalize(rows);
	return r;
}

/* ---- the queue ---- */

/* Removes all values of a key, keeping the order of the others. */
static void remove_key(struct export_values *v, const char *key)
{
	size_t from, to = 0;

	for (from = 0; from < v->count; from++) {
		struct export_value value = v->list[from];

		if (strcmp(value.key, key) == 0) {
			free(value.key);
			free(value.text);
			continue;
		}
		v->list[to++] = value;
	}
	if (to < v->count)
		memset(v->list + to, 0, (v->count - to) * sizeof(*v->list));
	v->count = to;
}

/* A scalar of JSON: key, type, atom */
static int add_json(struct export_values *v, const char *key, sqlite3_stmt *row, bool is_element)
{
	const char *type = (const char *)sqlite3_column_text(row, 1);
	struct export_value *value = value_add(v, key);

	if (!value)
		return -ENOMEM;
	value->is_element = is_element;
	if (strcmp(type, "text") == 0)
		return set_text(value, row, 2);
	if (strcmp(type, "real") == 0) {
		value->type = EXPORT_FLOAT;
		value->real = sqlite3_column_double(row, 2);
	} else if (strcmp(type, "true") == 0 || strcmp(type, "false") == 0) {
		value->type = EXPORT_BOOL;
		value->number = type[0] == 't';
	} else if (strcmp(type, "integer") == 0) {
		value->type = EXPORT_INT;
		value->number = sqlite3_column_int64(row, 2);
	}
	return 0;
}

static int add_array(struct export_values *v, const char *key, sqlite3_value *array)
{
	int r;

	sqlite3_reset(v->elements);
	sqlite3_bind_value(v->elements, 1, array);
	while ((r = database_step(v->elements)) == 1) {
		r = add_json(v, key, v->elements, true);
		if (r < 0)
			break;
	}
	sqlite3_reset(v->elements);
	return r;
}

/* Keys of the queue's object replace the record's, null removes them. */
static int value_merge(struct export_values *v, sqlite3_value *json)
{
	int r;

	sqlite3_reset(v->object);
	sqlite3_bind_value(v->object, 1, json);
	while ((r = database_step(v->object)) == 1) {
		const char *key = (const char *)sqlite3_column_text(v->object, 0);
		const char *type = (const char *)sqlite3_column_text(v->object, 1);

		r = 0;
		if (!key || !type)
			continue;
		remove_key(v, key);
		if (strcmp(type, "array") == 0)
			r = add_array(v, key, sqlite3_column_value(v->object, 3));
		else if (strcmp(type, "null") != 0)
			r = add_json(v, key, v->object, false);
		if (r < 0)
			break;
	}
	sqlite3_reset(v->object);
	if (r == -ENOENT) { /* "malformed JSON" is a plain SQLITE_ERROR */
		v->malformed++;
		r = 0;
	}
	return r;
}

static int apply_row(struct export_values *v, sqlite3_stmt *row, bool *exists)
{
	int operation = sqlite3_column_int(row, 0);

	if (operation == CHROMA_DELETE) {
		clear(v);
		*exists = false;
		return 0;
	}
	if ((operation == CHROMA_ADD && *exists) || (operation == CHROMA_UPDATE && !*exists) ||
	    operation > CHROMA_DELETE)
		return 0;
	*exists = true;
	return sqlite3_column_type(row, 1) == SQLITE_NULL
		   ? 0
		   : value_merge(v, sqlite3_column_value(row, 1));
}

int export_values_apply(struct export_values *v, const char *id, size_t size, bool *exists)
{
	int r;

	if (!*exists)
		clear(v);
	sqlite3_reset(v->pending);
	sqlite3_bind_text(v->pending, 1, id, (int)size, SQLITE_STATIC);
	while ((r = database_step(v->pending)) == 1) {
		r = apply_row(v, v->pending, exists);
		if (r < 0)
			break;
	}
	sqlite3_reset(v->pending);
	return r;
}

const struct export_value *export_values_take(struct export_values *v, const char *key)
{
	struct export_value taken;
	size_t i;

	for (i = 0; i < v->count; i++) {
		if (strcmp(v->list[i].key, key) != 0 || v->list[i].type != EXPORT_STRING)
			continue;
		taken = v->list[i];
		memmove(v->list + i, v->list + i + 1, (v->count - i - 1) * sizeof(taken));
		v->list[--v->count] = taken; /* behind the others; freed with them */
		return &v->list[v->count];
	}
	return NULL;
}

static void put_value(struct json *j, const struct export_value *value)
{
	switch (value->type) {
	case EXPORT_STRING:
		json_bytes(j, value->text, value->size);
		break;
	case EXPORT_INT:
		json_int(j, value->number);
		break;
	case EXPORT_FLOAT:
		json_double(j, value->real);
		break;
	case EXPORT_BOOL:
		json_bool(j, value->number);
		break;
	default:
		json_null(j);
	}
}

void export_values_put(struct json *j, const struct export_value *values, size_t count)
{
	size_t i = 0;

	json_begin(j, '{');
	while (i < count) {
		const struct export_value *first = &values[i];

		json_key(j, first->key);
		if (!first->is_element) {
			put_value(j, first);
			i++;
			continue;
		}
		json_begin(j, '[');
		for (; i < count && values[i].is_element && !strcmp(values[i].key, first->key); i++)
			put_value(j, &values[i]);
		json_end(j, ']');
	}
	json_end(j, '}');
}
