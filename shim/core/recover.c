/* SPDX-License-Identifier: MIT
 *
 * Healing a copy of a Chroma directory: the table of steps.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/recover_internal.h"

const char *const recover_step_names[RECOVER_STEPS] = {
    "journal",	"pages", "indexes", "migration", "queue", "parameters",
    "segments", "marks", "records", "hnsw",	 "bare",  "undelete"};

static int (*const steps[RECOVER_STEPS])(struct recovery *) = {
    recover_journal, recover_pages,	 recover_indexes,  recover_migration,
    recover_queue,   recover_parameters, recover_segments, recover_marks,
    recover_records, recover_hnsw,	 recover_bare,	   recover_undelete};

int recover_step_of(enum diagnose_code code)
{
	switch (code) {
	case DIAGNOSE_JOURNAL_HOT:
		return RECOVER_JOURNAL;
	case DIAGNOSE_DATABASE_MALFORMED:
	case DIAGNOSE_DATABASE_SHORT:
	case DIAGNOSE_JOURNAL_LOST:
	case DIAGNOSE_DATABASE_FOREIGN:
		return RECOVER_PAGES;
	case DIAGNOSE_TABLE_MISSING: /* if it is the full-text index */
	case DIAGNOSE_INDEX_MALFORMED:
	case DIAGNOSE_FTS_MALFORMED:
	case DIAGNOSE_FTS_INCOMPLETE:
	case DIAGNOSE_METADATA_BARE:
		return RECOVER_INDEXES;
	case DIAGNOSE_MIGRATION_CUT:
		return RECOVER_MIGRATION;
	case DIAGNOSE_QUEUE_DAMAGED:
		return RECOVER_QUEUE;
	case DIAGNOSE_SEGMENT_ROW:
	case DIAGNOSE_SEGMENT_RENAMED:
		return RECOVER_SEGMENTS;
	case DIAGNOSE_MARK_POISONED:
	case DIAGNOSE_MARK_BLOB:
	case DIAGNOSE_MARK_BEYOND:
		return RECOVER_MARKS;
	case DIAGNOSE_SEGMENT_MISSING:
	case DIAGNOSE_FILE_MISSING:
	case DIAGNOSE_PICKLE_MISSING:
	case DIAGNOSE_PICKLE_CUT:
	case DIAGNOSE_PICKLE_DAMAGED:
	case DIAGNOSE_PICKLE_MAPS:
	case DIAGNOSE_HEADER_DAMAGED:
	case DIAGNOSE_LEVEL0_SHORT:
	case DIAGNOSE_LENGTH_SHORT:
	case DIAGNOSE_LINKS_SHORT:
	case DIAGNOSE_LINKS_DAMAGED:
	case DIAGNOSE_LINKS_RUNAWAY:
	case DIAGNOSE_LABELS_DAMAGED:
	case DIAGNOSE_PERSIST_TORN:
	case DIAGNOSE_LABELS_LOST:
	case DIAGNOSE_DIMENSION:
	case DIAGNOSE_GRAPH:
	case DIAGNOSE_MOMENTS:
		return RECOVER_HNSW;
	case DIAGNOSE_RECORDS_GONE:
		return RECOVER_RECORDS;
	case DIAGNOSE_RECORDS_BARE:
		return RECOVER_BARE;
	default:
		return -1;
	}
}

/* ---- healing ---- */

void recover_say(struct recovery *r, enum recover_step step, const char *collection,
		 const char *format, ...)
{
	char sentence[512];
	va_list ap;

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

int recover_open(struct recovery *r)
{
	char file[sizeof(r->path) + sizeof(DATABASE_FILE)];
	int error;

	snprintf(file, sizeof(file), "%s/" DATABASE_FILE, r->path);
	error = database_error(
	    sqlite3_open_v2(file, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL));
	if (error == 0)
		database_configure(r->db);
	return error;
}

/* What was not found needs no step; the journal comes first in any case. */
static bool is_due(const struct recovery *r, int step)
{
	if (step == RECOVER_UNDELETE)
		return r->options->undelete != NULL;
	if (r->options->steps != RECOVER_ALL && 1u << step & RECOVER_ON_REQUEST)
		return true;
	if (step == RECOVER_HNSW && r->options->rebuild)
		return true;
	if (step == RECOVER_RECORDS && r->lost_pages)
		return true;
	return step == RECOVER_JOURNAL || r->judgement->steps & 1u << step;
}

int recover_heal(int dirfd, const struct recover_options *options, struct recover_judgement *j,
		 uint64_t *healed_out)
{
	struct recovery r = {.dirfd = dirfd, .options = options, .judgement = j};
	int step, error;

	snprintf(r.path, sizeof(r.path), "/proc/self/fd/%d", dirfd);
	error = recover_open(&r);
	for (step = 0; step < RECOVER_STEPS && error == 0; step++) {
		uint64_t before = r.healed;

		if (!(options->steps & 1u << step) && step != RECOVER_JOURNAL)
			continue;
		if (j->is_stale)
			error = recover_judge(dirfd, j);
		/* A copy, which is synced as a whole. Said to SQLite, it plays a journal back. */
		if (step != RECOVER_JOURNAL)
			recover_sql(&r, "PRAGMA synchronous = OFF");
		if (error == 0 && is_due(&r, step))
			error = steps[step](&r);
		j->is_stale |= r.healed > before;
	}
	if (sqlite3_close(r.db) != SQLITE_OK && error == 0)
		error = -EBUSY;
	*healed_out = r.healed;
	return error;
}
