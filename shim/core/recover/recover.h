/* SPDX-License-Identifier: MIT
 *
 * Healing a damaged Chroma directory: on a copy, by the least that helps.
 *
 * recover_directory() does all of it: it judges, makes a copy, heals that, judges it, compares the
 * records that could be read before with those that can be read after, and exchanges the two
 * (snapshot/restore.h). Persists that were cut off are to be undone before, where they are, as the
 * next start of the backend would do (undo/rollback.h).
 */
#ifndef CORE_RECOVER_H
#define CORE_RECOVER_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/check/diagnose.h"
#include "core/recover/leftover.h"
#include "core/snapshot/store.h"

/* In the order in which they are done. */
enum recover_step {
	RECOVER_JOURNAL, /* a transaction that was cut off: SQLite rolls it back */
	RECOVER_PAGES,	 /* a malformed database: what can be read of it is copied into a new one */
	RECOVER_TABLES,	 /* of Chroma's that are gone: made again, empty */
	RECOVER_INDEXES, /* SQLite's and the full-text index, built again; stray metadata taken out
			  */
	RECOVER_MIGRATION,  /* half a migration of Chroma < 1.0: taken back, to be done again */
	RECOVER_QUEUE,	    /* metadata in the queue that is no JSON */
	RECOVER_PARAMETERS, /* settings that Chroma 0.5.4 to 0.6.3 refuses */
	RECOVER_SEGMENTS,   /* collections without rows in `segments`: found again, or made */
	RECOVER_MARKS,	    /* max_seq_id: poisoned, beyond the queue, of an older Chroma's type */
	RECOVER_RECORDS,    /* without their rows: from the index and from snapshots */
	RECOVER_HNSW,	    /* a vector index: its vectors go back to Chroma's queue */
	RECOVER_BARE,	    /* records without a vector: from snapshots, or set aside */
	RECOVER_UNDELETE,   /* deleted collections, of which the directory is left */
};
#define RECOVER_STEPS 13
#define RECOVER_ALL ((1u << RECOVER_STEPS) - 1)
/* Done on request as well: the release that wrote them gets on with them. */
#define RECOVER_ON_REQUEST (1u << RECOVER_QUEUE | 1u << RECOVER_PARAMETERS)

extern const char *const recover_step_names[RECOVER_STEPS];

/* Whether a finding is one that a step heals; -1: none does. */
int recover_step_of(enum diagnose_code code);

/* Records that were set aside: SQLite, table lost(collection, id, document, metadata); the first
 * two are NULL if they are lost. */
#define RECOVER_LOST_FILE "lost.sqlite3"

/* Which deleted collections come back. */
struct recover_undelete_options {
	const struct leftover *list; /* of the original directory; leftover_is_whole() */
	size_t count;
	const char *name; /* for one, where another is wanted than its own or recovered-<segment> */
	int space;	  /* enum chroma_space, where it is not known; -1: l2 */
};

struct recover_options {
	unsigned steps; /* 1 << step; RECOVER_ALL */
	/* Asked for vectors that are lost; open, at least for SNAPSHOT_KEEP. NULL: none. */
	struct snapshot_store *snapshots;
	int storefd;					 /* whose log of acts is asked; 0: none */
	const struct recover_undelete_options *undelete; /* NULL: none */
	const char *rebuild; /* a collection whose index is made again though it is whole */
	bool set_aside;	     /* what has no vector in the end goes to RECOVER_LOST_FILE beside */
	/* Something was healed, or could not be; whole sentences. collection may be NULL; NULL:
	 * nobody is told. */
	void (*said)(void *context, enum recover_step step, const char *collection,
		     const char *sentence);
	void *context;
	struct recover_account *account; /* is told of records that have lost a part; NULL: none */
};

/* ---- the account: records before and after ---- */

struct recover_judgement;

struct recover_account {
	sqlite3 *db;   /* on disk, temporary */
	int phase;     /* of the next recover_account_take(): 0 before, 1 after */
	bool is_taken; /* after, too: of the directory as it was judged last */
	sqlite3_stmt *insert;
	uint64_t troubles[2]; /* what could not be read */
	const struct recover_judgement *judgement;
	bool costs_vectors;  /* damage of the whole database does, before */
	bool was_blind;	     /* without a database at first: by segments, not collections */
	bool was_unsure;     /* what was deleted could not be read at first, or not all of it */
	bool lacks_segments; /* which of them a collection has is not known for all */
	bool may_lack;	     /* records may be lost of which nothing tells any more */
	bool may_differ;     /* vectors may be wrong that look as good as any */
	bool may_be_old; /* documents and metadata came from a snapshot older than the last write */
	uint64_t nameless; /* collections that have lost their name and settings */
};

