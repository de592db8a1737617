/* SPDX-License-Identifier: MIT
 *
 * Collections that lack their rows in `segments`. Every collection has two, of which Chroma up to
 * 0.5.13 made each in a transaction of its own. A snapshot that has the row tells it; else a
 * segment that belongs to no collection is its if ids say so: those of its other segment, and those
 * that the queue has for it. Where nothing is found, nothing was in it, and it gets a new one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/recover/internal.h"
#include "core/segment/pickle.h"
#include "core/snapshot/read.h"

struct lacking {
	struct recovery *r;
	/* the best so far */
	const struct chroma_collection *c;
	char found[CHROMA_ID_SIZE];
	int64_t shared;
	bool is_new; /* a collection that had records has got a METADATA segment without any */
};

static bool lacks_row(const struct recovery *r, const struct chroma_collection *c)
{
	(void)r;
	return !c->vector_segment[0] || !c->metadata_segment[0];
}

/* ---- ids ---- */

static int put_id(void *context, enum pickle_map map, const char *id, size_t size, int64_t label)
{
	sqlite3_stmt *put = context;
	int error;

	(void)label;
	if (map != PICKLE_ID_TO_LABEL)
		return 0;
	sqlite3_bind_text(put, 1, id, (int)size, SQLITE_STATIC);
	error = database_step(put);
	sqlite3_reset(put);
	return error;
}

/* The ids of a pickle, as far as it can be read, into temp.TABLE. */
static int read_pickle(struct recovery *r, const char *segment, const char *table)
{
	int dirfd = file_follow_directory_at(r->dirfd, segment);
	int fd = dirfd < 0 ? dirfd : file_open_at(dirfd, PICKLE_FILE);
	struct pickle_index index;
	struct file_source source;
	sqlite3_stmt *put = NULL;
	char sql[64];
	int error = fd < 0 ? 0 : file_source_open_data(&source, fd);

	snprintf(sql, sizeof(sql), "INSERT OR IGNORE INTO temp.%s VALUES (?)", table);
	if (fd >= 0 && error == 0)
		error = database_prepare(r->db, &put, sql);
	if (fd >= 0 && error == 0 && pickle_read_index(&source, put_id, put, &index) == -ENOMEM)
		error = -ENOMEM;
	sqlite3_finalize(put);
	if (fd >= 0)
		close(fd);
	if (dirfd >= 0)
		close(dirfd);
	return error;
}

/* What is known to be this collection's, to temp.own. */
static int find_own(struct recovery *r, const struct chroma_collection *c)
{
	int error = recover_sql(r, "CREATE TEMP TABLE IF NOT EXISTS own(id TEXT PRIMARY KEY);"
				   "CREATE TEMP TABLE IF NOT EXISTS other(id TEXT PRIMARY KEY);"
				   "DELETE FROM temp.own");

	if (error == 0)
		error = RECOVER_CHANGE(r,
				       "INSERT OR IGNORE INTO temp.own SELECT id FROM "
				       "embeddings_queue WHERE topic = ?1",
				       c->topic);
	if (error == 0 && c->metadata_segment[0])
		error = RECOVER_CHANGE(r,
				       "INSERT OR IGNORE INTO temp.own SELECT embedding_id FROM "
				       "embeddings WHERE segment_id = ?1",
				       c->metadata_segment);
	if (error == 0 && c->vector_segment[0])
		error = read_pickle(r, c->vector_segment, "own");
	return error;
}

/* ---- from a snapshot ---- */

struct in_snapshot {
	struct recovery *r;
	const struct chroma_collection *c;
	uint64_t id;
};

static int copy_rows(void *context, const struct manifest *m)
{
	struct in_snapshot *s = context;
	struct snapshot_database from = {.db = NULL};
	int64_t rows = 0;
	int error = snapshot_database_open(&from, s->r->options->snapshots, m);

	if (error == 0)
		error = database_number(
		    from.db, "SELECT count(*) FROM segments WHERE collection = ?", s->c->id, &rows);
	if (error == 0 && rows == 2)
		error = database_copy_rows(from.db, s->r->db, "segments", "collection", s->c->id,
					   NULL, true);
	snapshot_database_close(&from);
	if (error < 0 || rows != 2)
		return error;
	s->id = m->header.id;
	return 1;
}

/* ---- among those that belong to nobody ---- */

static void compare(struct lacking *l, const char *segment, int64_t shared)
{
	if (shared <= 0 || shared < l->shared)
		return;
	l->shared = shared;
	snprintf(l->found, sizeof(l->found), "%.40s", segment);
}

/* Whether the row that the segment has applied last is one of the collection's: each number is one
 * topic's. A mark tells also that its collection has not been deleted, by Chroma >= 1.0. */
