/* SPDX-License-Identifier: MIT
 *
 * The snapshots of a store: who may change them, their list, their numbers. Formats and places are
 * specified in chromashim_snapshot.h.
 */
#ifndef CORE_SNAPSHOT_STORE_H
#define CORE_SNAPSHOT_STORE_H

#include "core/snapshot/manifest.h"

#define SNAPSHOTS_DIR "snapshots" /* in the store */
#define SCRATCH_DIR "scratch"	  /* in the store; what the changer of it works on, else empty */

enum snapshot_access {
	SNAPSHOT_LOOK,	 /* takes no lock */
	SNAPSHOT_KEEP,	 /* no chunk is removed meanwhile */
	SNAPSHOT_ADD,	 /* beside those, one at a time: adds, and removes no chunk; what a dead
			    process left in scratch is removed */
	SNAPSHOT_CHANGE, /* alone */
};

struct snapshot_store {
	int storefd; /* lent */
	int dirfd;   /* snapshots/ */
	int lockfd;  /* -1: none */
	enum snapshot_access access;
	bool contradicted; /* a file was not what its times said, see known.h: to be told */
	struct chunks chunks;
};

/*
 * SNAPSHOT_ADD and SNAPSHOT_CHANGE make what is missing; the others give -ENOENT if nothing was
 * ever snapshotted. -EBUSY: somebody else changes (or, for a change, needs) them, and did so for
 * wait_ms.
 */
int snapshot_store_open(struct snapshot_store *s, int storefd, enum snapshot_access access,
			unsigned wait_ms);
void snapshot_store_close(struct snapshot_store *s);

/* What takes long and only reads, in one that is open for SNAPSHOT_ADD: until the second call
 * others may add. After -EBUSY it is open for SNAPSHOT_KEEP. Where it is open for another it does
 * nothing. */
void snapshot_store_share(struct snapshot_store *s);
int snapshot_store_unshare(struct snapshot_store *s);
/* From SNAPSHOT_ADD to SNAPSHOT_CHANGE, if nobody else needs anything: else -EBUSY, and it is as it
 * was. */
int snapshot_store_claim(struct snapshot_store *s);

/*
 * All, by number. One whose manifest cannot be read is listed as broken, with its number and the
 * trouble alone. *out is to be freed with snapshot_list_free().
 */
int snapshot_list(const struct snapshot_store *s, struct manifest **out, size_t *count_out);
/* The same without their collections and files: what a list of many needs little memory for. */
int snapshot_list_heads(const struct snapshot_store *s, struct manifest **out, size_t *count_out);
void snapshot_list_free(struct manifest *list, size_t count);

/* One after another, in no order, as in the list; each is freed afterwards. < 0 ends it, and is the
 * result. */
typedef int snapshot_each_fn(void *context, struct manifest *m);
int snapshot_each(const struct snapshot_store *s, snapshot_each_fn *each, void *context);

/* Makes it durable under a number of its own (header.id). Everything it names must be put. */
int snapshot_add(struct snapshot_store *s, struct manifest *m);
/* The same under the number it has (header.id), which no other will get. */
int snapshot_add_numbered(struct snapshot_store *s, struct manifest *m);
/* Its chunks stay until snapshot_collect(). */
int snapshot_remove(struct snapshot_store *s, uint64_t id);

/*
 * Removes chunks that no manifest names. -EBADMSG and nothing done while there is a manifest that
 * cannot be read: its chunks are not known.
 */
int snapshot_collect(struct snapshot_store *s, bool dry, uint64_t *bytes_out);

/*
 * used_out[i]: bytes of chunk files that only list[i] needs; the result: bytes of all of them
 * together. Those of list[i] with skip[i] count as gone; skip may be NULL. -ENOMEM.
 */
int snapshot_sizes(struct snapshot_store *s, const struct manifest *list, size_t count,
		   const bool *skip, uint64_t *used_out, uint64_t *all_out);

/* The result alone, of all that there are. */
int snapshot_bytes(struct snapshot_store *s, uint64_t *all_out);

/* Opens scratch/<name> anew, empty. */
int snapshot_scratch(struct snapshot_store *s, const char *name);
void snapshot_scratch_remove(struct snapshot_store *s, const char *name);

#endif