struct recover_collection {
	const char *id, *name; /* lent */
	uint64_t records[2], with_vector[2];
	uint64_t lost;	  /* records that were there and are not any more */
	uint64_t bare;	  /* records that have lost their vector by this damage */
	uint64_t changed; /* whose vector, document or metadata is another now */
	uint64_t older;	  /* that a snapshot had, and that may have been changed since */
	/* Records that had none before, and no damage that would explain it: still bare, or set
	 * aside; in none of the above. */
	uint64_t were_bare;
};

/* Something that is none of a record, or of no record that can be told. */
static inline bool recover_may_have_lost(const struct recover_account *a)
{
	return a->may_lack || a->may_differ || a->may_be_old || a->nameless;
}

int recover_account_open(struct recover_account *a);
void recover_account_close(struct recover_account *a);
/* What is known of the damage; lent, until the next one. Before the first recover_account_take().
 */
void recover_account_judge(struct recover_account *a, int dirfd, const struct recover_judgement *j);
/* Reads every record of the directory; the first time is before, each other one after. */
int recover_account_take(struct recover_account *a, int dirfd);
/* After: judges it as well, at the same time where there are two processors. */
int recover_account_and_judge(struct recover_account *a, int dirfd, struct recover_judgement *j);
/* Of a record, however it could be read before, something was lost. account.db is open. */
int recover_account_note(struct recover_account *a, const char *collection_id, const char *id,
			 size_t id_size);
/* It was there, with its vector, whatever could be read of it. */
int recover_account_insert(struct recover_account *a, const char *collection_id, const char *id,
			   size_t id_size);
/* What was counted under one collection before is another's now. */
int recover_account_adopt(struct recover_account *a, const char *from, const char *to);
/* So many more may be older than they were. */
int recover_account_older(struct recover_account *a, const char *collection_id, uint64_t count);
/* It had been deleted before. */
int recover_account_drop(struct recover_account *a, const char *collection_id);
/* What was noted of it came back. */
int recover_account_forget(struct recover_account *a, const char *collection_id, const char *id,
			   size_t id_size);
/* It is the same record, whose id could not be read. */
int recover_account_rename(struct recover_account *a, const char *collection_id, const char *id,
			   size_t id_size, const char *to);
typedef int recover_collection_fn(void *context, const struct recover_collection *collection);
int recover_account_each(struct recover_account *a, recover_collection_fn *each, void *context);
/* what: "record", "vector" (lost it), "changed" or "bare" (had none before). */
typedef int recover_lost_fn(void *context, const char *id, size_t id_size, const char *what);
int recover_account_each_lost(struct recover_account *a, const char *collection_id,
			      recover_lost_fn *each, void *context);

/* ---- all of it ---- */

struct recover_job {
	int datafd;		/* Chroma has been stopped */
	int storefd;		/* its store, locked; needed in place only */
	int outfd;		/* an empty directory for the healed copy; -1: in place */
	const char *quarantine; /* in place: a name for what was there, as a time */
	struct recover_options options;
	/* In place, before anything is copied, if there is something to heal: likewise. May be
	 * NULL. */
	int (*begin)(void *context);
	/* In place, when the copy is healed: other than 0 leaves all as it was (-ECANCELED). */
	int (*agree)(void *context);
	/* Before each file of the copy and each step of the exchange; may be NULL. For tests. */
	void (*step)(void *context);
	void *context;
};

struct recover_room {
	uint64_t needed, free; /* bytes */
};

#define RECOVER_NAME 512 /* of a file, with its segment */

/* What was being done. */
enum recover_stage {
	RECOVER_JUDGING,
	RECOVER_COPYING,
	RECOVER_READING,
	RECOVER_HEALING,
	RECOVER_CHECKING,
	RECOVER_EXCHANGING,
};

struct recover_result {
	enum recover_stage stage;  /* where it failed */
	uint64_t damage[2];	   /* findings before and after */
	uint64_t healed;	   /* how many things; 0: there is no account */
	struct recover_room room;  /* for the copy */
	char failed[RECOVER_NAME]; /* which file of it could not be made; "": not known */
	bool exchanged;
	struct recover_account account;
};

/*
 * 0: done, or there was nothing that these steps heal. Else the directory is as it was, and *out
 * says where it ended: -ECANCELED by begin() or agree(); -ESTALE: somebody has changed the
 * directory meanwhile; -EUCLEAN: the copy came out no better;
 * -EMEDIUMTYPE: it is a copy that went wrong, and nothing to be healed; or another -errno. *out is
 * to be freed.
 */
int recover_directory(const struct recover_job *job, struct recover_result *out);
void recover_result_free(struct recover_result *result);

#endif