static int ask_mark(struct lacking *l, const char *segment, bool *has_mark, bool *is_own)
{
	sqlite3_stmt *row = NULL;
	uint64_t mark = 0;
	int64_t found = 0;
	char sql[96];
	int error =
	    database_prepare(l->r->db, &row, "SELECT seq_id FROM max_seq_id WHERE segment_id = ?");

	*has_mark = *is_own = false;
	if (error == 0) {
		sqlite3_bind_text(row, 1, segment, -1, SQLITE_STATIC);
		error = database_step(row);
	}
	*has_mark = error == 1 && database_sequence(row, 0, &mark) != SQLITE_NULL;
	sqlite3_finalize(row);
	if (error < 0 || !*has_mark || mark >= CHROMA_MARK_POISONED)
		return error < 0 ? error : 0;
	snprintf(sql, sizeof(sql),
		 "SELECT count(*) FROM embeddings_queue WHERE topic = ? AND seq_id = %" PRIu64,
		 mark);
	error = database_number(l->r->db, sql, l->c->topic, &found);
	*is_own = found > 0;
	return error;
}

#define BY_MARK (2 * (int64_t)INT32_MAX) /* counts for more than any number of ids */

/* Of two that share as many, the one made last. */
static int find_metadata(struct lacking *l)
{
	bool has_mark, is_own;
	sqlite3_stmt *rows = NULL;
	int error = database_prepare(
	    l->r->db, &rows,
	    "SELECT segment_id, sum(embedding_id IN (SELECT id FROM temp.own)) FROM embeddings "
	    "WHERE segment_id NOT IN (SELECT id FROM segments) GROUP BY segment_id ORDER BY "
	    "max(id)");

	while (error == 0 && (error = database_step(rows)) == 1) {
		const char *segment = (const char *)sqlite3_column_text(rows, 0);

		error = ask_mark(l, segment, &has_mark, &is_own);
		if (error == 0)
			compare(l, segment, sqlite3_column_int64(rows, 1) + (is_own ? BY_MARK : 0));
	}
	sqlite3_finalize(rows);
	return error;
}

static int look_at_directory(struct lacking *l, const char *name)
{
	bool has_mark, is_own;
	int64_t shared = 0;
	int error = recover_sql(l->r, "DELETE FROM temp.other");

	if (error == 0)
		error = read_pickle(l->r, name, "other");
	if (error == 0)
		error = database_number(l->r->db,
					"SELECT count(*) FROM temp.other WHERE id IN (SELECT id "
					"FROM temp.own)",
					NULL, &shared);
	if (error == 0)
		error = ask_mark(l, name, &has_mark, &is_own);
	if (error == 0)
		compare(l, name,
			(shared && has_mark ? shared + INT32_MAX : shared) +
			    (is_own ? BY_MARK : 0));
	return error;
}

static int find_directory(struct lacking *l)
{
	DIR *dir;
	int error = file_names_at(l->r->dirfd, NULL, &dir);
	const struct dirent *entry;

	if (error < 0)
		return -EIO;
	while (error == 0 && (entry = readdir(dir)))
		if (chroma_is_segment(l->r->dirfd, entry->d_name) &&
		    chroma_has_segment(l->r->db, entry->d_name) == 0)
			error = look_at_directory(l, entry->d_name);
	closedir(dir);
	return error;
}

/* ---- the rows ---- */

static int put_row(struct recovery *r, const struct chroma_collection *c, const char *id,
		   bool is_vector)
{
	int error = RECOVER_CHANGE(
	    r, "INSERT INTO segments(id, type, scope, collection) VALUES (?1, ?2, ?3, ?4)", id,
	    is_vector ? "urn:chroma:segment/vector/hnsw-local-persisted"
		      : "urn:chroma:segment/metadata/sqlite",
	    is_vector ? "VECTOR" : "METADATA", c->id);

	if (error == 0 && database_has_column(r->db, "segments", "topic") == 1) /* < 0.5.0 */
		error =
		    RECOVER_CHANGE(r, "UPDATE segments SET topic = ?2 WHERE id = ?1", id, c->topic);
	return error;
}

static int make_row(struct lacking *l, struct chroma_collection *c, bool is_vector)
{
	char *id = is_vector ? c->vector_segment : c->metadata_segment;
	int64_t owns = 0;
	int error;

	l->found[0] = '\0';
	l->shared = 0;
	l->c = c;
	error = find_own(l->r, c);
	if (error == 0)
		error = is_vector ? find_directory(l) : find_metadata(l);
	if (l->found[0])
		strcpy(id, l->found);
	else
		recover_make_uuid(id);
	if (error == 0 && !is_vector && !l->found[0])
		error = database_number(l->r->db, "SELECT EXISTS (SELECT 1 FROM temp.own)", NULL,
					&owns);
	l->is_new |= owns;
	if (error == 0)
		error = put_row(l->r, c, id, is_vector);
	/* One that was made up without them. */
	if (error == 0 && is_vector && l->found[0] && c->name[0] &&
	    (c->dimension <= 0 || strncmp(c->name, "lost-", 5) == 0))
		error = recover_mend_dimension(l->r, id);
	if (error == 0)
		recover_say(l->r, RECOVER_SEGMENTS, c->name[0] ? c->name : NULL,
			    "its %s segment had no row: it is %s %.36s",
			    is_vector ? "VECTOR" : "METADATA", l->found[0] ? "again" : "a new one,",
			    id);
	return error;
}

