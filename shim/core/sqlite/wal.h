/* SPDX-License-Identifier: MIT
 *
 * Reader of SQLite's write-ahead log (<database>-wal): the new content of pages, not yet moved to
 * the database. Format: sqlite.org/fileformat2.html section 4.
 *
 *	wal    := header(32) frame*
 *	header := magic(4) version(4) page size(4) checkpoint(4) salt(8) checksum(8)
 *	frame  := page number(4) pages after commit, else 0(4) salt(8) checksum(8) page
 *
 * Numbers are big-endian. The checksums run on from frame to frame, over 32-bit words in the byte
 * order that the magic's last bit names. A frame with another salt or a wrong checksum ends the
 * log: it is torn, or left from before a reset. Frames behind the last commit frame do not count.
 *
 * Errors: -ENODATA no header in it, -EBADMSG damaged, -EPROTONOSUPPORT another version.
 */
#ifndef CORE_SQLITE_WAL_H
#define CORE_SQLITE_WAL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/fileio.h"
#include "core/sqlite/page.h"

#define SQLITE_WAL_HEADER_SIZE 32u
#define SQLITE_WAL_FRAME_SIZE 24u /* without its page */
#define SQLITE_WAL_VERSION 3007000u
#define SQLITE_WAL_WRITE_BYTE 120 /* of the index (-shm): the lock of who writes */

struct sqlite_wal_header {
	bool big_endian; /* the checksums */
	uint32_t page_size;
	uint32_t checkpoint;
	uint32_t salt[2];
	uint32_t sum[2];
};

int sqlite_wal_header_parse(struct sqlite_wal_header *out, const void *data, size_t size);

struct sqlite_wal {
	struct sqlite_wal_header header;
	uint64_t frames;     /* valid ones read so far */
	uint64_t committed;  /* of them, up to the last commit frame */
	uint32_t page_count; /* of the database after the last commit frame, 0: none seen */
	/* private */
	struct file_window window;
	uint32_t sum[2];
};

struct sqlite_wal_frame {
	uint32_t page;
	uint32_t commit_pages;	   /* not 0: a commit frame; the database's size in pages then */
	const unsigned char *data; /* header.page_size bytes, lent until the next call */
};

/* The source is lent. */
int sqlite_wal_open(struct sqlite_wal *w, const struct file_source *source);
void sqlite_wal_close(struct sqlite_wal *w);

/* 1: a valid frame, 0: no more, or -errno. */
int sqlite_wal_next(struct sqlite_wal *w, struct sqlite_wal_frame *out);

/*
 * After the last frame: where a commit of the same log follows behind it, else 0, or -errno. SQLite
 * up to 3.40 at least writes such a log: a roll-back to a savepoint can leave it a wrong sum to go
 * on with (shim/doc/decisions.md). As long as it is open it counts all frames, by its index; who
 * reads the log has only those in front. A crash of the machine in a commit leaves the like.
 */
int64_t sqlite_wal_goes_on(struct sqlite_wal *w);

/* The newest content of each page in a log, up to its last commit. */
struct sqlite_wal_pages {
	struct sqlite_page_at *pages; /* by number; to be freed */
	size_t count;
	uint32_t page_size;
	uint64_t size;	  /* of the database, in bytes */
	uint64_t goes_on; /* sqlite_wal_goes_on() */
};

/* No log, or none that SQLite would read, has no pages. -ENOMEM, or why it cannot be read. */
int sqlite_wal_pages(struct sqlite_wal_pages *out, const struct file_source *log);

/*
 * A database together with its log, as one file: what SQLite would make of the two. Both are lent.
 * The source points to this very struct.
 */
struct sqlite_wal_database {
	struct file_source source;
	const struct file_source *database, *log;
	struct sqlite_wal_pages pages;
};

/* -EBADMSG: it says a size that it cannot have. */
int sqlite_wal_database_open(struct sqlite_wal_database *d, const struct file_source *database,
			     const struct file_source *log);
void sqlite_wal_database_close(struct sqlite_wal_database *d);

/* Adds n bytes, a multiple of 8, to a checksum. */
void sqlite_wal_checksum(uint32_t sum[2], bool big_endian, const unsigned char *p, size_t n);

#endif
