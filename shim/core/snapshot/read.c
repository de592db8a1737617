/* SPDX-License-Identifier: MIT
 *
 * A file of a snapshot as a file_source, with the chunks used last kept in memory.
 */
#include "core/snapshot/read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/sqlite/database.h"

/* Chunk i, lent until another one takes its place; -errno in *error. */
static const unsigned char *load_chunk(struct snapshot_file *f, uint64_t i, int *error)
{
	unsigned slot = (unsigned)(i % f->slots);
	int (*get)(struct chunks *, const struct chunk_name *, void *, size_t) =
	    f->is_known ? chunks_get_known : chunks_get;

	if (f->chunk[slot] == i + 1)
		return f->data[slot];
	f->chunk[slot] = 0;
	if (!f->data[slot])
		f->data[slot] = malloc(SNAPSHOT_CHUNK_SIZE);
	*error = f->data[slot] ? get(f->chunks, &f->file->chunks[i], f->data[slot],
				     manifest_chunk_size(f->file, i))
			       : -ENOMEM;
	if (*error < 0)
		return NULL;
	f->chunk[slot] = i + 1;
	return f->data[slot];
}

static ssize_t read_chunks(const struct file_source *source, void *buf, size_t n, uint64_t offset)
{
	struct snapshot_file *f = (struct snapshot_file *)(uintptr_t)source->data;
	uint64_t left = offset < f->file->size ? f->file->size - offset : 0;
	size_t done = 0;
	int error = 0;

	n = n < left ? n : (size_t)left;
	while (done < n) {
		uint64_t i = (offset + done) / SNAPSHOT_CHUNK_SIZE;
		size_t in_chunk = (size_t)((offset + done) % SNAPSHOT_CHUNK_SIZE);
		size_t some = manifest_chunk_size(f->file, i) - in_chunk;
		const unsigned char *data = load_chunk(f, i, &error);

		if (!data)
			return error;
		some = some < n - done ? some : n - done;
		memcpy((char *)buf + done, data + in_chunk, some);
		done += some;
	}
	return (ssize_t)done;
}

int snapshot_file_open(struct snapshot_file *f, struct snapshot_store *store,
		       const struct manifest *m, const char *path, struct file_source *source)
{
	*f = (struct snapshot_file){.chunks = &store->chunks,
				    .file = manifest_find(m, path),
				    .slots = SNAPSHOT_READ_CHUNKS};
	if (!f->file)
		return -ENOENT;
	*source =
	    (struct file_source){.read = read_chunks, .size = f->file->size, .data = f, .fd = -1};
	return 0;
}

void snapshot_file_close(struct snapshot_file *f)
{
	unsigned i;

	for (i = 0; i < SNAPSHOT_READ_MOST; i++)
		free(f->data[i]);
	*f = (struct snapshot_file){0};
}

int snapshot_database_open(struct snapshot_database *d, struct snapshot_store *store,
			   const struct manifest *m)
{
	int r = snapshot_file_open(&d->file, store, m, CHROMA_DATABASE, &d->source);

	d->db = NULL;
	return r < 0 ? r : database_open_source(&d->source, &d->db);
}

void snapshot_database_close(struct snapshot_database *d)
{
	sqlite3_close(d->db);
	snapshot_file_close(&d->file);
	d->db = NULL;
}
