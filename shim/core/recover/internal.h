/* SPDX-License-Identifier: MIT
 *
 * What the steps of a recovery share; for recover*.c only.
 */
#ifndef CORE_RECOVER_INTERNAL_H
#define CORE_RECOVER_INTERNAL_H

#include <sys/stat.h>

#include "core/chroma/chroma.h"
#include "core/export/export.h"
#include "core/recover/recover.h"
#include "core/sqlite/database.h"

/* What a diagnosis found that is damage, or that a step heals. */
struct recover_finding {
	enum diagnose_code code;
	char segment[CHROMA_ID_SIZE]; /* "": none */
	/* of FILE_RENAMED and SEGMENT_RENAMED: which file, and the name that it has */
	char file[32], alias[CHROMA_ALIAS_SIZE];
};
struct recover_judgement {
	int storefd; /* whose log is asked; it stays. 0: none */
	struct recover_finding *list;
	size_t count;
	unsigned steps; /* 1 << step of those that heal something of it */
	uint64_t damage;
	bool has_unknown; /* something could not be judged */
	bool is_bad_copy; /* check/diagnose.h */
	bool is_stale;	  /* something was healed since */
	int error;
};

/* Of the directory as it is now; *j is all zero or an older one. 0 or -errno. */
int recover_judge(int dirfd, struct recover_judgement *j);
void recover_judgement_free(struct recover_judgement *j);
bool recover_was_found(const struct recover_judgement *j, enum diagnose_code code);
/* Behind pages that cannot be read, tables that are gone, and indexes that have rows which their
 * tables have not, damage may not have been seen. */
bool recover_is_blind(const struct recover_judgement *j);
/* The code of a finding that the step heals in that segment; NULL: none. */
const char *recover_finding_of(const struct recover_judgement *j, enum recover_step step,
			       const char *segment);
/* Whether vectors may be older than they should be, or another's, and nothing tells which. */
bool recover_makes_vectors_differ(const struct recover_judgement *j, int dirfd);
/* Whether it explains that records of this vector segment have lost their vectors. */
bool recover_costs_vectors(const struct recover_judgement *j, const char *segment);

/* ---- the copy ---- */

/* -ENOSPC if Chroma's files of one directory would not fit into the other, and cannot be cloned. */
int recover_room(int from, int to, struct recover_room *out, char failed[RECOVER_NAME]);
/* A sum over those files that changes when one of them does. */
uint64_t recover_state(int dirfd);
/* Those files into a directory that is empty, as clones where the file system can. Not synced.
 * step: as in recover_job. They are this owner's, who can write them; NULL: as they were.
 * failed: which could not be copied; may be NULL. */
int recover_copy(int from, int to, const struct stat *owner, void (*step)(void *context),
		 void *context, char failed[RECOVER_NAME]);
/* Directories of segments, and files in them, that have been given another name, under their own.
 */
int recover_copy_renamed(int from, int to, const struct recover_judgement *j);
/* All of a directory, and what was set aside. */
int recover_sync(int dirfd);

/* ---- healing it ---- */

/*
 * Heals the directory, which nobody else uses, of what is in the judgement, which follows.
 * *healed_out: how many things. 0 or -errno. Not synced.
 */
int recover_heal(int dirfd, const struct recover_options *options, struct recover_judgement *j,
		 uint64_t *healed_out);

struct recovery {
	int dirfd;
	char path[48]; /* the same, for SQLite */
	const struct recover_options *options;
	struct recover_judgement *judgement;
	sqlite3 *db;	    /* for writing; NULL: not open */
	bool is_rust;	    /* of Chroma >= 1.0 */
	bool lost_pages;    /* of the database: they could not be read */
	bool lost_rows;	    /* of records, and nothing there tells which */
	bool lost_texts;    /* documents or metadata; of temp.lost_text all metadata */
	bool lacks_queue;   /* rows of it */
	bool lost_segments; /* which of them there were */
	bool lost_marks;    /* which of them had been persisted */
	uint64_t healed;
};

void recover_say(struct recovery *r, enum recover_step step, const char *collection,
		 const char *format, ...) __attribute__((format(printf, 4, 5)));
int recover_open(struct recovery *r); /* r->db */
int recover_sql(struct recovery *r, const char *sql);

/* One change; the parameters are ?1 and so on, each a text. */
int recover_change(struct recovery *r, const char *sql, const char *const *texts);
#define RECOVER_CHANGE(r, sql, ...) recover_change(r, sql, (const char *const[]){__VA_ARGS__, NULL})

/* shared.c: snapshots that can be restored, the newest first. One that cannot be read is
 * passed over; a result above 0 ends it. */
