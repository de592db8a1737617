/* SPDX-License-Identifier: MIT
 *
 * Judging chroma.sqlite3, its journal and its log by their own bytes, before SQLite opens them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/database.h"
#include "core/diagnose_internal.h"
#include "core/fileio.h"
#include "core/sqlite_journal.h"
#include "core/sqlite_page.h"

#define JOURNAL_FILE DATABASE_FILE "-journal"

static const struct diagnose_place database_place = {.file = DATABASE_FILE};
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
	struct flock lock = {.l_type = F_RDLCK,
			     .l_whence = SEEK_SET,
			     .l_start = SQLITE_PENDING_BYTE + 1,
			     .l_len = 1};

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

	if (fd < 0)
		return false;
	if (!has_writer(database) && file_source_open(&source, fd) == 0)
		hot = judge_journal(d, &source);
	close(fd);
	return hot;
}

bool diagnose_database_file(struct diagnosis *d, const struct stat *st)
{
	struct sqlite_header header;
	int fd = file_open_at(d->dirfd, DATABASE_FILE);
	bool can_open = false, hot;
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
		diagnose_report(d, DIAGNOSE_DATABASE_FOREIGN, database_place, "%s", "");
	else if (r < 0)
		diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s", strerror(-r));
	else
		can_open = true;
	if (hot || !can_open) {
		close(fd);
		return can_open;
	}
	if (header.write_version == 2)
		diagnose_report(d, DIAGNOSE_WAL_MODE, database_place, "%s", "");
	/* In WAL mode the rest may be in the log; a writer may be extending the file just now. */
	if (header.write_version == 1 && sqlite_header_has_page_count(&header) && !has_writer(fd) &&
	    (uint64_t)header.page_count * header.page_size > (uint64_t)st->st_size) {
		struct stat now;

		if (fstat(fd, &now) == 0 &&
		    (uint64_t)header.page_count * header.page_size > (uint64_t)now.st_size)
			diagnose_report(d, DIAGNOSE_DATABASE_SHORT, database_place,
					"%llu of %llu bytes", (unsigned long long)now.st_size,
					(unsigned long long)header.page_count * header.page_size);
	}
	close(fd);
	return can_open;
}
