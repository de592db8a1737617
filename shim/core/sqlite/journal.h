/* SPDX-License-Identifier: MIT
 *
 * Reader of SQLite's rollback journal (<database>-journal): the old content of every page that a
 * transaction changes. Format: sqlite.org/fileformat2.html section 3; all numbers big-endian.
 *
 *	journal := segment+ [super-journal trailer]
 *	segment := header record*      headers start at multiples of the sector size
 *	header  := magic(8) records(4) nonce(4) pages before(4) sector size(4) page size(4),
 *		   zeros up to the sector size
 *	record  := page number(4) page checksum(4)
 *
 * `records` is 0 until the journal has been synced; 0xffffffff means "up to the end of the file".
 * The checksum covers about one byte in 200, so a good one proves little. A record whose checksum
 * is wrong ends the journal, as it does for SQLite: that is how a torn tail looks.
 *
 * Errors: -ENODATA no header in it, -EBADMSG damaged.
 */
#ifndef CORE_SQLITE_JOURNAL_H
#define CORE_SQLITE_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/fileio.h"

#define SQLITE_JOURNAL_MAGIC_SIZE 8
#define SQLITE_JOURNAL_HEADER_SIZE 28u
#define SQLITE_JOURNAL_TO_END UINT32_MAX

/* What a header begins with, once it is synced. */
extern const unsigned char sqlite_journal_magic[SQLITE_JOURNAL_MAGIC_SIZE];

struct sqlite_journal_header {
	uint32_t records; /* 0: not synced yet, SQLITE_JOURNAL_TO_END: as many as there are */
	uint32_t nonce;
	uint32_t page_count; /* of the database before; it is cut to that */
	uint32_t sector_size;
	uint32_t page_size;
};

/*
 * -ENODATA: too short or all zeros (a finished journal of journal_mode PERSIST), -EBADMSG: no such
 * header, or impossible sizes.
 */
int sqlite_journal_header_parse(struct sqlite_journal_header *out, const void *data, size_t size);

/*
 * Whether SQLite, when it opens the database, will roll this journal back. That also takes a
 * database that is not empty and that nobody holds RESERVED, which the content cannot tell.
 */
bool sqlite_journal_is_hot(const struct file_source *source);

struct sqlite_journal {
	struct sqlite_journal_header header; /* of the first segment; sizes hold for all */
	bool torn;			     /* it ended with a record that is not whole */
	uint64_t bytes;			     /* read so far, headers included */
	/* private */
	struct file_window window;
	uint32_t nonce, left;
	uint64_t end; /* of the records: without the super-journal trailer */
};

struct sqlite_journal_record {
	uint32_t page;
	const unsigned char *data; /* header.page_size bytes, lent until the next call */
};

/* The source is lent. Close also after an error is not needed. */
int sqlite_journal_open(struct sqlite_journal *j, const struct file_source *source);
void sqlite_journal_close(struct sqlite_journal *j);

/* 1: a record, 0: no more, or -errno. A page may come more than once; the first one counts. */
int sqlite_journal_next(struct sqlite_journal *j, struct sqlite_journal_record *out);

/* The checksum of a page. */
uint32_t sqlite_journal_checksum(uint32_t nonce, const unsigned char *page, uint32_t page_size);

/*
 * The super-journal of a transaction over several databases: the path (terminated; not
 * to be trusted) goes to name, *start_out says where the trailer begins. 1: there is one, 0: none,
 * -ENAMETOOLONG. If that file is gone, SQLite does not roll this journal back.
 */
int sqlite_journal_super(const struct file_source *source, char *name, size_t room,
			 uint64_t *start_out);

#endif