static int heal_collection(struct lacking *l, struct chroma_collection *c)
{
	struct in_snapshot s = {.r = l->r, .c = c};
	int error = recover_each_snapshot(l->r, copy_rows, &s);

	if (error == 0 && s.id)
		recover_say(l->r, RECOVER_SEGMENTS, c->name,
			    "the rows of its segments are those of snapshot %" PRIu64, s.id);
	if (error == 0 && !s.id && !c->metadata_segment[0])
		error = make_row(l, c, false);
	if (error == 0 && !s.id && !c->vector_segment[0])
		error = make_row(l, c, true);
	l->r->healed += error == 0;
	return error;
}

/* They have been copied under their own names. */
static void tell_renamed(struct recovery *r)
{
	size_t i;

	for (i = 0; i < r->judgement->count; i++) {
		const struct recover_finding *f = &r->judgement->list[i];

		if (f->code == DIAGNOSE_SEGMENT_RENAMED)
			recover_say(r, RECOVER_SEGMENTS, NULL,
				    "the directory of vectors %.36s has its own name again; it was "
				    "%s%s%s",
				    f->segment, f->alias[0] == '.' ? "the data directory" : "'",
				    f->alias[0] == '.' ? "" : f->alias,
				    f->alias[0] == '.' ? " itself" : "'");
		else if (f->code == DIAGNOSE_FILE_RENAMED)
			recover_say(r, RECOVER_SEGMENTS, NULL,
				    "the file %s of the vectors %.36s has its own name again; it "
				    "was '%s'",
				    f->file, f->segment, f->alias);
		else
			continue;
		r->healed++;
	}
}

static int heal_lacking(struct lacking *l)
{
	struct recover_list list;
	int error = recover_list_collections(l->r, lacks_row, &list);
	size_t i;

	if (error == 0)
		error = recover_sql(l->r, "BEGIN IMMEDIATE");
	for (i = 0; i < list.count && error == 0; i++)
		error = heal_collection(l, &list.list[i]);
	if (error == 0)
		error = recover_sql(l->r, "COMMIT");
	else
		recover_sql(l->r, "ROLLBACK");
	recover_list_free(&list);
	return error;
}

/* Records of which nobody tells whose they are: a collection of their own for each segment. */
static int adopt_records(struct lacking *l)
{
	struct recovery *r = l->r;
	sqlite3_stmt *rows = NULL;
	int error = recover_sql(r, "DROP TABLE IF EXISTS temp.ownerless; CREATE TEMP TABLE "
				   "ownerless AS SELECT DISTINCT segment_id AS id FROM embeddings "
				   "WHERE segment_id NOT IN (SELECT id FROM segments)");

	if (error == 0)
		error = database_prepare(r->db, &rows, "SELECT id FROM temp.ownerless");
	while (error == 0 && (error = database_step(rows)) == 1) {
		struct chroma_collection c = {.name = ""};

		recover_make_uuid(c.id);
		snprintf(c.topic, sizeof(c.topic), CHROMA_TOPIC_PREFIX "%s", c.id);
		snprintf(c.metadata_segment, sizeof(c.metadata_segment), "%s",
			 (const char *)sqlite3_column_text(rows, 0));
		error = put_row(r, &c, c.metadata_segment, false);
		if (error == 0)
			error = make_row(l, &c, true);
	}
	sqlite3_finalize(rows);
	return error;
}

/* What is left and nobody's may be what a collection lacks that has got nothing. */
static int look_for_others(struct recovery *r)
{
	int64_t others = 0;
	int error =
	    database_number(r->db,
			    "SELECT EXISTS (SELECT 1 FROM embeddings WHERE segment_id NOT IN "
			    "(SELECT id FROM segments))",
			    NULL, &others);

	if (error == 0 && others && r->options->account)
		r->options->account->may_lack = true;
	return error;
}

int recover_segments(struct recovery *r)
{
	struct lacking l = {.r = r};
	int error;

	tell_renamed(r);
	error = recover_twice(r);
	if (error == 0)
		error = recover_rows(r);
	if (error == 0)
		error = heal_lacking(&l);
	if (error == 0 && l.is_new)
		error = look_for_others(r);
	if (error == 0)
		error = recover_segment_settings(r);
	if (error < 0 || !r->lost_segments)
		return error;
	error = adopt_records(&l);
	return error < 0 ? error : recover_lost_rows(r);
}
