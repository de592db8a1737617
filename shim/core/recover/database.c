/* SPDX-License-Identifier: MIT
 *
 * Healing chroma.sqlite3: its journal, its indexes, and the marks of the segments.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/check/triggers.h"
#include "core/chroma/migrations.h"
#include "core/chroma/texts.h"
#include "core/recover/internal.h"
#include "core/sqlite/fulltext.h"

/* ---- the journal ---- */

static bool is_there(struct recovery *r, const char *name)
{
	return faccessat(r->dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Whatever is asked of it first makes SQLite roll back, or move its log to the database. */
int recover_journal(struct recovery *r)
{
	bool had_journal = is_there(r, CHROMA_DATABASE "-journal"), had_wal;
	int64_t tables;
	int error;

	had_wal = is_there(r, CHROMA_DATABASE "-wal");
	error = database_number(r->db, "SELECT count(*) FROM sqlite_master", NULL, &tables);
	if (error < 0)
		return error == -EBADMSG ? 0 : error; /* the next step's */
	if (had_wal)
		recover_sql(r, "PRAGMA wal_checkpoint(TRUNCATE)");
	recover_read_release(r);
	if (!had_journal || is_there(r, CHROMA_DATABASE "-journal"))
		return 0;
	r->healed++;
	recover_say(r, RECOVER_JOURNAL, NULL,
		    "a transaction that was cut off was rolled back by SQLite");
	return 0;
}

/* ---- indexes ---- */

/* An index that does not fit its table; what else is wrong is another step's. */
static bool needs_reindex(struct recovery *r)
{
	sqlite3_stmt *rows = NULL;
	bool found = false;
	int error = database_prepare(r->db, &rows, "PRAGMA integrity_check");

	while (error == 0 && !found && (error = database_step(rows)) == 1) {
		const char *line = (const char *)sqlite3_column_text(rows, 0);

		error = 0;
		found = line && (strstr(line, " index ") != NULL) && !strstr(line, FULLTEXT_TABLE);
	}
	sqlite3_finalize(rows);
	return found;
}

/* Records that an index has, and their table has not. */
static bool has_lost_records(struct recovery *r)
{
	int64_t has = 0;

	return database_number(r->db,
			       "SELECT (SELECT count(*) FROM embeddings INDEXED BY "
			       "sqlite_autoindex_embeddings_1) > (SELECT count(*) FROM embeddings "
			       "NOT INDEXED)",
			       NULL, &has) == 0 &&
	       has;
}

static int rebuild_indexes(struct recovery *r)
{
	int error;

	if (!needs_reindex(r))
		return 0;
	r->lost_rows |= has_lost_records(r);
	error = recover_sql(r, "REINDEX");
	if (error < 0) {
		recover_say(r, RECOVER_INDEXES, NULL, "the indexes cannot be built again: %s",
			    sqlite3_errmsg(r->db));
		return error == -EBADMSG || error == -EIO ? 0 : error;
	}
	r->healed++;
	recover_say(r, RECOVER_INDEXES, NULL, "the indexes of the database were built again");
	return 0;
}

/* 0: it has all documents, as far as its own check goes; -EBADMSG: it does not. */
static int check_fts(struct recovery *r)
{
	int64_t documents = 0, terms = 0;
	int error = recover_sql(r, "INSERT INTO " FULLTEXT_TABLE "(" FULLTEXT_TABLE
				   ") VALUES('integrity-check')");

	if (error == 0)
		error = fulltext_missing(r->db, &documents, &terms);
	return error == 0 && (documents || terms) ? -EBADMSG : error;
}

/* Since 0.4.6. */
static bool lacks_fts(struct recovery *r)
{
	struct migration_state migrations;

	return migrations_read(r->db, &migrations) == 0 &&
	       migrations.counts[MIGRATION_METADB] >= 3 &&
	       (!fulltext_works(r->db) || fulltext_made_as(r->db) != FULLTEXT_CHROMAS);
}

static int make_fts(struct recovery *r)
{
	int error = fulltext_make(r->db);

	if (error < 0) {
		recover_say(r, RECOVER_INDEXES, NULL,
			    "the full-text index cannot be made again: %s", sqlite3_errmsg(r->db));
		recover_sql(r, "ROLLBACK");
		return error == -ENOMEM || error == -ENOSPC ? error : 0;
	}
	r->healed++;
	recover_say(
	    r, RECOVER_INDEXES, NULL,
	    "the full-text index was gone, another one, or but a part of it was left: it was "
	    "made again from the documents");
	return 0;
}

/* From its own copy of the documents, or from the documents themselves. */
static int rebuild_fts(struct recovery *r)
{
	const char *from = "its own copy of the documents";
	int error;

	if (lacks_fts(r))
		return make_fts(r);
	if (database_has_table(r->db, FULLTEXT_TABLE) != 1)
		return 0;
	error = check_fts(r);
	if (error != -EBADMSG)
		return error == -ENOENT ? 0 : error;
	error =
	    recover_sql(r, "INSERT INTO " FULLTEXT_TABLE "(" FULLTEXT_TABLE ") VALUES('rebuild')");
	if (error == 0)
		error = check_fts(r);
	if (error < 0) {
		from = "the documents";
		recover_sql(r, "ROLLBACK");
		error = fulltext_refill(r->db);
	}
	if (error == -EBADMSG || error == -EIO) { /* SQLite cannot even drop it */
		recover_sql(r, "ROLLBACK");
		error = fulltext_make(r->db);
	}
	if (error < 0) {
		recover_say(r, RECOVER_INDEXES, NULL,
			    "the full-text index cannot be built again: %s", sqlite3_errmsg(r->db));
		recover_sql(r, "ROLLBACK");
		return error == -EBADMSG || error == -EIO ? 0 : error;
	}
	r->healed++;
	recover_say(r, RECOVER_INDEXES, NULL, "the full-text index was built again from %s", from);
	return 0;
}

static int take_out_nameless(struct recovery *r)
{
	uint64_t count = 0;
	int error = 0;

	if (recover_was_found(r->judgement, DIAGNOSE_METADATA_BARE))
		error = recover_nameless(r->db, r->path, &count);
	if (error < 0 || !count)
		return error;
	r->healed++;
	r->lost_rows = true;
	if (r->options->account)
		r->options->account->may_lack = true;
	recover_say(r, RECOVER_INDEXES, NULL,
		    "%" PRIu64 " records have lost their ids; their documents and metadata were "
		    "set aside in " RECOVER_LOST_FILE,
		    count);
	return 0;
}

/* ---- triggers ---- */

struct drops {
	struct recovery *r;
	char *sql;
};

static int note_drop(void *context, const struct trigger *t)
{
	struct drops *d = context;
	char *more = sqlite3_mprintf("%z DROP TRIGGER \"%w\";", d->sql, t->name);

	d->sql = more;
	recover_say(d->r, RECOVER_INDEXES, NULL,
		    "the trigger %s stood on Chroma's table %s, and is dropped. It was: %.1500s",
		    t->name, t->table, t->sql);
	d->r->healed++;
	return more ? 0 : -ENOMEM;
}

static int drop_triggers(struct recovery *r)
{
	struct drops d = {.r = r, .sql = sqlite3_mprintf("")};
	int error = d.sql ? triggers_each_harmful(r->db, note_drop, &d) : -ENOMEM;

	if (error == 0)
		error = recover_sql(r, d.sql);
	sqlite3_free(d.sql);
	return error;
}

int recover_indexes(struct recovery *r)
{
	uint64_t before;
	int error = recover_was_found(r->judgement, DIAGNOSE_TRIGGER) ? drop_triggers(r) : 0;

	before = r->healed;
	if (error == 0)
		error = rebuild_indexes(r);
	/* What an index still had seemed to be there. */
	if (error == 0 && r->healed > before)
		error = recover_judge(r->dirfd, r->judgement);
	if (error == 0)
		error = take_out_nameless(r);
	if (error == 0 && recover_was_found(r->judgement, DIAGNOSE_TEXTS_LOST))
		error = recover_texts(r);
	return error < 0 ? error : rebuild_fts(r);
}

/* ---- marks ---- */

int recover_set_mark(struct recovery *r, const char *segment, int64_t value)
{
	unsigned char bytes[8];
	sqlite3_stmt *put = NULL;
	int i, error = database_prepare(r->db, &put,
					"UPDATE max_seq_id SET seq_id = ?2 WHERE segment_id = ?1");

	for (i = 0; i < 8; i++)
		bytes[i] = (unsigned char)((uint64_t)value >> (56 - 8 * i));
	if (error == 0) {
		sqlite3_bind_text(put, 1, segment, -1, SQLITE_STATIC);
		if (r->is_rust)
			sqlite3_bind_int64(put, 2, value);
		else
			sqlite3_bind_blob(put, 2, bytes, 8, SQLITE_STATIC);
		error = database_step(put);
	}
	sqlite3_finalize(put);
	return error;
}

static int heal_mark(struct recovery *r, const struct chroma_collection *c, const char *segment,
		     const struct chroma_mark *mark)
{
	uint64_t value = chroma_mark_restore(mark->value);
	bool is_blob = r->is_rust && mark->type == SQLITE_BLOB;
	int error;

	if (mark->type != SQLITE_INTEGER && mark->type != SQLITE_BLOB)
		return 0;
	if (value == mark->value && !is_blob)
		return 0;
	error = recover_set_mark(r, segment, (int64_t)value);
	if (error < 0)
		return error;
	r->healed++;
	recover_say(r, RECOVER_MARKS, c->name,
		    "the mark of segment %.36s %s: %" PRIu64 " is now %" PRIu64, segment,
		    value != mark->value ? "was poisoned by a migration"
					 : "was of a type that an older Chroma writes",
		    mark->value, value);
	return 0;
}

/* Up to which row the index has applied the queue: at least to before what is left of that. Rows
 * that it has applied already change nothing. */
static int put_mark(struct recovery *r, const struct chroma_collection *c)
{
	static const char last[] =
	    "SELECT coalesce((SELECT min(seq_id) - 1 FROM embeddings_queue WHERE topic = ?1), -1)";
	int64_t mark = 0;
	int error = database_number(r->db, last, c->topic, &mark);

	if (error == 0 && mark < 0)
		mark = c->metadata_mark.value < CHROMA_MARK_POISONED
			   ? (int64_t)c->metadata_mark.value
			   : 0;
	if (error == 0)
		error = RECOVER_CHANGE(
		    r, "INSERT OR IGNORE INTO max_seq_id(segment_id, seq_id) VALUES (?1, 0)",
		    c->vector_segment);
	if (error == 0)
		error = recover_set_mark(r, c->vector_segment, mark);
	if (error < 0)
		return error;
	r->healed++;
	recover_say(r, RECOVER_MARKS, c->name,
		    "the mark of segment %.36s was gone: it is %" PRId64
		    ", before what is left of the queue",
		    c->vector_segment, mark);
	return 0;
}

static bool lost_mark(const struct recovery *r, const struct chroma_collection *c)
{
	size_t i;

	for (i = 0; i < r->judgement->count; i++)
		if (r->judgement->list[i].code == DIAGNOSE_MARK_LOST &&
		    strcmp(r->judgement->list[i].segment, c->vector_segment) == 0)
			return true;
	return false;
}

static int heal_marks(void *context, const struct chroma_collection *c)
{
	struct recovery *r = context;
	int error = lost_mark(r, c) ? put_mark(r, c) : 0;

	if (error == 0 && c->metadata_segment[0])
		error = heal_mark(r, c, c->metadata_segment, &c->metadata_mark);
	if (error == 0 && c->vector_segment[0])
		error = heal_mark(r, c, c->vector_segment, &c->vector_mark);
	return error;
}

/* ---- a queue whose numbers have started again ---- */

struct queue {
	struct recovery *r;
	int64_t end;						  /* the last number */
	int64_t mark;						  /* the highest mark */
	char topic[sizeof(CHROMA_TOPIC_PREFIX) + CHROMA_ID_SIZE]; /* whose it is */
};

static int find_mark(void *context, const struct chroma_collection *c)
{
	struct queue *q = context;
	uint64_t mark = c->metadata_mark.value;

	if (c->vector_mark.value > mark)
		mark = c->vector_mark.value;
	if (mark > INT64_MAX / 2 || (int64_t)mark <= q->mark)
		return 0;
	q->mark = (int64_t)mark;
	snprintf(q->topic, sizeof(q->topic), "%s", c->topic);
	return 0;
}

static int run_for_queue(struct queue *q, const char *sql, const char *topic, const char *segment)
{
	sqlite3_stmt *s = NULL;
	int error = database_prepare(q->r->db, &s, sql);

	if (error == 0) {
		sqlite3_bind_text(s, 1, topic, -1, SQLITE_STATIC);
		sqlite3_bind_int64(s, 2, q->mark);
		if (segment)
			sqlite3_bind_text(s, 3, segment, -1, SQLITE_STATIC);
		error = database_step(s);
	}
	sqlite3_finalize(s);
	return error;
}

/*
 * What was written since the newest record that was applied has been ignored, as far as Chroma has
 * not purged it: it gets numbers that count. Times have whole seconds: what is of the same one was
 * applied up to the last row that made a record, which has its number since, and is no older. If
 * more was applied after all, no harm is done: the end of a queue that is played again ends in the
 * same state.
 */
static int lift_ignored(void *context, const struct chroma_collection *c)
{
	return run_for_queue(
	    context,
	    "UPDATE embeddings_queue SET seq_id = seq_id + ?2 WHERE topic = ?1 AND created_at >= "
	    "coalesce((SELECT max(created_at) FROM embeddings WHERE segment_id = ?3), 0) AND "
	    "seq_id > coalesce((SELECT max(q.seq_id) FROM embeddings_queue q JOIN embeddings e ON "
	    "e.segment_id = ?3 AND e.embedding_id = q.id AND e.created_at >= q.created_at AND "
	    "" CHROMA_NUMBER_OF("e") " = printf('%016X', q.seq_id) WHERE q.topic = ?1), 0)",
	    c->topic, c->metadata_segment);
}

/* Numbers go on after the last row: one that changes nothing takes the mark's number. */
static int continue_queue(struct recovery *r)
{
	struct queue q = {.r = r};
	int64_t end;
	int error =
	    database_number(r->db, "SELECT max(seq_id) FROM embeddings_queue", NULL, &q.end);

	if (error == 0)
		error = chroma_each_collection(r->db, find_mark, &q);
	if (error < 0 || q.mark <= q.end)
		return error;
	error = chroma_each_collection(r->db, lift_ignored, &q);
	if (error == 0)
		error =
		    database_number(r->db, "SELECT max(seq_id) FROM embeddings_queue", NULL, &end);
	if (error == 0 && end < q.mark)
		error = run_for_queue(&q,
				      "INSERT INTO embeddings_queue(seq_id, operation, topic, id, "
				      "metadata) VALUES (?2, 1, ?1, 'chromashim', '{}')",
				      q.topic, NULL);
	if (error < 0)
		return error;
	r->healed++;
	recover_say(r, RECOVER_MARKS, NULL,
		    "the queue ended at %" PRId64 ", below the mark %" PRId64
		    ": its numbers now go on after that%s",
		    q.end, q.mark, end > q.mark ? ", and what was ignored is applied" : "");
	return 0;
}

int recover_marks(struct recovery *r)
{
	int error = chroma_each_collection(r->db, heal_marks, r);

	return error < 0 ? error : continue_queue(r);
}
