/* SPDX-License-Identifier: MIT
 *
 * Reader of SQLite's write-ahead log.
 */
#include "core/sqlite/wal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/sqlite/page.h"

#define UNWRITTEN_MAX (UINT64_C(1) << 30) /* pages that a commit counts and nobody wrote */
#define MAGIC 0x377f0682u		  /* | 1: checksums over big-endian words */

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

/* Of this log; or the sum is still to be made, until when there is no salt either. */
static bool is_of_log(const struct sqlite_wal *w, const unsigned char *frame)
{
	uint32_t salt[2] = {get_be32(frame + 8), get_be32(frame + 12)};

	return get_be32(frame) && ((salt[0] == w->header.salt[0] && salt[1] == w->header.salt[1]) ||
				   (!salt[0] && !salt[1]));
}

int64_t sqlite_wal_goes_on(struct sqlite_wal *w)
{
	uint64_t size = SQLITE_WAL_FRAME_SIZE + (uint64_t)w->header.page_size, at;
	const unsigned char *p;
	int r;

	for (at = SQLITE_WAL_HEADER_SIZE + w->frames * size;; at += size) {
		r = file_window_get(&w->window, at, (size_t)size, &p);
		if (r < 0)
			return r == -ENODATA ? 0 : r;
		if (!is_of_log(w, p))
			return 0;
		if (get_be32(p + 4))
			return (int64_t)at;
	}
}

/* ---- together with its database ---- */

static int add_page(struct sqlite_wal_pages *p, uint32_t page, uint64_t at)
{
	struct sqlite_page_at *more = p->pages;

	if ((p->count & (p->count - 1)) == 0) /* full at each power of two */
		more = reallocarray(p->pages, p->count ? 2 * p->count : 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	p->pages = more;
	p->pages[p->count++] = (struct sqlite_page_at){.page = page, .at = at};
	return 0;
}

static int collect(struct sqlite_wal_pages *p, struct sqlite_wal *w)
{
	struct sqlite_wal_frame frame;
	uint64_t size = SQLITE_WAL_FRAME_SIZE + (uint64_t)w->header.page_size;
	int64_t more;
	int r;

	while ((r = sqlite_wal_next(w, &frame)) == 1) {
		r = add_page(p, frame.page,
			     SQLITE_WAL_HEADER_SIZE + SQLITE_WAL_FRAME_SIZE +
				 (w->frames - 1) * size);
		if (r < 0)
			break;
	}
	p->count = sqlite_pages_sort(p->pages, (size_t)w->committed, true);
	p->page_size = w->header.page_size;
	p->size = (uint64_t)w->page_count * w->header.page_size;
	more = r == 0 ? sqlite_wal_goes_on(w) : r;
	p->goes_on = more > 0 ? (uint64_t)more : 0;
	return more < 0 ? (int)more : 0;
}

int sqlite_wal_pages(struct sqlite_wal_pages *out, const struct file_source *log)
{
	struct sqlite_wal w;
	int r = sqlite_wal_open(&w, log);

	*out = (struct sqlite_wal_pages){0};
	if (r < 0)
		return r == -ENODATA || r == -EBADMSG || r == -EPROTONOSUPPORT ? 0 : r;
	r = collect(out, &w);
	sqlite_wal_close(&w);
	if (r < 0) {
		free(out->pages);
		*out = (struct sqlite_wal_pages){0};
	}
	return r;
}

/* Reads some bytes of one page. */
static int read_part(const struct sqlite_wal_database *d, unsigned char *out, size_t n,
		     uint64_t offset)
{
	const struct sqlite_page_at *at =
	    sqlite_pages_find(d->pages.pages, d->pages.count, offset / d->pages.page_size + 1);
	uint64_t have = offset < d->database->size ? d->database->size - offset : 0;

	if (at)
		return file_source_read(d->log, out, n, at->at + offset % d->pages.page_size);
	if (have < n) { /* neither here nor there: as SQLite reads behind the end */
		memset(out + have, 0, n - (size_t)have);
		n = (size_t)have;
	}
	return n ? file_source_read(d->database, out, n, offset) : 0;
}

static ssize_t read_together(const struct file_source *source, void *buf, size_t n, uint64_t offset)
{
	const struct sqlite_wal_database *d = source->data;
	uint32_t size = d->pages.page_size;
	size_t done = 0;

	if (offset >= source->size)
		return 0;
	n = n < source->size - offset ? n : (size_t)(source->size - offset);
	while (done < n) {
		uint64_t left = size - (offset + done) % size;
		size_t part = left < n - done ? (size_t)left : n - done;
		int r = read_part(d, (unsigned char *)buf + done, part, offset + done);

		if (r < 0)
			return r;
		done += part;
	}
	return (ssize_t)n;
}

int sqlite_wal_database_open(struct sqlite_wal_database *d, const struct file_source *database,
			     const struct file_source *log)
{
	int r = sqlite_wal_pages(&d->pages, log);

	d->database = database;
	d->log = log;
	d->source = *database;
	if (r == 0 && d->pages.size > database->size + log->size + UNWRITTEN_MAX)
		r = -EBADMSG;
	if (d->pages.count)
		d->source = (struct file_source){
		    .read = read_together, .size = d->pages.size, .data = d, .fd = -1};
	return r;
}

void sqlite_wal_database_close(struct sqlite_wal_database *d)
{
	free(d->pages.pages);
	d->pages = (struct sqlite_wal_pages){0};
}
