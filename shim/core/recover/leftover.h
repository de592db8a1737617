/* SPDX-License-Identifier: MIT
 *
 * Directories of deleted collections. Chroma >= 1.0 never removes them, older ones do not always;
 * the database then knows nothing of them any more. Ids and vectors are still in the files, as of
 * the last persist; name, documents and metadata are only in snapshots taken before the deletion.
 */
#ifndef CORE_LEFTOVER_H
#define CORE_LEFTOVER_H

#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"
#include "core/snapshot/store.h"

#define LEFTOVER_NAME_SIZE 520 /* Chroma's names have at most 512 characters */

struct leftover {
	char segment[CHROMA_ID_SIZE];
	const char *damage; /* what keeps its files from being read (check/kinds.def), or NULL */
	uint64_t ids;	    /* 0: it was never persisted */
	struct hnsw_header header;
	int64_t changed;   /* when it was last persisted, in seconds; 0: never */
	int space;	   /* enum chroma_space, or how far it can be told */
	uint64_t snapshot; /* the newest that has the collection; 0: none */
	bool is_newer;	   /* it was persisted after that */
	char id[CHROMA_ID_SIZE], name[LEFTOVER_NAME_SIZE]; /* of the collection, there */
};

/* Whether there is anything to bring back. */
static inline bool leftover_is_whole(const struct leftover *l)
{
	return l->snapshot || (l->ids && !l->damage);
}

/*
 * All of a directory, whose database can be read. snapshots: open, at least for SNAPSHOT_KEEP, or
 * NULL. *out is the caller's to free, also after an error. 0 or -errno.
 */
int leftover_list(const char *path, int dirfd, struct snapshot_store *snapshots,
		  struct leftover **out, size_t *count_out);

#endif
