/* SPDX-License-Identifier: MIT
 *
 * The pieces that snapshots are made of; the format is specified in chromashim_snapshot.h.
 *
 * Errors: -ENOENT no such chunk, -ENODATA cut short, -EBADMSG damaged, -EPROTONOSUPPORT of a newer
 * version, or what the file system said.
 */
#ifndef CORE_CHUNKS_H
#define CORE_CHUNKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chromashim_snapshot.h"
#include "core/base/checksum.h"

#define CHUNKS_DIR "chunks" /* below snapshots/ */

struct chunk_name {
	unsigned char bytes[SNAPSHOT_NAME_SIZE];
};

/* How many are written before they are synced and named together. */
#define CHUNKS_BATCH 128

struct chunks {
	int dirfd;
	uint64_t added_bytes; /* what new files take */
	uint64_t reused;      /* chunks that were there already */
	uint64_t compared;    /* of those, the ones that a sum was enough to tell of */
	uint64_t sum_seed;    /* see known.h */
	/* private */
	void *compressor, *decompressor;
	unsigned char *packed; /* header and frame */
	size_t room;
	unsigned waiting; /* written, not yet named */
	unsigned named;	  /* since the last flush */
	struct chunk_name batch[CHUNKS_BATCH];
	int batch_fd[CHUNKS_BATCH];
	unsigned char touched[256]; /* directories to be synced */
	bool marked;		    /* names may not have reached the disk */
	bool sync_is_heard;	    /* a sync of the file system tells of errors */
	int lost;		    /* -errno: what was put could not be named */
	/* Called for a chunk that is not there: 0, and it is. NULL: nobody has it. */
	int (*fetch)(void *context, const struct chunk_name *name);
	void *fetch_context;
};

/* Opens (with `make`: makes) chunks/ in snapshots/. Close also after an error is not needed. */
int chunks_open(struct chunks *c, int snapshotsfd, bool make);
/* What was put and not flushed is forgotten. */
void chunks_close(struct chunks *c);
/* For another thread, which only reads: its own, on the same directory, which has to stay open. */
int chunks_open_beside(struct chunks *c, const struct chunks *of);

/*
 * Stores up to SNAPSHOT_CHUNK_SIZE bytes, unless a chunk of that name and a plausible size is
 * there. It is there for good only after chunks_flush(). After an error nothing of it is left, and
 * it may be put again.
 */
int chunks_put(struct chunks *c, const void *data, size_t size, struct chunk_name *out);
/* After an error what was put since the last flush may be lost: it fails until chunks_collect(). */
int chunks_flush(struct chunks *c);

/* Exactly `size` bytes, compared with the name. */
int chunks_get(struct chunks *c, const struct chunk_name *name, void *data, size_t size);
/* One that was compared just now: by its own checksum alone. */
int chunks_get_known(struct chunks *c, const struct chunk_name *name, void *data, size_t size);

/* The same, and the bytes of its file, lent until the next call. Not for zeros, which have none. */
int chunks_get_file(struct chunks *c, const struct chunk_name *name, void *data, size_t size,
		    const void **file_out, size_t *file_size_out);

/* The file of a chunk from elsewhere, as it is: chunks_get() looks whether it is good. Neither
 * synced nor safe from other processes. */
int chunks_accept(struct chunks *c, const struct chunk_name *name, const void *file, size_t size);
/* Its file goes, if there is one. */
void chunks_drop(struct chunks *c, const struct chunk_name *name);

/* What its file takes; 0 for zeros. Presence and size are looked at, the content is not. */
int chunks_stat(struct chunks *c, const struct chunk_name *name, uint64_t *stored_out);

/* Whether there is a file of it: nothing else is looked at. */
bool chunks_has(struct chunks *c, const struct chunk_name *name);

/* A chunk known to be damaged gets another name, so that the next snapshot writes it again. */
int chunks_set_aside(struct chunks *c, const struct chunk_name *name);

/*
 * Calls `needed` for each chunk file, and removes it if that says no; also what dead processes left
 * behind and what was set aside. dry: only adds up, else what was put and not flushed goes as well.
 * `needed` may be NULL: only leftovers go.
 */
typedef bool chunks_needed_fn(void *context, const struct chunk_name *name);
int chunks_collect(struct chunks *c, chunks_needed_fn *needed, void *context, bool dry,
		   uint64_t *count_out, uint64_t *bytes_out);

/* Decodes a chunk file's bytes into `size` bytes of content; the name is not compared. */
int chunk_decode(void *decompressor, const void *file, size_t file_size, void *data, size_t size);

bool chunk_is_zero(const struct chunk_name *name);
void chunk_name_of(const void *data, size_t size, struct chunk_name *out);

#endif
