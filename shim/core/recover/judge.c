/* SPDX-License-Identifier: MIT
 *
 * What a diagnosis says to a recovery.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/recover/internal.h"
#include "core/segment/hnsw.h"
#include "core/sqlite/fulltext.h"

int recover_step_of(enum diagnose_code code)
{
	switch (code) {
	case DIAGNOSE_JOURNAL_HOT:
		return RECOVER_JOURNAL;
	case DIAGNOSE_DATABASE_MALFORMED:
	case DIAGNOSE_DATABASE_SHORT:
	case DIAGNOSE_DATABASE_UNFINISHED:
	case DIAGNOSE_JOURNAL_LOST:
	case DIAGNOSE_DATABASE_FOREIGN:
		return RECOVER_PAGES;
	case DIAGNOSE_TABLE_MISSING: /* if it is the full-text index */
	case DIAGNOSE_TRIGGER:	     /* before anything is written */
	case DIAGNOSE_INDEX_MALFORMED:
	case DIAGNOSE_FTS_MALFORMED:
	case DIAGNOSE_FTS_INCOMPLETE:
	case DIAGNOSE_FTS_FOREIGN:
	case DIAGNOSE_METADATA_BARE:
	case DIAGNOSE_TEXTS_LOST:
		return RECOVER_INDEXES;
	case DIAGNOSE_MIGRATION_CUT:
		return RECOVER_MIGRATION;
	case DIAGNOSE_QUEUE_DAMAGED:
	case DIAGNOSE_RECORD_ID:
		return RECOVER_QUEUE;
	case DIAGNOSE_COLLECTION_ROW:
	case DIAGNOSE_SEGMENT_ROW:
	case DIAGNOSE_SEGMENT_TWICE:
	case DIAGNOSE_SEGMENT_SCOPE:
	case DIAGNOSE_OWNER_ROW:
	case DIAGNOSE_NAME_UNREADABLE:
	case DIAGNOSE_ID_UNREADABLE:
	case DIAGNOSE_SETTINGS:
	case DIAGNOSE_DIMENSION_LOST:
	case DIAGNOSE_SEGMENT_RENAMED:
	case DIAGNOSE_FILE_RENAMED:
		return RECOVER_SEGMENTS;
	case DIAGNOSE_MARK_LOST:
	case DIAGNOSE_MARK_POISONED:
	case DIAGNOSE_MARK_BLOB:
	case DIAGNOSE_MARK_BEYOND:
		return RECOVER_MARKS;
	case DIAGNOSE_SEGMENT_MISSING:
	case DIAGNOSE_FILE_MISSING:
	case DIAGNOSE_FILE_UNFINISHED:
	case DIAGNOSE_PICKLE_MISSING:
	case DIAGNOSE_PICKLE_CUT:
	case DIAGNOSE_PICKLE_DAMAGED:
	case DIAGNOSE_PICKLE_MAPS:
	case DIAGNOSE_HEADER_DAMAGED:
	case DIAGNOSE_LEVEL0_SHORT:
	case DIAGNOSE_LENGTH_SHORT:
	case DIAGNOSE_LENGTH_DAMAGED:
	case DIAGNOSE_VECTORS_DAMAGED:
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
	case DIAGNOSE_RECORDS_LOST:
		return RECOVER_RECORDS;
	case DIAGNOSE_RECORDS_BARE:
		return RECOVER_BARE;
	default:
		return -1;
	}
}

static void note(void *context, const struct diagnose_finding *f)
{
	struct recover_judgement *j = context;
	int step = recover_step_of(f->code);
	struct recover_finding *more;

	if (f->code == DIAGNOSE_TABLE_MISSING && f->detail &&
	    strcmp(f->detail, FULLTEXT_TABLE) != 0 && strcmp(f->detail, "migrations") != 0)
		step = RECOVER_TABLES;

	j->is_bad_copy |= diagnose_is_bad_copy(f->code);
	if (step < 0 && diagnose_kinds[f->code].severity != DIAGNOSE_DAMAGE)
		return;
	j->steps |= step < 0 ? 0 : 1u << step;
	more = reallocarray(j->list, j->count + 1, sizeof(*more));
	if (!more) {
		j->error = -ENOMEM;
		return;
	}
	j->list = more;
	j->list[j->count].code = f->code;
	snprintf(j->list[j->count].segment, CHROMA_ID_SIZE, "%.40s", f->segment ? f->segment : "");
	snprintf(j->list[j->count].file, sizeof(j->list->file), "%.31s", f->file ? f->file : "");
	snprintf(j->list[j->count++].alias, CHROMA_ALIAS_SIZE, "%.255s",
		 f->detail ? f->detail : "");
}

