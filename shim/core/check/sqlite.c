/* SPDX-License-Identifier: MIT
 *
 * Judging chroma.sqlite3, its journal and its log by their own bytes, before SQLite opens them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/base/text.h"
#include "core/check/internal.h"
#include "core/salvage/salvage.h"
#include "core/sqlite/database.h"
#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"
#include "core/sqlite/wal.h"

#define JOURNAL_FILE CHROMA_DATABASE "-journal"
#define WAL_FILE CHROMA_DATABASE "-wal"

static const struct diagnose_place database_place = {.file = CHROMA_DATABASE};
static const struct diagnose_place journal_place = {.file = JOURNAL_FILE};

/* Page 1 may be in the middle of being rewritten by a live writer: read until it keeps still. */
static int read_header(int fd, const struct stat *st, struct sqlite_header *out)
{
	unsigned char once[SQLITE_HEADER_SIZE], again[SQLITE_HEADER_SIZE];
	int tries;

	if (st->st_size == 0)
		return -ENOENT; /* an empty file is an empty database */
	for (tries = 0; tries < 20; tries++) {
		ssize_t n = file_read_at(fd, once, sizeof(once), 0);

		if (n < 0)
			return (int)n;
		if (n < (ssize_t)sizeof(once))
			return -ENODATA;
		usleep(1000);
		n = file_read_at(fd, again, sizeof(again), 0);
		if (n == (ssize_t)sizeof(again) && memcmp(once, again, sizeof(once)) == 0)
			break;
	}
	return sqlite_header_parse(out, again, sizeof(again));
}

