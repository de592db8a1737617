/* SPDX-License-Identifier: MIT
 *
 * What the steps of a recovery share: the database and the voice, the snapshots they can ask, the
 * collections they work on.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/json.h"
#include "core/chroma/migrations.h"
#include "core/recover/internal.h"

void recover_say(struct recovery *r, enum recover_step step, const char *collection,
		 const char *format, ...)
{
	char sentence[2048]; /* of a trigger, with its SQL */
	va_list ap;

	assert(step < RECOVER_STEPS);
	if (!r->options->said)
		return;
	va_start(ap, format);
	vsnprintf(sentence, sizeof(sentence), format, ap);
	va_end(ap);
	r->options->said(r->options->context, step, collection, sentence);
}

int recover_sql(struct recovery *r, const char *sql)
{
	return database_error(sqlite3_exec(r->db, sql, NULL, NULL, NULL));
}

void recover_ignore_trouble(void *context, const char *collection, const char *what, int error)
{
	(void)context;
	(void)collection;
	(void)what;
	(void)error;
}

void recover_bind_vector(sqlite3_stmt *s, int at, const struct export_record *record)
{
	if (record->vector)
		sqlite3_bind_blob64(s, at, record->vector, record->dimension * sizeof(float),
				    SQLITE_STATIC);
	else
		sqlite3_bind_null(s, at);
}

int recover_open(struct recovery *r)
{
	char file[sizeof(r->path) + sizeof(CHROMA_DATABASE)];
	int error;

	snprintf(file, sizeof(file), "%s/" CHROMA_DATABASE, r->path);
	error = database_error(
	    sqlite3_open_v2(file, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL));
	if (error == 0)
		database_configure(r->db);
	return error;
}

int recover_read_release(struct recovery *r)
{
	struct migration_state migrations;
	int error = migrations_read(r->db, &migrations);

	if (error == 0)
		r->is_rust = migrations.counts[MIGRATION_METADB] >= MIGRATION_METADB_OF_RUST;
	return error;
}

int recover_each_snapshot(struct recovery *r, recover_snapshot_fn *each, void *context)
{
	struct snapshot_store *store = r->options->snapshots;
	struct manifest *list = NULL;
	size_t count = 0, i;
	int error = store ? snapshot_list(store, &list, &count) : 0;

	assert(!store || store->access >= SNAPSHOT_KEEP);
	for (i = count; i > 0 && error == 0; i--) {
		uint32_t state = list[i - 1].header.state;

		if (state != SNAPSHOT_COMPLETE && state != SNAPSHOT_VERIFIED)
			continue;
		error = each(context, &list[i - 1]);
		if (error < 0 && error != -ENOMEM && error != -ENOSPC)
			error = 0; /* one that cannot be read has nothing to give */
	}
	snapshot_list_free(list, count);
	return error < 0 ? error : 0;
}

void recover_make_uuid(char out[CHROMA_ID_SIZE])
{
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		memset(b, 0, sizeof(b)); /* then the database refuses the second one */
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	snprintf(out, CHROMA_ID_SIZE,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		 b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		 b[15]);
}

int recover_find_end(struct recovery *r, int64_t *out)
{
	sqlite3_stmt *rows = NULL;
	uint64_t mark;
	int error = database_number(r->db, "SELECT max(seq_id) FROM embeddings_queue", NULL, out);

	if (error == 0)
		error = database_prepare(r->db, &rows, "SELECT seq_id FROM max_seq_id");
	while (error == 0 && (error = database_step(rows)) == 1) {
		error = 0;
		database_sequence(rows, 0, &mark);
		if (mark < CHROMA_MARK_POISONED && (int64_t)mark > *out)
			*out = (int64_t)mark;
	}
	sqlite3_finalize(rows);
	return error;
}

/* In length or direction; Chroma stretches vectors in cosine space, which leaves the last bit. */
static void is_near(sqlite3_context *context, int count, sqlite3_value **values)
{
	size_t i, n = (size_t)sqlite3_value_bytes(values[0]) / sizeof(float);
	const char *a = sqlite3_value_blob(values[0]), *b = sqlite3_value_blob(values[1]);
	bool near = count == 2 && n == (size_t)sqlite3_value_bytes(values[1]) / sizeof(float);

	for (i = 0; near && i < n; i++) {
		float x, y;

		memcpy(&x, a + i * sizeof(x), sizeof(x));
		memcpy(&y, b + i * sizeof(y), sizeof(y));
		near = x == y || fabsf(x - y) <= 1e-5f * (fabsf(x) + fabsf(y));
	}
	sqlite3_result_int(context, near);
}

int recover_compare_vectors(struct recovery *r)
{
	return database_error(
	    sqlite3_create_function(r->db, "is_near", 2, SQLITE_UTF8, NULL, is_near, NULL, NULL));
}

int recover_format_metadata(const struct export_record *record, char **out, size_t *size_out)
{
	struct export_value *all = calloc(record->value_count + 2, sizeof(*all));
	struct json j = {.out = all ? open_memstream(out, size_out) : NULL};
	size_t i, n = 0;
	int r = 0;

	for (i = 0; j.out && i < record->value_count; i++)
		if (record->values[i].type != EXPORT_NULL)
			all[n++] = record->values[i];
	if (j.out && record->document)
		all[n++] = *record->document;
	if (j.out && record->uri)
		all[n++] = *record->uri;
	if (j.out)
		export_values_put(&j, all, n);
	if (!j.out || fclose(j.out) != 0)
		r = -ENOMEM;
	free(all);
	return r;
}

int recover_change(struct recovery *r, const char *sql, const char *const *texts)
{
	sqlite3_stmt *s = NULL;
	int i, error = database_prepare(r->db, &s, sql);

	for (i = 1; error == 0 && i <= sqlite3_bind_parameter_count(s); i++)
		sqlite3_bind_text(s, i, texts[i - 1], -1, SQLITE_STATIC);
	if (error == 0)
		error = database_step(s);
	sqlite3_finalize(s);
	return error < 0 ? error : 0;
}

/* ---- collections, while the database is changed ---- */

struct keeping {
	const struct recovery *r;
	recover_wanted_fn *wanted;
	struct recover_list *list;
};

static int keep_collection(void *context, const struct chroma_collection *c)
{
	struct keeping *k = context;
	struct recover_list *l = k->list;
	struct chroma_collection *more;

	if (!k->wanted(k->r, c))
		return 0;
	more = reallocarray(l->list, l->count + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	l->list = more;
	more += l->count;
	*more = *c;
	more->database = more->tenant = NULL;
	more->name = strdup(c->name);
	l->count += more->name != NULL;
	return more->name ? 0 : -ENOMEM;
}

int recover_list_collections(struct recovery *r, recover_wanted_fn *wanted,
			     struct recover_list *out)
{
	struct keeping k = {.r = r, .wanted = wanted, .list = out};

	*out = (struct recover_list){.count = 0};
	return chroma_each_collection(r->db, keep_collection, &k);
}

void recover_list_free(struct recover_list *l)
{
	size_t i;

	for (i = 0; i < l->count; i++)
		free((char *)(uintptr_t)l->list[i].name);
	free(l->list);
}