int recover_judge(int dirfd, struct recover_judgement *out)
{
	struct recover_judgement j = {.storefd = out->storefd};
	struct diagnose_options options = {
	    .logfd = out->storefd, .full = true, .report = note, .context = &j};
	struct diagnose_summary summary;
	char path[48];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dirfd);
	r = diagnose_directory(path, dirfd, &options, &summary);
	if (r == 0)
		r = j.error;
	if (r == 0) {
		j.damage = summary.findings[DIAGNOSE_DAMAGE];
		j.has_unknown = summary.findings[DIAGNOSE_UNKNOWN] > 0;
	}
	recover_judgement_free(out);
	*out = j;
	return r;
}

void recover_judgement_free(struct recover_judgement *j)
{
	free(j->list);
	*j = (struct recover_judgement){.list = NULL};
}

bool recover_was_found(const struct recover_judgement *j, enum diagnose_code code)
{
	size_t i;

	for (i = 0; i < j->count; i++)
		if (j->list[i].code == code)
			return true;
	return false;
}

bool recover_is_blind(const struct recover_judgement *j)
{
	return j->steps & (1u << RECOVER_PAGES | 1u << RECOVER_TABLES) ||
	       recover_was_found(j, DIAGNOSE_INDEX_MALFORMED);
}

const char *recover_finding_of(const struct recover_judgement *j, enum recover_step step,
			       const char *segment)
{
	size_t i;

	for (i = 0; i < j->count; i++)
		if (recover_step_of(j->list[i].code) == (int)step &&
		    strcmp(j->list[i].segment, segment) == 0)
			return diagnose_kinds[j->list[i].code].code;
	return NULL;
}

/*
 * What a crash cuts off, or a copy that was not finished, ends anywhere; the file of an earlier
 * persist with an element. The vectors in it are of that time. Not so where length.bin, which a
 * persist writes after it, is short, too: the persist itself did not finish, and what it was to
 * write is in the queue.
 */
static bool is_of_an_earlier_persist(int dirfd, const char *segment)
{
	int fd = file_open_directory_at(dirfd, segment);
	struct stat level0, length;
	struct hnsw_header h;
	bool is_older;

	if (fd < 0)
		return false;
	is_older = hnsw_header_read(fd, &h) == 0 && h.stride &&
		   fstatat(fd, HNSW_LEVEL0_FILE, &level0, AT_SYMLINK_NOFOLLOW) == 0 &&
		   fstatat(fd, HNSW_LENGTH_FILE, &length, AT_SYMLINK_NOFOLLOW) == 0 &&
		   level0.st_size > 0 && (uint64_t)level0.st_size % h.stride == 0 &&
		   (uint64_t)length.st_size / sizeof(float) >= h.count;
	close(fd);
	return is_older;
}

bool recover_makes_vectors_differ(const struct recover_judgement *j, int dirfd)
{
	size_t i;

	for (i = 0; i < j->count; i++)
		switch (j->list[i].code) {
		case DIAGNOSE_INDEX_OLDER:
		case DIAGNOSE_INDEX_MIXED:
			return true;
		case DIAGNOSE_LEVEL0_SHORT:
			if (is_of_an_earlier_persist(dirfd, j->list[i].segment))
				return true;
			break;
		default:
			break;
		}
	return false;
}

/* Without a segment it is of the whole database. */
bool recover_costs_vectors(const struct recover_judgement *j, const char *segment)
{
	size_t i;

	for (i = 0; i < j->count; i++) {
		enum diagnose_code code = j->list[i].code;
		int step = recover_step_of(code);

		if (step == RECOVER_PAGES || code == DIAGNOSE_MARK_BEYOND ||
		    code == DIAGNOSE_QUEUE_DAMAGED || code == DIAGNOSE_DATABASE_MISSING ||
		    (step == RECOVER_HNSW && strcmp(j->list[i].segment, segment) == 0))
			return true;
	}
	return false;
}
