/* SPDX-License-Identifier: MIT */
#include "preload/sqlite/wal_view.h"

#include <string.h>

#include "core/chroma/rows_seen.h"
#include "core/sqlite/page.h"
#include "core/sqlite/wal.h"
#include "preload/place/protection.h"

#define INDEX_FIRST 34u	   /* entries of the first block that its header takes */
#define INDEX_BLOCK 4096u  /* entries */
#define INDEX_BYTES 32768u /* of a block, with its hash */
#define INDEX_CHANGE 8	   /* where in its header: */
#define INDEX_PAGE_SIZE 14
#define INDEX_FRAMES 16
#define INDEX_PAGES 20
#define INDEX_SALT 32
#define INDEX_HEADER 40
#define FRAMES_MOST 65536u /* of a log that is looked through */

static int find_fd(unsigned protection, uint8_t object, unsigned role)
{
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.role == role && s.protection == protection && s.object == object)
			return fd;
	}
	return -1;
}

bool wal_view_open(unsigned protection, uint8_t object, struct wal_view *v)
{
	unsigned char header[INDEX_HEADER];
	uint16_t size;

	v->database = find_fd(protection, object, ROLE_DATABASE);
	v->log = find_fd(protection, object, ROLE_WAL);
	v->index = find_fd(protection, object, ROLE_SHM);
	if (v->database < 0 || v->log < 0 || v->index < 0 ||
	    sys_pread_all(v->index, header, sizeof(header), 0) != sizeof(header))
		return false;
	memcpy(&v->change, header + INDEX_CHANGE, sizeof(v->change));
	memcpy(&size, header + INDEX_PAGE_SIZE, sizeof(size));
	memcpy(&v->frames, header + INDEX_FRAMES, sizeof(v->frames));
	memcpy(&v->page_count, header + INDEX_PAGES, sizeof(v->page_count));
	memcpy(&v->salt, header + INDEX_SALT, sizeof(v->salt));
	v->page_size = size;
	if (!v->frames) { /* an empty log: all is in the database, and the index may be as new */
		v->page_size = ROWS_PAGE_MAX;
		return true;
	}
	return size >= SQLITE_PAGE_MIN && size <= ROWS_PAGE_MAX && v->frames <= FRAMES_MOST;
}

/* Where the index has the page numbers of the frames first.. (from 0), and how many in one piece.
 */
static uint64_t index_at(uint32_t first, uint32_t *count)
{
	uint32_t entry = first + INDEX_FIRST;

	*count = INDEX_BLOCK - entry % INDEX_BLOCK;
	return (uint64_t)(entry / INDEX_BLOCK) * INDEX_BYTES + entry % INDEX_BLOCK * 4;
}

/* The last frame of the page, from 1; 0: it is in the database. */
static uint32_t find_frame(const struct wal_view *v, uint32_t page)
{
	uint32_t *pages = v->pages, end = v->frames, first, count, i;

	while (end) {
		first = end > VIEW_AT_ONCE ? end - VIEW_AT_ONCE : 0;
		index_at(first, &count);
		if (first + count < end)
			first += count; /* what is before is in another block */
		count = end - first;
		if (sys_pread_all(v->index, pages, count * sizeof(*pages), index_at(first, &i)) !=
		    (ssize_t)(count * sizeof(*pages)))
			return 0;
		for (i = count; i > 0; i--)
			if (pages[i - 1] == page)
				return first + i;
		end = first;
	}
	return 0;
}

ssize_t wal_view_read(const struct file_source *source, void *buf, size_t n, uint64_t at)
{
	const struct wal_view *v = source->data;
	uint32_t frame = find_frame(v, (uint32_t)(at / v->page_size) + 1);

	if (!frame)
		return sys_pread_all(v->database, buf, n, at);
	return sys_pread_all(v->log, buf, n,
			     SQLITE_WAL_HEADER_SIZE +
				 (uint64_t)(frame - 1) * (SQLITE_WAL_FRAME_SIZE + v->page_size) +
				 SQLITE_WAL_FRAME_SIZE + at % v->page_size);
}
