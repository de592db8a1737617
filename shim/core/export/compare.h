/* SPDX-License-Identifier: MIT
 *
 * The records of a directory at two moments compared: two snapshots, or a snapshot and now.
 *
 * Fingerprints of both are kept in a temporary database, so that memory does not grow with the
 * directory. A collection is known again by its id, and one that was deleted and made anew by its
 * name.
 */
#ifndef CORE_COMPARE_H
#define CORE_COMPARE_H

#include "core/export/export.h"

/* Where the records of a moment are. */
struct compare_moment {
	struct snapshot_store *store;	 /* of the manifest */
	const struct manifest *manifest; /* NULL: what is in the directory now */
	const char *path;
	int dirfd;
};

struct compare {
	sqlite3 *db; /* on disk, temporary; what the caller adds to it is his */
	int moment;  /* of the next compare_take(): 0 before, 1 after */
	sqlite3_stmt *insert;
	uint64_t records[2];
	uint64_t without_vector[2]; /* lost, or not to be read */
	uint64_t troubles[2];	    /* what could not be read */
};

enum compare_kind { COMPARE_ADDED, COMPARE_DELETED, COMPARE_CHANGED };

/* Lent until the callback returns. */
struct compare_change {
	const char *collection_id, *collection; /* as before, unless it was not there */
	const char *id;
	size_t id_size;
	enum compare_kind kind;
	bool vector, document, metadata; /* what has changed */
};

struct compare_count {
	const char *collection_id, *collection; /* lent, as above */
	uint64_t before, after;			/* records */
	uint64_t added, deleted, changed;
	bool is_gone, is_new; /* the collection itself */
};

/* 0 or -errno; to be closed in both cases. */
int compare_open(struct compare *c);
void compare_close(struct compare *c);

/*
 * Reads the first moment, then the second. collection: a name or id, NULL all; it need not be
 * there. 0 or -errno.
 */
int compare_take(struct compare *c, const struct compare_moment *m, const char *collection);

/* After both: each changed record, by collection and id. Other than 0 ends it, and is returned. */
int compare_each(struct compare *c, int (*each)(void *context, const struct compare_change *change),
		 void *context);
/* Each collection of the two, changed or not. */
int compare_each_collection(struct compare *c,
			    int (*each)(void *context, const struct compare_count *count),
			    void *context);

/*
 * Which records of before are wanted back. They are in the table wanted(id, replaced) of c->db
 * then; replaced: it is there afterwards, as another. Only one collection was taken.
 */
struct compare_choice {
	bool deleted, changed; /* those that are not there afterwards, and that are other ones */
	bool all;	       /* whatever is there afterwards */
	bool named;	       /* of these, those that compare_name() was told of */
};
struct compare_chosen {
	uint64_t deleted, changed;
	uint64_t unknown; /* named, and not there before */
};
int compare_name(struct compare *c, const char *id, size_t size);
/* The id afterwards of a collection of before; "" if it is not there any more. */
int compare_find_after(struct compare *c, const char *id, char out[CHROMA_ID_SIZE]);
int compare_choose(struct compare *c, const struct compare_choice *choice,
		   struct compare_chosen *out);

/* Other than 0 ends it, and is returned. */
int compare_each_wanted(struct compare *c, int (*each)(void *context, const char *id, size_t size),
			void *context);

#endif