/* Whether another process is inside a write transaction: then a journal is nothing special. */
static bool has_writer(int fd)
{
	struct flock lock = {
	    .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = SQLITE_RESERVED_BYTE, .l_len = 1};

	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* True: SQLite would roll it back, which a reader may not. */
static bool judge_journal(struct diagnosis *d, const struct file_source *source)
{
	struct sqlite_journal_header header;
	unsigned char head[SQLITE_JOURNAL_HEADER_SIZE];
	char super[1024];
	uint64_t start;
	int r = file_source_read(source, head, sizeof(head), 0);

	if (!sqlite_journal_is_hot(source))
		return false;
	if (r == 0)
		r = sqlite_journal_header_parse(&header, head, sizeof(head));
	if (r < 0) {
		diagnose_report(d, DIAGNOSE_JOURNAL_DAMAGED, journal_place, "%llu bytes",
				(unsigned long long)source->size);
		return true;
	}
	if (sqlite_journal_super(source, super, sizeof(super), &start) == 1 &&
	    access(super, F_OK) < 0)
		diagnose_report(d, DIAGNOSE_JOURNAL_SUPER, journal_place, "%s", super);
	diagnose_report(d, DIAGNOSE_JOURNAL_HOT, journal_place, "%llu bytes",
			(unsigned long long)source->size);
	return true;
}

static bool is_hot(struct diagnosis *d, int database)
{
	struct file_source source;
	bool hot = false;
	int fd = file_open_at(d->dirfd, JOURNAL_FILE);

	if (fd < 0) {
		if (fd != -ENOENT)
			diagnose_report(d, DIAGNOSE_UNREADABLE, journal_place, "%s", strerror(-fd));
		return false;
	}
	if (!has_writer(database) && file_source_open(&source, fd) == 0)
		hot = judge_journal(d, &source);
	close(fd);
	return hot;
}

/* ---- the write-ahead log ---- */

/* *frames_out: how many it holds that count. A writer may be starting it anew: not damage. */
static void judge_wal(struct diagnosis *d, uint64_t *frames_out)
{
	static const struct diagnose_place place = {.file = WAL_FILE};
	unsigned char head[SQLITE_WAL_HEADER_SIZE];
	struct sqlite_wal_frame frame;
	struct file_source source;
	struct sqlite_wal wal;
	int fd = file_open_at(d->dirfd, WAL_FILE);
	int r = fd < 0 ? fd : file_source_open_data(&source, fd);

	*frames_out = 0;
	if (r == 0 && source.size > 0) {
		r = sqlite_wal_open(&wal, &source);
		while (r == 0 && sqlite_wal_next(&wal, &frame) == 1)
			;
		if (r == 0) {
			*frames_out = wal.committed;
			sqlite_wal_close(&wal);
		}
		if (r < 0 && !d->summary->processes &&
		    (file_source_read(&source, head, sizeof(head), 0) < 0 ||
		     !bytes_are_zero(head, sizeof(head))))
			diagnose_report(d, DIAGNOSE_WAL_DAMAGED, place, "%llu bytes",
					(unsigned long long)source.size);
	} else if (r < 0 && r != -ENOENT) {
		diagnose_report(d, DIAGNOSE_UNREADABLE, place, "%s", strerror(-r));
	}
	if (fd >= 0)
		close(fd);
}

/* ---- its pages as a whole ---- */

/* Which of the two it is tells whether anything can be done. False: nothing is left. */
static bool judge_remains(struct diagnosis *d, int fd, enum diagnose_code code, const char *detail)
{
	bool has_rows = salvage_has_rows(fd);

	diagnose_report(d, has_rows ? code : DIAGNOSE_DATABASE_LOST, database_place, "%s", detail);
	return has_rows;
}

static int ignore_page(void *context, uint32_t page, bool is_trunk)
{
	(void)context;
	(void)page;
	(void)is_trunk;
	return 0;
}

/*
 * A transaction that outgrows the page cache writes pages before page 1, which says how many there
 * are and which are free. Without the journal they stay. A writer may be at it just now: it is
 * looked at a second time.
 */
static bool judge_pages(struct diagnosis *d, int fd, const struct sqlite_header *header)
{
	uint64_t told = (uint64_t)header->page_count * header->page_size, have;
	struct file_source source;
	struct sqlite_header now;
	char detail[64];
	struct stat st;
	int r;

	if (has_writer(fd) || file_source_open(&source, fd) < 0)
		return true;
	r = sqlite_freelist_walk(header, &source, ignore_page, NULL);
	if (fstat(fd, &st) < 0 || has_writer(fd) || read_header(fd, &st, &now) < 0 ||
	    now.change_counter != header->change_counter)
		return true;
	have = (uint64_t)st.st_size;
	if (sqlite_header_has_page_count(header) && told > have) {
		snprintf(detail, sizeof(detail), "%llu of %llu bytes", (unsigned long long)have,
			 (unsigned long long)told);
		return judge_remains(d, fd, DIAGNOSE_DATABASE_SHORT, detail);
	}
	if (r == -EBADMSG && !d->options->full) /* SQLite's own check says it */
		diagnose_report(d, DIAGNOSE_DATABASE_MALFORMED, database_place,
				"its list of free pages leads to what is none");
	if (sqlite_header_has_page_count(header) && told < have)
		diagnose_report(d, DIAGNOSE_JOURNAL_LOST, database_place,
				"%llu bytes, of which it knows %llu", (unsigned long long)have,
				(unsigned long long)told);
	return true;
}

bool diagnose_database_file(struct diagnosis *d, const struct stat *st)
{
	struct sqlite_header header;
	int fd = file_open_at(d->dirfd, CHROMA_DATABASE);
	bool can_open = false, hot;
	uint64_t frames;
	int r;

	if (fd < 0) {
		diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s", strerror(-fd));
		return false;
	}
	hot = is_hot(d, fd);
	r = read_header(fd, st, &header);
	if (r == -ENOENT)
		diagnose_report(d, d->segments ? DIAGNOSE_DATABASE_MISSING : DIAGNOSE_NOT_CHROMA,
				database_place, "it is empty");
	else if (hot)
		can_open = true; /* what page 1 says counts only after the roll-back */
	else if (r == -EBADMSG || r == -ENODATA)
		judge_remains(d, fd, DIAGNOSE_DATABASE_FOREIGN, "");
	else if (r < 0)
		diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s", strerror(-r));
	else
		can_open = true;
	if (hot || !can_open) {
		close(fd);
		return can_open;
	}
	judge_wal(d, &frames);
	if (header.write_version == 2)
		diagnose_report(d, DIAGNOSE_WAL_MODE, database_place, "%llu frames in the log",
				(unsigned long long)frames);
	/* In WAL mode the rest may be in the log. */
	if (header.write_version == 1)
		can_open = judge_pages(d, fd, &header);
	close(fd);
	return can_open;
}
