/* SPDX-License-Identifier: MIT
 *
 * Bringing back single records: rows at the end of the queue, which Chroma applies when it starts.
 *
 * A record that is there as another is deleted before it is put: an upsert alone would leave the
 * metadata that it has got since.
 */
#include "core/recover/give_back.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/recover/leftover.h"
#include "core/recover/undelete.h"
#include "core/snapshot/read.h"

struct giving {
	const struct give_back *g;
	struct give_back_result *out;
	struct recovery *r;
	sqlite3_stmt *put, *is_wanted;
	char topic[sizeof(CHROMA_TOPIC_PREFIX) + CHROMA_ID_SIZE];
	int64_t last;	    /* sequence number */
	uint64_t dimension; /* of what is given; 0: not known yet */
};

static int put_row(struct giving *v, enum chroma_operation operation,
		   const struct export_record *record, const char *metadata, size_t size)
{
	int r;

	sqlite3_bind_int64(v->put, 1, ++v->last);
	sqlite3_bind_int(v->put, 2, (int)operation);
	sqlite3_bind_text(v->put, 3, v->topic, -1, SQLITE_STATIC);
	sqlite3_bind_text(v->put, 4, record->id, (int)record->id_size, SQLITE_STATIC);
	sqlite3_bind_null(v->put, 5);
	sqlite3_bind_null(v->put, 6);
	sqlite3_bind_null(v->put, 7);
	if (metadata) {
		recover_bind_vector(v->put, 5, record);
		sqlite3_bind_text(v->put, 6, "FLOAT32", -1, SQLITE_STATIC);
		sqlite3_bind_text64(v->put, 7, metadata, size, SQLITE_STATIC, SQLITE_UTF8);
	}
	r = database_step(v->put);
	sqlite3_reset(v->put);
	return r;
}

/* 1 if it is wanted, 0, or -errno; *replaced_out: it is there now. */
static int is_wanted(struct giving *v, const struct export_record *record, bool *replaced_out)
{
	int r;

	*replaced_out = false;
	if (!v->is_wanted)
		return 1;
	sqlite3_bind_text(v->is_wanted, 1, record->id, (int)record->id_size, SQLITE_STATIC);
	r = database_step(v->is_wanted);
	if (r == 1)
		*replaced_out = sqlite3_column_int(v->is_wanted, 0) != 0;
	sqlite3_reset(v->is_wanted);
	return r;
}

static int give_record(void *context, const struct export_record *record)
{
	struct giving *v = context;
	char *metadata = NULL;
	bool replaced;
	size_t size = 0;
	int r = is_wanted(v, record, &replaced);

	if (r <= 0)
		return r;
	if (!record->vector) {
		v->out->bare++;
		return 0;
	}
	if (v->dimension && v->dimension != record->dimension)
		return -EDOM;
	r = recover_format_metadata(record, &metadata, &size);
	if (r == 0 && replaced)
		r = put_row(v, CHROMA_DELETE, record, NULL, 0);
	if (r == 0)
		r = put_row(v, CHROMA_UPSERT, record, metadata, size);
	free(metadata);
	v->out->given += r == 0;
	return r;
}

static int give_all(struct giving *v)
{
	struct export_options options = {.collection = v->g->collection,
					 .vectors = true,
					 .record = give_record,
					 .trouble = recover_ignore_trouble,
					 .context = v};
	struct export_summary summary;
	int r = recover_find_end(v->r, &v->last);

	if (r == 0)
		r = database_prepare(v->r->db, &v->put,
				     "INSERT INTO embeddings_queue(seq_id, operation, topic, id, "
				     "vector, encoding, metadata) VALUES (?, ?, ?, ?, ?, ?, ?)");
	if (r == 0 && v->g->wanted)
		r = database_prepare(v->g->wanted, &v->is_wanted,
				     "SELECT replaced FROM wanted WHERE id = ?");
	if (r == 0)
		r = export_snapshot(v->g->store, v->g->manifest, &options, &summary);
	sqlite3_finalize(v->put);
	sqlite3_finalize(v->is_wanted);
	return r;
}

/* Into a collection that is there. */
static int give_into(struct giving *v)
{
	int64_t dimension = 0;
	int r = database_number(v->r->db, "SELECT dimension FROM collections WHERE id = ?",
				v->g->into, &dimension);

	v->dimension = (uint64_t)dimension;
	snprintf(v->topic, sizeof(v->topic), CHROMA_TOPIC_PREFIX "%s", v->g->into);
	return r < 0 ? r : give_all(v);
}

static int give_anew(struct giving *v, const char *segment)
{
	struct leftover l = {.snapshot = v->g->manifest->header.id};
	struct undelete u = {.r = v->r, .l = &l};
	int r;

	snprintf(l.id, sizeof(l.id), "%s", v->g->collection);
	snprintf(l.segment, sizeof(l.segment), "%s", segment);
	snprintf(l.name, sizeof(l.name), "%s", v->g->name);
	r = recover_undelete_name(&u, v->g->as);
	if (r == 0)
		r = recover_undelete_collection(&u);
	snprintf(v->topic, sizeof(v->topic), "%s", u.topic);
	return r < 0 ? r : give_all(v);
}

static int give_in_transaction(struct giving *v, const char *segment)
{
	int r = recover_sql(v->r, "BEGIN IMMEDIATE");

	if (r < 0)
		return r;
	if (v->g->check)
		r = v->g->check(v->g->check_context);
	if (r == 0)
		r = v->g->into ? give_into(v) : give_anew(v, segment);
	if (r == 0)
		r = recover_sql(v->r, "COMMIT");
	if (r < 0)
		recover_sql(v->r, "ROLLBACK");
	return r;
}

/* The id of the collection's VECTOR segment in the snapshot; "" if it has none. */
static int find_segment(const struct give_back *g, char out[CHROMA_ID_SIZE])
{
	struct snapshot_database from = {.db = NULL};
	sqlite3_stmt *row = NULL;
	int r = snapshot_database_open(&from, g->store, g->manifest);

	out[0] = '\0';
	if (r == 0)
		r = database_prepare(from.db, &row,
				     "SELECT id FROM segments WHERE collection = ? AND scope = "
				     "'VECTOR'");
	if (r == 0) {
		sqlite3_bind_text(row, 1, g->collection, -1, SQLITE_STATIC);
		r = database_step(row);
	}
	if (r == 1)
		snprintf(out, CHROMA_ID_SIZE, "%s", (const char *)sqlite3_column_text(row, 0));
	sqlite3_finalize(row);
	snapshot_database_close(&from);
	return r < 0 ? r : 0;
}

int recover_give_back(const struct give_back *g, struct give_back_result *out)
{
	struct recover_options options = {.snapshots = g->store};
	struct recovery recovery = {.dirfd = g->dirfd, .options = &options};
	struct giving v = {.g = g, .out = out, .r = &recovery};
	char segment[CHROMA_ID_SIZE];
	int r = find_segment(g, segment);

	*out = (struct give_back_result){0};
	snprintf(recovery.path, sizeof(recovery.path), "/proc/self/fd/%d", g->dirfd);
	if (r == 0)
		r = recover_open(&recovery);
	if (r == 0)
		r = recover_read_release(&recovery);
	if (r == 0)
		r = give_in_transaction(&v, segment);
	sqlite3_close(recovery.db);
	return r;
}
