/* SPDX-License-Identifier: MIT
 *
 * Reader of SQLite's rollback journal.
 */
#include "core/sqlite/journal.h"

#include <errno.h>
#include <string.h>

#include "core/sqlite/page.h"

const unsigned char sqlite_journal_magic[SQLITE_JOURNAL_MAGIC_SIZE] = {0xd9, 0xd5, 0x05, 0xf9,
								       0x20, 0xa1, 0x63, 0xd7};

#define SECTOR_MAX 65536u
#define TRAILER_SIZE 16u /* length, sum, magic; before it the name and the lock page's number */

static bool is_power_of_two(uint32_t n)
{
	return n && (n & (n - 1)) == 0;
}

int sqlite_journal_header_parse(struct sqlite_journal_header *out, const void *data, size_t size)
{
	static const unsigned char zeros[SQLITE_JOURNAL_MAGIC_SIZE];
	const unsigned char *p = data;

	if (size < SQLITE_JOURNAL_HEADER_SIZE || memcmp(p, zeros, sizeof(zeros)) == 0)
		return -ENODATA;
	if (memcmp(p, sqlite_journal_magic, SQLITE_JOURNAL_MAGIC_SIZE) != 0)
		return -EBADMSG;
	*out = (struct sqlite_journal_header){
	    .records = get_be32(p + 8),
	    .nonce = get_be32(p + 12),
	    .page_count = get_be32(p + 16),
	    .sector_size = get_be32(p + 20),
	    .page_size = get_be32(p + 24),
	};
	if (!sqlite_page_size_is_valid(out->page_size) || !is_power_of_two(out->sector_size) ||
	    out->sector_size < 32 || out->sector_size > SECTOR_MAX)
		return -EBADMSG;
	return 0;
}

bool sqlite_journal_is_hot(const struct file_source *source)
{
	unsigned char first;

	return file_source_read(source, &first, 1, 0) == 0 && first != 0;
}

uint32_t sqlite_journal_checksum(uint32_t nonce, const unsigned char *page, uint32_t page_size)
{
	uint32_t sum = nonce;
	int64_t i;

	for (i = (int64_t)page_size - 200; i > 0; i -= 200)
		sum += page[i];
	return sum;
}

int sqlite_journal_super(const struct file_source *source, char *name, size_t room,
			 uint64_t *start_out)
{
	unsigned char trailer[TRAILER_SIZE];
	uint32_t length, sum = 0, i;
	int r;

	if (source->size < TRAILER_SIZE)
		return 0;
	r = file_source_read(source, trailer, TRAILER_SIZE, source->size - TRAILER_SIZE);
	if (r < 0)
		return r;
	length = get_be32(trailer);
	if (memcmp(trailer + 8, sqlite_journal_magic, SQLITE_JOURNAL_MAGIC_SIZE) != 0 ||
	    length == 0 || length > source->size - TRAILER_SIZE)
		return 0;
	if (length >= room)
		return -ENAMETOOLONG;
	r = file_source_read(source, name, length, source->size - TRAILER_SIZE - length);
	if (r < 0)
		return r;
	name[length] = '\0';
	for (i = 0; i < length; i++) {
		int c = (signed char)name[i]; /* SQLite adds plain chars */

		sum += (uint32_t)c;
	}
	if (sum != get_be32(trailer + 4))
		return 0;
	*start_out = source->size - TRAILER_SIZE - length;
	*start_out -= *start_out >= 4 ? 4 : *start_out;
	return 1;
}

/* Starts the segment whose header is at the next sector boundary. 1, 0: none there, -errno */
static int next_segment(struct sqlite_journal *j)
{
	struct sqlite_journal_header h;
	const unsigned char *p;
	uint64_t sector = j->header.sector_size;
	uint64_t at = (j->bytes + sector - 1) / sector * sector;
	int r;

	if (at > j->end || j->end - at < SQLITE_JOURNAL_HEADER_SIZE)
		return 0;
	r = file_window_get(&j->window, at, SQLITE_JOURNAL_HEADER_SIZE, &p);
	if (r < 0)
		return r;
	r = sqlite_journal_header_parse(&h, p, SQLITE_JOURNAL_HEADER_SIZE);
	/* What lies behind the last segment may be of an older, longer journal. */
	if (r < 0 || h.sector_size != sector || h.page_size != j->header.page_size)
		return 0;
	j->nonce = h.nonce;
	j->left = h.records;
	j->bytes = at + sector;
	return 1;
}

int sqlite_journal_open(struct sqlite_journal *j, const struct file_source *source)
{
	unsigned char head[SQLITE_JOURNAL_HEADER_SIZE];
	char name[4096];
	int r;

	*j = (struct sqlite_journal){.end = source->size};
	r = file_source_read(source, head, sizeof(head), 0);
	if (r == 0)
		r = sqlite_journal_header_parse(&j->header, head, sizeof(head));
	if (r < 0)
		return r;
	r = sqlite_journal_super(source, name, sizeof(name), &j->end);
	if (r < 0 && r != -ENAMETOOLONG)
		return r;
	r = file_window_open(&j->window, source, SECTOR_MAX + 64 * 1024);
	if (r < 0)
		return r;
	r = next_segment(j);
	if (r < 0)
		sqlite_journal_close(j);
	return r < 0 ? r : 0;
}

void sqlite_journal_close(struct sqlite_journal *j)
{
	file_window_close(&j->window);
}

int sqlite_journal_next(struct sqlite_journal *j, struct sqlite_journal_record *out)
{
	uint32_t page_size = j->header.page_size;
	const unsigned char *p;
	int r;

	if (j->torn)
		return 0;
	while (j->left == 0)
		if ((r = next_segment(j)) <= 0)
			return r;
	if (j->bytes > j->end || j->end - j->bytes < page_size + 8) {
		/* "Up to the end" ends there; a counted record that is missing is torn. */
		j->torn = j->left != SQLITE_JOURNAL_TO_END;
		j->left = 0;
		return 0;
	}
	r = file_window_get(&j->window, j->bytes, page_size + 8, &p);
	if (r < 0)
		return r;
	out->page = get_be32(p);
	out->data = p + 4;
	if (out->page == 0 || out->page == sqlite_lock_page(page_size) ||
	    get_be32(p + 4 + page_size) != sqlite_journal_checksum(j->nonce, p + 4, page_size)) {
		j->torn = true;
		return 0;
	}
	if (j->left != SQLITE_JOURNAL_TO_END)
		j->left--;
	j->bytes += page_size + 8;
	return 1;
}
