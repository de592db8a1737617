/* SPDX-License-Identifier: MIT
 *
 * The diagnosis of what a snapshot holds: from its chunks, without a copy. Its database is one
 * file, and nobody writes to it; of what is around a directory it has nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/check/internal.h"
#include "core/sqlite/database.h"
#include "core/sqlite/page.h"

#define PAGE_CACHE "PRAGMA cache_size = -24576" /* KiB */
#define IN_MEMORY (UINT64_C(48) << 20)		/* bytes, and what is not at hand is few */

static const struct diagnose_place database_place = {.file = CHROMA_DATABASE};

/* By its first page. False: no sense in opening it. */
static bool judge_header(struct diagnosis *d, const struct file_source *source)
{
	unsigned char page[SQLITE_HEADER_SIZE];
	struct sqlite_header h;
	uint64_t told;
	int r = file_source_read(source, page, sizeof(page), 0);

	if (r == 0)
		r = sqlite_header_parse(&h, page, sizeof(page));
	if (r < 0) {
		diagnose_report(d, r == -EIO ? DIAGNOSE_UNREADABLE : DIAGNOSE_DATABASE_FOREIGN,
				database_place, "%s", r == -EIO ? strerror(EIO) : "");
		return false;
	}
	told = (uint64_t)h.page_count * h.page_size;
	if (h.write_version != 1 || !sqlite_header_has_page_count(&h) || told == source->size)
		return true;
	diagnose_report(d, told > source->size ? DIAGNOSE_DATABASE_SHORT : DIAGNOSE_JOURNAL_LOST,
			database_place, "%llu bytes, of which it knows %llu",
			(unsigned long long)source->size, (unsigned long long)told);
	return told < source->size;
}

/*
 * SQLite's check looks up each row in each index, anywhere in the file. Where that does not fit
 * into memory, each would cost a chunk. What has no name needs no clearing up. -1: there is none.
 */
static int spread(const struct diagnosis *d, const struct file_source *source)
{
	int fd = openat(d->store->storefd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	unsigned char *data = malloc(SNAPSHOT_CHUNK_SIZE);
	uint64_t at = 0, left;
	int r = fd >= 0 && data ? 0 : -ENOMEM;

	while (r == 0 && (left = source->size - at) > 0) {
		size_t n = left < SNAPSHOT_CHUNK_SIZE ? (size_t)left : SNAPSHOT_CHUNK_SIZE;

		r = file_source_read(source, data, n, at);
		if (r == 0)
			r = file_write_all(fd, data, n);
		at += n;
	}
	free(data);
	if (fd >= 0 && r < 0)
		close(fd);
	return r < 0 ? -1 : fd;
}

static void look_at_database(struct diagnosis *d, const struct file_source *source)
{
	int r = database_open_source(source, &d->db);

	if (d->db) {
		sqlite3_exec(d->db, PAGE_CACHE, NULL, NULL, NULL);
		diagnose_contents(d, r);
	} else {
		diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s", strerror(-r));
	}
	sqlite3_close(d->db);
	d->db = NULL;
}

static void check_database(struct diagnosis *d)
{
	struct snapshot_file file;
	struct file_source source;
	int r = snapshot_file_open(&file, d->store, d->manifest, CHROMA_DATABASE, &source), fd = -1;

	if (r < 0) {
		diagnose_report(d, DIAGNOSE_DATABASE_MISSING, database_place, "%s", "");
		return;
	}
	file.slots = SNAPSHOT_READ_MOST;
	file.is_known = true;
	if (judge_header(d, &source)) {
		fd = source.size > IN_MEMORY ? spread(d, &source) : -1;
		if (fd >= 0) {
			snapshot_file_close(&file);
			file_source_open(&source, fd);
		}
		look_at_database(d, &source);
	}
	if (fd >= 0)
		close(fd);
	snapshot_file_close(&file);
}

int diagnose_snapshot(struct snapshot_store *store, const struct manifest *m,
		      const struct diagnose_options *options, struct diagnose_summary *out)
{
	struct diagnosis d = {.path = "",
			      .dirfd = -1,
			      .store = store,
			      .manifest = m,
			      .options = options,
			      .summary = out};

	*out = (struct diagnose_summary){.bytes = manifest_total_size(m)};
	d.pending = calloc(DIAGNOSE_PENDING_MAX, sizeof(*d.pending));
	if (!d.pending)
		return -ENOMEM;
	check_database(&d);
	free(d.pending);
	return 0;
}
