/* SPDX-License-Identifier: MIT
 *
 * The diagnosis of a directory: what is in it, and all parts in their order.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/check/internal.h"
#include "core/segment/hnsw.h"
#include "core/sqlite/database.h"

static const struct diagnose_place database_place = {.file = CHROMA_DATABASE};

/* ---- what is in it ---- */

static uint64_t size_of_segment(int dirfd, const char *name)
{
	static const char *const files[] = {HNSW_LEVEL0_FILE, HNSW_LINKS_FILE};
	int fd = file_follow_directory_at(dirfd, name);
	uint64_t size = 0;
	struct stat st;
	unsigned i;

	if (fd < 0)
		return 0;
	for (i = 0; i < 2; i++)
		if (fstatat(fd, files[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			size += (uint64_t)st.st_blocks * 512; /* a runaway file is mostly holes */
	close(fd);
	return size;
}

/* Calls `each` for every segment directory; returns their number. */
static uint64_t each_segment(struct diagnosis *d, void (*each)(struct diagnosis *, const char *))
{
	DIR *dir;
	const struct dirent *entry;
	uint64_t count = 0;

	if (file_names_at(d->dirfd, NULL, &dir) < 0)
		return 0;
	while ((entry = readdir(dir))) {
		if (!chroma_is_segment(d->dirfd, entry->d_name))
			continue;
		count++;
		if (each)
			each(d, entry->d_name);
	}
	closedir(dir);
	return count;
}

static void add_segment(struct diagnosis *d, const char *name)
{
	d->summary->bytes += size_of_segment(d->dirfd, name);
	diagnose_ownership(d, &d->database, name);
}

static void report_leftover(struct diagnosis *d, const char *name)
{
	/* When the database cannot say, a directory is not called left over; nor when it may be
	 * that of a collection that has lost its own. */
	if (!d->lacks_segment && chroma_has_segment(d->db, name) == 0)
		diagnose_report(d, DIAGNOSE_LEFTOVER, (struct diagnose_place){.segment = name},
				"%s", "");
}

/* ---- the whole ---- */

static int check_collection(void *context, const struct chroma_collection *c)
{
	struct diagnosis *d = context;
	struct chroma_collection mended = *c;

	d->summary->collections++;
	if (!c->vector_segment[0] || !c->metadata_segment[0]) {
		d->lacks_segment |= !c->vector_segment[0];
		diagnose_report(d, DIAGNOSE_SEGMENT_ROW,
				(struct diagnose_place){.collection = c->name}, "%s%s%s",
				c->vector_segment[0] ? "" : "VECTOR",
				c->vector_segment[0] || c->metadata_segment[0] ? "" : " and ",
				c->metadata_segment[0] ? "" : "METADATA");
		return 0;
	}
	mended.dimension = chroma_lost_dimension(d->db, d->dirfd, c);
	if (mended.dimension)
		diagnose_report(d, DIAGNOSE_DIMENSION_LOST,
				(struct diagnose_place){c->name, c->vector_segment, NULL},
				"its vectors have %lld", (long long)mended.dimension);
	else
		mended.dimension = c->dimension;
	diagnose_queue(d, &mended);
	diagnose_segment(d, &mended);
	return 0;
}

void diagnose_contents(struct diagnosis *d, int r)
{
	if (diagnose_structure(d) && diagnose_tables(d)) {
		r = diagnose_rows(d);
		if (r == 0)
			r = chroma_each_collection(d->db, check_collection, d);
	}
	/* SQLite's words are of its own last error, not of ours. */
	if (r < 0 && r != -ENOENT && !d->summary->findings[DIAGNOSE_DAMAGE])
		diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s",
				r == -ENOMEM ? strerror(ENOMEM) : sqlite3_errmsg(d->db));
	if (d->persisted && d->absent == d->persisted)
		diagnose_report(d, DIAGNOSE_SEGMENTS_ABSENT, (struct diagnose_place){0},
				"%llu collections", (unsigned long long)d->absent);
}

static void check_database(struct diagnosis *d, const struct stat *st)
{
	int r;

	if (!diagnose_database_file(d, st))
		return;
	r = database_open_now(d->path, d->dirfd, &d->db);
	if (!d->db)
		diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s", strerror(-r));
	else
		diagnose_contents(d, r);
	if (d->db)
		each_segment(d, report_leftover);
	sqlite3_close(d->db);
}

/* ---- one that no collection uses ---- */

/* The graph is not needed to read the vectors. */
static bool is_in_the_way(enum diagnose_code code)
{
	switch (code) {
	case DIAGNOSE_LINKS_SHORT:
	case DIAGNOSE_LINKS_DAMAGED:
	case DIAGNOSE_LINKS_RUNAWAY:
	case DIAGNOSE_GRAPH:
		return false;
	default:
		return diagnose_kinds[code].severity >= DIAGNOSE_DAMAGE;
	}
}

static void note_first(void *context, const struct diagnose_finding *f)
{
	const char **damage = context;

	if (!*damage && is_in_the_way(f->code))
		*damage = diagnose_kinds[f->code].code;
}

int diagnose_leftover(int dirfd, const char *segment, const char **damage_out)
{
	struct diagnose_options options = {.report = note_first, .context = damage_out};
	struct diagnose_summary summary = {0};
	struct diagnosis d = {.dirfd = dirfd, .options = &options, .summary = &summary};
	/* It had a mark, or else a missing pickle would be normal. */
	struct chroma_collection c = {.name = segment, .vector_mark = {.type = SQLITE_INTEGER}};
	int r = database_error(sqlite3_open(":memory:", &d.db));

	*damage_out = NULL;
	snprintf(c.vector_segment, sizeof(c.vector_segment), "%.40s", segment);
	d.pending = r == 0 ? calloc(DIAGNOSE_PENDING_MAX, sizeof(*d.pending)) : NULL;
	if (d.pending)
		diagnose_segment(&d, &c);
	else if (r == 0)
		r = -ENOMEM;
	free(d.pending);
	sqlite3_close(d.db);
	return r;
}

static void judge_without_database(struct diagnosis *d)
{
	uint64_t segments = each_segment(d, NULL);
	enum diagnose_code code = DIAGNOSE_NOT_CHROMA, other;

	if (!diagnose_history(d, NULL))
		return;
	other = diagnose_names(d);
	if (other < DIAGNOSE_CODES && diagnose_kinds[other].severity == DIAGNOSE_DAMAGE)
		return;
	/* What lies beside does not make it a directory that Chroma may begin anew. */
	if (segments)
		code = DIAGNOSE_DATABASE_MISSING;
	else if (d->summary->newest_snapshot)
		code = DIAGNOSE_EMPTIED;
	else if (other < DIAGNOSE_CODES)
		return;
	diagnose_report(d, code, (struct diagnose_place){0}, "%llu segment directories",
			(unsigned long long)segments);
}

int diagnose_directory(const char *path, int dirfd, const struct diagnose_options *options,
		       struct diagnose_summary *out)
{
	struct diagnosis d = {.path = path, .dirfd = dirfd, .options = options, .summary = out};
	struct stat st;
	int error = 0;

	*out = (struct diagnose_summary){0};
	if (fstatat(dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) < 0)
		error = errno;
	if (error == ENOENT) {
		judge_without_database(&d);
		return 0;
	}
	if (!error && S_ISLNK(st.st_mode)) {
		diagnose_link(&d, database_place, CHROMA_DATABASE);
		return 0;
	}
	if (error || !S_ISREG(st.st_mode)) {
		diagnose_report(&d, DIAGNOSE_UNREADABLE, database_place, "%s",
				error ? strerror(error) : "not a regular file");
		return 0;
	}
	d.pending = calloc(DIAGNOSE_PENDING_MAX, sizeof(*d.pending));
	if (!d.pending)
		return -ENOMEM;
	out->bytes = (uint64_t)st.st_size;
	d.database = st;
	d.segments = each_segment(&d, add_segment);
	diagnose_surroundings(&d, &st);
	if (diagnose_history(&d, &st) && !diagnose_database_copy(&d))
		check_database(&d, &st);
	free(d.pending);
	return 0;
}
