/* SPDX-License-Identifier: MIT
 *
 * Bringing back deleted collections, on the copy: a new collection, whose records are given to
 * Chroma's queue behind everything that is in it. Both its segments are new and have no mark, so
 * Chroma makes metadata, full-text index and vector index from the queue by itself.
 *
 * A snapshot that still has the collection gives whole records. If the directory was persisted
 * after it, ids that it does not have any more were deleted, and others come with their vectors
 * alone. Without a snapshot all do.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/tree.h"
#include "core/export/export.h"
#include "core/recover/undelete.h"

/* ---- its records ---- */

static int put_whole(void *context, const struct export_record *record)
{
	struct undelete *u = context;
	char *metadata = NULL;
	size_t size = 0;
	int r = recover_format_metadata(record, &metadata, &size);

	if (r == 0) {
		sqlite3_bind_text(u->put, 1, record->id, (int)record->id_size, SQLITE_STATIC);
		recover_bind_vector(u->put, 2, record);
		sqlite3_bind_text64(u->put, 3, metadata, size, SQLITE_STATIC, SQLITE_UTF8);
		r = database_step(u->put);
		sqlite3_reset(u->put);
	}
	free(metadata);
	return r;
}

/* A row that is there already is known to be still there; its vector only where it has none. */
static int put_vector(void *context, const struct export_record *record)
{
	struct undelete *u = context;
	int r;

	if (!record->vector)
		return 0;
	sqlite3_bind_text(u->put, 1, record->id, (int)record->id_size, SQLITE_STATIC);
	recover_bind_vector(u->put, 2, record);
	r = database_step(u->put);
	sqlite3_reset(u->put);
	return r;
}

static int ask_snapshot(struct undelete *u, const struct export_options *options)
{
	struct snapshot_store *store = u->r->options->snapshots;
	struct manifest m = {0};
	struct export_summary summary;
	int r = store ? manifest_read(store->dirfd, u->l->snapshot, &m) : -ENOENT;

	if (r == 0)
		r = export_snapshot(store, &m, options, &summary);
	if (r == 0 && summary.troubles)
		r = -EBADMSG;
	manifest_free(&m);
	return r;
}

static const char put_whole_sql[] = "INSERT OR IGNORE INTO temp.back(id, vector, metadata) "
				    "VALUES (?1, ?2, ?3)";
static const char put_vector_sql[] =
    "INSERT INTO temp.back(id, vector, metadata, is_kept) VALUES (?1, ?2, '{}', 1) "
    "ON CONFLICT(id) DO UPDATE SET is_kept = 1, vector = coalesce(vector, ?2), "
    "is_other = vector IS NOT NULL AND NOT is_near(vector, ?2)";

static int read_records(struct undelete *u)
{
	const struct leftover *l = u->l;
	struct export_options options = {.collection = l->snapshot ? l->id : NULL,
					 .vectors = true,
					 .record = put_whole,
					 .trouble = recover_ignore_trouble,
					 .context = u};
	struct export_summary summary;
	int r = recover_sql(u->r, "DROP TABLE IF EXISTS temp.back; CREATE TEMP TABLE back(n "
				  "INTEGER PRIMARY KEY, id TEXT UNIQUE, vector BLOB, metadata "
				  "TEXT, is_kept INTEGER, is_other INTEGER)");

	if (r == 0 && l->snapshot) {
		r = database_prepare(u->r->db, &u->put, put_whole_sql);
		if (r == 0)
			r = ask_snapshot(u, &options);
		sqlite3_finalize(u->put);
		u->put = NULL;
	}
	if (r < 0 || (l->snapshot && !l->is_newer))
		return r;
	options.collection = NULL;
	options.record = put_vector;
	r = database_prepare(u->r->db, &u->put, put_vector_sql);
	if (r == 0)
		r = export_segment_alone(u->r->dirfd, l->segment, u->space, &options, &summary);
	sqlite3_finalize(u->put);
	u->put = NULL;
	return r < 0 ? r : recover_sql(u->r, "DELETE FROM temp.back WHERE is_kept IS NULL");
}

/* ---- its name ---- */

