/* SPDX-License-Identifier: MIT
 *
 * What the parts of snapshot-taking share; for snapshot*.c only.
 */
#ifndef CORE_SNAPSHOT_INTERNAL_H
#define CORE_SNAPSHOT_INTERNAL_H

#include <sys/stat.h>

#include "core/chroma/chroma.h"
#include "core/snapshot/content.h"
#include "core/snapshot/known.h"
#include "core/snapshot/snapshot.h"

/* A file of a segment. */
struct segment_file {
	char name[256];
	struct stat st;
	bool chunked; /* `chunks` is its content as of st; else it is staged, or neither */
	bool staged;
	struct chunk_name *chunks;
	struct checksum128 *sums;     /* of those */
	struct pin_identity identity; /* when it was read ahead, */
	bool settled;		      /* to be noted as that */
	bool believed;		      /* it was known, and has not been read */
};

struct segment {
	char id[CHROMA_ID_SIZE];
	struct segment_file *files;
	size_t count;
	bool gone, torn;
};

struct taking {
	struct snapshot_store *store;
	const struct snapshot_options *options;
	struct manifest *out;
	struct snapshot_trouble *trouble;
	int stagefd;
	struct segment *segments;
	size_t segment_count;
	/* A change of any segment under the lock spoils it. */
	bool strict;
	bool raw; /* the database is taken as it is, with its journals */
	struct known known;
	struct known_notes notes;	  /* for the next one */
	const struct manifest_file *same; /* in `known`: the file under way is the very same */
	bool is_doubtful; /* a file changed without a new change time: all of them are read */
	uint64_t done, total;
};

int taking_fail(struct taking *k, int r, const char *file, const char *detail);

/* Chunks of the file that fd is open on, and their sums; both are the caller's. known: NULL,
 * nothing.
 */
int taking_chunk(struct taking *k, int fd, uint64_t size, const struct content_known *known,
		 struct chunk_name **chunks_out, struct checksum128 **sums_out);
/* What is known of a file of that name by its sums; NULL: nothing. */
const struct content_known *taking_know(struct taking *k, const char *path,
					struct content_known *out);

/* segments.c */
int segments_find(struct taking *k);
/* Before the lock: reads what is quiet. */
int segments_read_ahead(struct taking *k);
/* Under the lock, first: how they are now. */
int segments_look(struct taking *k);
/* Under the lock: stages what has changed. -EAGAIN: begin again. */
int segments_stage(struct taking *k);
/* After the lock: everything into the manifest. */
int segments_finish(struct taking *k);
void segments_free(struct taking *k);

#endif
