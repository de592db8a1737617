/* SPDX-License-Identifier: MIT
 *
 * Reader of SQLite's write-ahead log.
 */
#include "core/sqlite_wal.h"

#include <errno.h>

#include "core/sqlite_page.h"

#define MAGIC 0x377f0682u /* | 1: checksums over big-endian words */

void sqlite_wal_checksum(uint32_t sum[2], bool big_endian, const unsigned char *p, size_t n)
{
	size_t i;

	for (i = 0; i + 8 <= n; i += 8) {
		sum[0] += (big_endian ? get_be32(p + i) : get_le32(p + i)) + sum[1];
		sum[1] += (big_endian ? get_be32(p + i + 4) : get_le32(p + i + 4)) + sum[0];
	}
}

int sqlite_wal_header_parse(struct sqlite_wal_header *out, const void *data, size_t size)
{
	const unsigned char *p = data;
	uint32_t sum[2] = {0, 0};

	if (size < SQLITE_WAL_HEADER_SIZE)
		return -ENODATA;
	if ((get_be32(p) & ~1u) != MAGIC)
		return -EBADMSG;
	if (get_be32(p + 4) != SQLITE_WAL_VERSION)
		return -EPROTONOSUPPORT;
	*out = (struct sqlite_wal_header){
	    .big_endian = get_be32(p) & 1,
	    .page_size = get_be32(p + 8),
	    .checkpoint = get_be32(p + 12),
	    .salt = {get_be32(p + 16), get_be32(p + 20)},
	    .sum = {get_be32(p + 24), get_be32(p + 28)},
	};
	sqlite_wal_checksum(sum, out->big_endian, p, 24);
	if (sum[0] != out->sum[0] || sum[1] != out->sum[1] ||
	    !sqlite_page_size_is_valid(out->page_size))
		return -EBADMSG;
	return 0;
}

int sqlite_wal_open(struct sqlite_wal *w, const struct file_source *source)
{
	unsigned char head[SQLITE_WAL_HEADER_SIZE];
	int r;

	*w = (struct sqlite_wal){0};
	r = file_source_read(source, head, sizeof(head), 0);
	if (r == 0)
		r = sqlite_wal_header_parse(&w->header, head, sizeof(head));
	if (r < 0)
		return r;
	w->sum[0] = w->header.sum[0];
	w->sum[1] = w->header.sum[1];
	return file_window_open(&w->window, source, 256u << 10);
}

void sqlite_wal_close(struct sqlite_wal *w)
{
	file_window_close(&w->window);
}

int sqlite_wal_next(struct sqlite_wal *w, struct sqlite_wal_frame *out)
{
	size_t size = SQLITE_WAL_FRAME_SIZE + (size_t)w->header.page_size;
	uint32_t sum[2] = {w->sum[0], w->sum[1]};
	const unsigned char *p;
	int r = file_window_get(&w->window, SQLITE_WAL_HEADER_SIZE + w->frames * size, size, &p);

	if (r < 0)
		return r == -ENODATA ? 0 : r;
	if (get_be32(p + 8) != w->header.salt[0] || get_be32(p + 12) != w->header.salt[1] ||
	    get_be32(p) == 0)
		return 0;
	sqlite_wal_checksum(sum, w->header.big_endian, p, 8);
	sqlite_wal_checksum(sum, w->header.big_endian, p + SQLITE_WAL_FRAME_SIZE,
			    w->header.page_size);
	if (get_be32(p + 16) != sum[0] || get_be32(p + 20) != sum[1])
		return 0;
	w->sum[0] = sum[0];
	w->sum[1] = sum[1];
	w->frames++;
	out->page = get_be32(p);
	out->commit_pages = get_be32(p + 4);
	out->data = p + SQLITE_WAL_FRAME_SIZE;
	if (out->commit_pages) {
		w->committed = w->frames;
		w->page_count = out->commit_pages;
	}
	return 1;
}