/* 1, 0 or -errno: in any database, to be told apart by those who look for it. */
static int is_taken(struct undelete *u, const char *what, const char *value)
{
	char sql[96];
	int64_t found = 0;
	int r;

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM collections WHERE %s = ?", what);
	r = database_number(u->r->db, sql, value, &found);
	return r < 0 ? r : found > 0;
}

int recover_undelete_name(struct undelete *u, const char *asked)
{
	const struct leftover *l = u->l;
	const char *name = asked ? asked : l->snapshot ? l->name : "";
	int r = *name ? is_taken(u, "name", name) : 1;

	if (r == 1 && asked)
		return -EEXIST;
	if (r == 0)
		snprintf(u->name, sizeof(u->name), "%s", name);
	else
		snprintf(u->name, sizeof(u->name), "recovered-%.8s", l->segment);
	if (r == 1)
		r = is_taken(u, "name", u->name) == 1 ? -EEXIST : 0;
	recover_make_uuid(u->id);
	recover_make_uuid(u->vector);
	recover_make_uuid(u->metadata);
	if (l->snapshot && is_taken(u, "id", l->id) == 0)
		snprintf(u->id, sizeof(u->id), "%s", l->id);
	snprintf(u->topic, sizeof(u->topic), CHROMA_TOPIC_PREFIX "%s", u->id);
	return r;
}

/* ---- the whole ---- */

static int count_back(struct undelete *u, const char *which, uint64_t *out)
{
	char sql[128];
	int64_t n = 0;
	int r;

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM temp.back WHERE %s", which);
	r = database_number(u->r->db, sql, NULL, &n);
	*out = (uint64_t)n;
	return r;
}

static const char *words_of_space(const struct undelete *u)
{
	if ((u->r->options->undelete && u->r->options->undelete->space >= 0) || u->l->space >= 0)
		return "";
	return u->l->space == CHROMA_SPACE_L2_OR_IP ? "; its distance was l2 or ip, which its "
						      "files do not tell: l2 is taken, Chroma's "
						      "default (--space)"
						    : "; its distance function is not known: l2 "
						      "is taken, Chroma's default (--space)";
}

static int undelete_tell(struct undelete *u)
{
	const struct leftover *l = u->l;
	uint64_t all = 0, bare = 0, other = 0;
	char day[32] = "", more[128] = "";
	struct tm tm;
	time_t changed = (time_t)l->changed;
	int r = count_back(u, "vector IS NOT NULL", &all);

	if (r == 0)
		r = count_back(u, "vector IS NOT NULL AND metadata = '{}'", &bare);
	if (r == 0)
		r = count_back(u, "is_other", &other);
	if (r < 0)
		return r;
	if (gmtime_r(&changed, &tm))
		strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (l->snapshot && l->is_newer)
		snprintf(more, sizeof(more),
			 ", which was taken before its last persist (%s): %" PRIu64
			 " have got another vector since",
			 day, other);
	if (l->snapshot)
		recover_say(u->r, RECOVER_UNDELETE, u->name,
			    "%" PRIu64 " records of the deleted collection of %.36s were given to "
			    "the queue, %" PRIu64 " of them without document and metadata, as they "
			    "are in snapshot %" PRIu64 "%s",
			    all, l->segment, bare, l->snapshot, more);
	else
		recover_say(u->r, RECOVER_UNDELETE, u->name,
			    "%" PRIu64 " ids and vectors of the deleted collection of %.36s were "
			    "given to the queue, as of its last persist (%s); documents, metadata "
			    "and its name are in no snapshot%s",
			    all, l->segment, day, words_of_space(u));
	return 0;
}

/* Ids and vectors are all that is left. */
static int account_for(struct undelete *u)
{
	struct recover_account *a = u->r->options->account;
	sqlite3_stmt *rows = NULL;
	uint64_t all = 0;
	int error = count_back(u, "vector IS NOT NULL", &all);

	recover_say(
	    u->r, RECOVER_UNDELETE, u->name,
	    "%" PRIu64 " ids and vectors of the directory %.36s, of whose collection nothing "
	    "else is left, were given to the queue; if it had been deleted, delete it again%s",
	    all, u->l->segment, words_of_space(u));
	if (error < 0 || !a)
		return error;
	a->nameless++;
	error = recover_account_adopt(a, u->l->segment, u->id);
	if (error == 0)
		error = database_prepare(u->r->db, &rows,
					 "SELECT id FROM temp.back WHERE vector IS NOT NULL");
	while (error == 0 && (error = database_step(rows)) == 1) {
		const char *id = (const char *)sqlite3_column_text(rows, 0);
		size_t size = (size_t)sqlite3_column_bytes(rows, 0);

		error = recover_account_insert(a, u->id, id, size);
		if (error == 0)
			error = recover_account_note(a, u->id, id, size);
	}
	sqlite3_finalize(rows);
	return error;
}

