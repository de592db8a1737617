/* SPDX-License-Identifier: MIT
 *
 * What a snapshot consists of: its manifest, read and written. The format is specified in
 * chromashim_snapshot.h.
 *
 * Errors: -ENODATA cut short, -EBADMSG damaged, -EPROTONOSUPPORT of a newer version, -EFBIG beyond
 * the bounds, -ENOMEM.
 */
#ifndef CORE_MANIFEST_H
#define CORE_MANIFEST_H

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/snapshot/chunks.h"

#define MANIFEST_SUFFIX ".manifest"
#define MANIFEST_NAME_SIZE 32u

struct manifest_collection {
	char *id, *name;
	uint64_t records;
};

struct manifest_file {
	char *path;
	uint32_t mode;
	uint32_t mtime_ns;
	int64_t mtime;
	uint64_t size;
	struct chunk_name *chunks; /* manifest_chunk_count(size) */
	struct checksum128 *sums;  /* likewise, of what was read (known.h); NULL: not known. Not
				      in the manifest's file */
};

/* Zero-initialised memory is an empty one. It owns all it points to. */
struct manifest {
	struct snapshot_header header; /* magic, version and size are manifest_write()'s */
	char *reason;		       /* why it was taken: "manual", "schema", … */
	char *description;
	char *trouble; /* "": none */
	char **tags;
	struct manifest_collection *collections;
	struct manifest_file *files;
	uint32_t tag_count, collection_count, file_count;
};

void manifest_free(struct manifest *m);

static inline uint64_t manifest_chunk_count(uint64_t size)
{
	return (size + SNAPSHOT_CHUNK_SIZE - 1) / SNAPSHOT_CHUNK_SIZE;
}

/* Bytes of plain content in chunk i. */
static inline uint32_t manifest_chunk_size(const struct manifest_file *f, uint64_t i)
{
	uint64_t left = f->size - i * SNAPSHOT_CHUNK_SIZE;

	assert(i < manifest_chunk_count(f->size));
	return left < SNAPSHOT_CHUNK_SIZE ? (uint32_t)left : SNAPSHOT_CHUNK_SIZE;
}

uint64_t manifest_total_size(const struct manifest *m);
uint64_t manifest_records(const struct manifest *m);
const struct manifest_file *manifest_find(const struct manifest *m, const char *path);
const char *snapshot_state_name(uint32_t state);

/* Replaces a text of m (*text), cut to the bound. -ENOMEM. */
int manifest_set_text(char **text, const char *value);
bool manifest_has_tag(const struct manifest *m, const char *tag);
int manifest_add_tag(struct manifest *m, const char *tag);
/* tag NULL: all. Returns how many went. */
unsigned manifest_remove_tag(struct manifest *m, const char *tag);
/* A zeroed one at the end, whose chunks are still to be allocated. NULL: no memory, or too many. */
struct manifest_file *manifest_add_file(struct manifest *m, const char *path);
void manifest_remove_last_file(struct manifest *m);
void manifest_forget_collections(struct manifest *m);
void manifest_forget_contents(struct manifest *m); /* and the files */
int manifest_add_collection(struct manifest *m, const char *id, const char *name, uint64_t records);

/* *out is to be freed also after an error. */
int manifest_parse(struct manifest *out, const void *data, size_t size);
/* The bytes; *data_out is the caller's to free. */
int manifest_format(struct manifest *m, char **data_out, size_t *size_out);

/* The file of snapshot `id` in snapshots/. Reading also refuses one with another id in it. */
void manifest_file_name(char out[MANIFEST_NAME_SIZE], uint64_t id);
/* 0: it is no manifest's. */
uint64_t manifest_id_of_name(const char *name);
int manifest_read(int dirfd, uint64_t id, struct manifest *out);
int manifest_write(int dirfd, struct manifest *m);

/* Whether a path may stand in a manifest: a name, or UUID/name; nothing that leads elsewhere. */
bool manifest_path_is_valid(const char *path);

#endif
