/* SPDX-License-Identifier: MIT
 *
 * Reader of page 1 and of the freelist.
 */
#include "core/sqlite/page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool sqlite_is_wal(const struct file_source *database)
{
	unsigned char head[SQLITE_HEADER_SIZE];
	struct sqlite_header header;

	return file_source_read(database, head, sizeof(head), 0) == 0 &&
	       sqlite_header_parse(&header, head, sizeof(head)) == 0 && header.write_version == 2;
}

bool sqlite_page_size_is_valid(uint32_t size)
{
	return size >= 512 && size <= 65536 && (size & (size - 1)) == 0;
}

int sqlite_header_parse(struct sqlite_header *out, const void *page1, size_t size)
{
	const unsigned char *p = page1;

	if (size < SQLITE_HEADER_SIZE)
		return -ENODATA;
	if (memcmp(p, SQLITE_MAGIC, sizeof(SQLITE_MAGIC)) != 0)
		return -EBADMSG;
	*out = (struct sqlite_header){
	    .page_size = get_be16(p + 16) == 1 ? 65536 : get_be16(p + 16),
	    .write_version = p[18],
	    .read_version = p[19],
	    .reserved = p[20],
	    .change_counter = get_be32(p + 24),
	    .page_count = get_be32(p + 28),
	    .freelist_trunk = get_be32(p + 32),
	    .freelist_count = get_be32(p + 36),
	    .schema_cookie = get_be32(p + 40),
	    .schema_format = get_be32(p + 44),
	    .autovacuum_root = get_be32(p + 52),
	    .encoding = get_be32(p + 56),
	    .user_version = get_be32(p + 60),
	    .application_id = get_be32(p + 68),
	    .valid_for = get_be32(p + 92),
	    .library_version = get_be32(p + 96),
	};
	/* The payload fractions are constants of the format, and usable pages have 480 bytes. */
	if (!sqlite_page_size_is_valid(out->page_size) || p[21] != 64 || p[22] != 32 ||
	    p[23] != 32 || out->page_size - out->reserved < 480)
		return -EBADMSG;
	return 0;
}

struct freelist {
	const struct sqlite_header *header;
	uint64_t pages; /* in the file */
	uint32_t left;
	sqlite_free_page_fn *page;
	void *context;
};

static int page_visit(struct freelist *f, uint32_t page, bool is_trunk)
{
	if (f->left == 0 || page < 2 || page > f->pages ||
	    page == sqlite_lock_page(f->header->page_size))
		return -EBADMSG;
	f->left--;
	return f->page ? f->page(f->context, page, is_trunk) : 0;
}

static int visit_trunk(struct freelist *f, const unsigned char *p, uint32_t trunk)
{
	uint32_t leaves = get_be32(p + 4), i;
	int r = page_visit(f, trunk, true);

	if (leaves > (f->header->page_size - f->header->reserved) / 4 - 2)
		return -EBADMSG;
	for (i = 0; r == 0 && i < leaves; i++)
		r = page_visit(f, get_be32(p + 8 + 4 * i), false);
	return r;
}

int sqlite_freelist_walk(const struct sqlite_header *header, const struct file_source *source,
			 sqlite_free_page_fn *page, void *context)
{
	struct freelist f = {.header = header,
			     .pages = source->size / header->page_size,
			     .left = header->freelist_count,
			     .page = page,
			     .context = context};
	uint32_t trunk = header->freelist_trunk;
	unsigned char *p = malloc(header->page_size);
	int r = p ? 0 : -ENOMEM;

	if (r == 0 && header->freelist_count > f.pages)
		r = -EBADMSG;
	while (r == 0 && trunk) {
		if (trunk > f.pages) {
			r = -EBADMSG;
			break;
		}
		r = file_source_read(source, p, header->page_size,
				     (uint64_t)(trunk - 1) * header->page_size);
		if (r == 0)
			r = visit_trunk(&f, p, trunk);
		trunk = get_be32(p);
	}
	free(p);
	return r < 0 || !f.left ? r : r > 0 ? r : -EBADMSG;
}

/* ---- pages that are elsewhere ---- */

static int by_page(const void *a, const void *b)
{
	const struct sqlite_page_at *x = a, *y = b;

	if (x->page != y->page)
		return x->page < y->page ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

size_t sqlite_pages_sort(struct sqlite_page_at *pages, size_t count, bool keep_last)
{
	size_t from, to = 0;

	if (count)
		qsort(pages, count, sizeof(*pages), by_page);
	for (from = 0; from < count; from++) {
		bool again = to > 0 && pages[from].page == pages[to - 1].page;

		if (!again)
			pages[to++] = pages[from];
		else if (keep_last)
			pages[to - 1] = pages[from];
	}
	return to;
}

const struct sqlite_page_at *sqlite_pages_find(const struct sqlite_page_at *pages, size_t count,
					       uint64_t page)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (pages[middle].page < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && pages[low].page == page ? &pages[low] : NULL;
}