static int bring_back(struct undelete *u)
{
	struct recovery *r = u->r;
	int error =
	    recover_undelete_name(u, r->options->undelete ? r->options->undelete->name : NULL);

	if (error == 0)
		error = read_records(u);
	if (error == 0)
		error = recover_sql(r, "BEGIN IMMEDIATE");
	if (error < 0)
		return error;
	error = recover_undelete_rows(u);
	if (error == 0)
		error = recover_sql(r, "COMMIT");
	if (error < 0) {
		recover_sql(r, "ROLLBACK");
		return error;
	}
	error = tree_remove(r->dirfd, u->l->segment);
	if (error < 0)
		return error;
	r->healed++;
	if (u->is_lost)
		return account_for(u);
	return undelete_tell(u);
}

static int undelete_all(struct recovery *r, const struct leftover *list, size_t count, bool is_lost)
{
	const struct recover_undelete_options *o = r->options->undelete;
	int error = recover_compare_vectors(r);
	size_t i;

	for (i = 0; i < count && error == 0; i++) {
		const struct leftover *l = &list[i];
		struct undelete u = {.r = r, .l = l, .space = CHROMA_L2, .is_lost = is_lost};

		if (l->space >= 0 && (l->snapshot || !o || o->space < 0))
			u.space = (enum chroma_space)l->space;
		else if (o && o->space >= 0)
			u.space = (enum chroma_space)o->space;

		error = bring_back(&u);
	}
	return error;
}

/* ---- those of which nobody can tell any more that they were deleted ---- */

struct ownerless {
	struct recovery *r;
	const char *segment;
	bool was_known;
};

/* A snapshot that has the collection tells its rows, or else that it was deleted since; one that
 * has the files alone, that it was before. */
static int look_for_files(void *context, const struct manifest *m)
{
	struct ownerless *o = context;
	char path[CHROMA_ID_SIZE + sizeof(HNSW_HEADER_FILE) + 1];

	snprintf(path, sizeof(path), "%.40s/" HNSW_HEADER_FILE, o->segment);
	o->was_known |= manifest_find(m, path) != NULL;
	return o->was_known;
}

/* Without a mark, where all marks are there, it was deleted: Chroma >= 1.0 removes it. */
static int is_ownerless(struct recovery *r, const struct leftover *l, bool *is_out)
{
	struct ownerless o = {.r = r, .segment = l->segment};
	int64_t marks = 0;
	int error = recover_each_snapshot(r, look_for_files, &o);

	if (error == 0 && !r->lost_marks)
		error =
		    database_number(r->db, "SELECT count(*) FROM max_seq_id WHERE segment_id = ?",
				    l->segment, &marks);
	*is_out = error == 0 && !o.was_known && leftover_is_whole(l) && (r->lost_marks || marks);
	return error;
}

static int undelete_ownerless(struct recovery *r)
{
	struct leftover *list = NULL;
	size_t count = 0, i, kept = 0;
	int error = leftover_list(r->path, r->dirfd, r->options->snapshots, &list, &count);

	for (i = 0; i < count && error == 0; i++) {
		bool is_one = false;

		error = is_ownerless(r, &list[i], &is_one);
		if (is_one)
			list[kept++] = list[i];
		else if (error == 0 && r->options->account) /* that is not lost by this damage */
			error = recover_account_drop(r->options->account, list[i].segment);
	}
	if (error == 0)
		error = undelete_all(r, list, kept, true);
	free(list);
	return error;
}

int recover_undelete(struct recovery *r)
{
	const struct recover_undelete_options *o = r->options->undelete;

	if (o)
		return undelete_all(r, o->list, o->count, false);
	return r->lost_segments ? undelete_ownerless(r) : 0;
}
