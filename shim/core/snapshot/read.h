/* SPDX-License-Identifier: MIT
 *
 * Reading a file of a snapshot from its chunks, without restoring anything.
 */
#ifndef CORE_SNAPSHOT_READ_H
#define CORE_SNAPSHOT_READ_H

#include <sqlite3.h>

#include "core/base/fileio.h"
#include "core/snapshot/store.h"

#define SNAPSHOT_READ_CHUNKS 32 /* kept decompressed: 4 MiB a file */
#define SNAPSHOT_READ_MOST 128

/* Zeroed memory is closed. */
struct snapshot_file {
	struct chunks *chunks;		  /* lent */
	const struct manifest_file *file; /* lent */
	/* To be changed before the first read. */
	unsigned slots; /* how many are kept */
	bool is_known;	/* all were compared with their names just now */
	/* private */
	unsigned char *data[SNAPSHOT_READ_MOST];
	uint64_t chunk[SNAPSHOT_READ_MOST]; /* which one is in it, from 1; 0: none */
};

/*
 * *source reads from it until it is closed; errors as those of chunks_get(). The store is open.
 * -ENOENT: the snapshot has no such file.
 */
int snapshot_file_open(struct snapshot_file *f, struct snapshot_store *store,
		       const struct manifest *m, const char *path, struct file_source *source);
void snapshot_file_close(struct snapshot_file *f);

/* Chroma's database in a snapshot; stays where it is until it is closed. Zeroed memory is closed.
 */
struct snapshot_database {
	struct snapshot_file file;
	struct file_source source;
	sqlite3 *db;
};

/* 0 or -errno; it is to be closed in both cases. */
int snapshot_database_open(struct snapshot_database *d, struct snapshot_store *store,
			   const struct manifest *m);
void snapshot_database_close(struct snapshot_database *d);

#endif