typedef int recover_snapshot_fn(void *context, const struct manifest *m);
int recover_each_snapshot(struct recovery *r, recover_snapshot_fn *each, void *context);
void recover_make_uuid(char out[CHROMA_ID_SIZE]);
/* The end of the queue and of every mark: what is written next must not count as applied. */
int recover_find_end(struct recovery *r, int64_t *out);
/* For an export: what cannot be read is not given, and so counts as missing. */
void recover_ignore_trouble(void *context, const char *collection, const char *what, int error);
/* A blob, lent until the statement is reset; NULL without a vector. */
void recover_bind_vector(sqlite3_stmt *s, int at, const struct export_record *record);
/* For SQL: is_near(a, b) of two vectors. */
int recover_compare_vectors(struct recovery *r);
/* As Chroma puts it into its queue. *out is the caller's to free. */
int recover_format_metadata(const struct export_record *record, char **out, size_t *size_out);

/* Collections that are wanted, without their database and tenant: to change the database meanwhile.
 * *out is to be freed, also after an error. */
struct recover_list {
	struct chroma_collection *list;
	size_t count;
};
typedef bool recover_wanted_fn(const struct recovery *r, const struct chroma_collection *c);
int recover_list_collections(struct recovery *r, recover_wanted_fn *wanted,
			     struct recover_list *out);
void recover_list_free(struct recover_list *list);

/* Each heals what was found, and says so. 0, also if there was nothing, or -errno. */
int recover_journal(struct recovery *r);
int recover_read_release(struct recovery *r); /* r->is_rust */
int recover_pages(struct recovery *r);	      /* pages.c */
struct salvage;
/* collections.c: as salvage_help.find_collections; the context is the recovery. */
int recover_collections(void *context, struct salvage *s);
/* Of collections that have lost their own row alone. */
int recover_lost_rows(struct recovery *r);
/* acts.c: the log's names for those that are called lost-ID. */
int recover_names_of_log(struct recovery *r);
/* Those of temp.need that the log says were deleted, to temp.gone. */
int recover_forget_deleted(struct recovery *r, sqlite3 *db);
/* Names of collections that are no text, as far as snapshots have them. */
int recover_names(struct recovery *r);
/* Rows of databases and tenants that are missing, as far as snapshots have them. */
int recover_owners(struct recovery *r);
int recover_tables(struct recovery *r); /* tables.c */
int recover_indexes(struct recovery *r);
int recover_texts(struct recovery *r);		  /* texts.c, a part of indexes */
int recover_queue(struct recovery *r);		  /* settings.c */
int recover_ids(struct recovery *r);		  /* ids.c, a part of queue */
int recover_parameters(struct recovery *r);	  /* settings.c */
int recover_migration(struct recovery *r);	  /* migration.c */
int recover_segments(struct recovery *r);	  /* segments.c */
int recover_twice(struct recovery *r);		  /* twice.c, a part of segments */
int recover_rows(struct recovery *r);		  /* rows.c, a part of segments */
int recover_segment_settings(struct recovery *r); /* rows.c: also of those that are new */
int recover_dimensions(struct recovery *r);	  /* rows.c */
int recover_mend_dimension(struct recovery *r, const char *segment); /* rows.c */
int recover_marks(struct recovery *r);
int recover_records(struct recovery *r); /* records.c */
int recover_hnsw(struct recovery *r);
bool recover_has_index(int dirfd, const char *collection); /* vectors.c; its name or its id */
int recover_bare(struct recovery *r);			   /* bare.c */
int recover_undelete(struct recovery *r);		   /* undelete.c */

/* The mark of a segment that has one, in the type that it has where nothing is wrong. */
int recover_set_mark(struct recovery *r, const char *segment, int64_t value);

/* replay.c: what is there by half is applied again; in how many collections. */
int recover_replay(struct recovery *r, bool only_half, int64_t *again_out);

/* ---- lost.c ---- */

/* RECOVER_LOST_FILE beside the database as schema `lost`, once for a connection. */
int recover_lost_open(sqlite3 *db, const char *path);
/* An expression: the metadata of the record with the number `row`, as a JSON object without the
 * document. For sqlite3_free(); NULL: no memory. */
char *recover_lost_metadata(sqlite3 *db, const char *row);
/*
 * Documents and metadata of records whose own row, and with it their id, is lost. Chroma gives its
 * number to a new record, which they are then in the way of: they are set aside. *count_out:
 * records.
 */
int recover_nameless(sqlite3 *db, const char *path, uint64_t *count_out);
/* The same of documents that only the full-text index still has. */
int recover_nameless_documents(sqlite3 *db, const char *path, uint64_t *count_out);

#endif
