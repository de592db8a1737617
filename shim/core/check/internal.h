/* SPDX-License-Identifier: MIT
 *
 * What the parts of the diagnosis share; for its parts only.
 */
#ifndef CORE_DIAGNOSE_INTERNAL_H
#define CORE_DIAGNOSE_INTERNAL_H

#include <sqlite3.h>
#include <sys/stat.h>

#include "core/base/fileio.h"
#include "core/check/diagnose.h"
#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"
#include "core/snapshot/read.h"

#define DIAGNOSE_PENDING_MAX 32

struct diagnose_pending {
	enum diagnose_code code;
	char collection[256], segment[CHROMA_ID_SIZE], file[48], detail[512];
};

struct diagnosis {
	const char *path;
	int dirfd;		      /* -1: a snapshot is looked at */
	struct snapshot_store *store; /* of it */
	const struct manifest *manifest;
	const struct diagnose_options *options;
	struct diagnose_summary *summary;
	sqlite3 *db; /* NULL: could not be opened */
	struct stat database;
	uint64_t segments;				  /* directories that look like one */
	bool odd_owner, odd_links, odd_access, read_only; /* said already */
	uint64_t persisted, absent; /* collections that have been; of these without a directory */
	bool backend_is_rust;	    /* which shall open it: Chroma >= 1.0 */
	bool lacks_segment;	    /* a collection does not know which directory is its */
	uint64_t done;		    /* bytes, for the progress */
	/* Findings of a segment wait until its files turn out to have kept still. */
	bool holds_back;
	unsigned pending_count;
	struct diagnose_pending *pending;
};

/* Where a finding is; any of them NULL. */
struct diagnose_place {
	const char *collection, *segment, *file;
};

void diagnose_report(struct diagnosis *d, enum diagnose_code code, struct diagnose_place place,
		     const char *detail, ...) __attribute__((format(printf, 4, 5)));
void diagnose_advance(struct diagnosis *d, uint64_t bytes);

/* copies.c: copies that went wrong. True: it was one, and was reported. */
bool diagnose_database_copy(struct diagnosis *d);
bool diagnose_is_copied_wrong(struct diagnosis *d, struct diagnose_place place,
			      const struct file_source *source, bool may_be_text, bool odd_size);
/* Whether a cloud keeps the place of a file (or directory) that it has not downloaded: said. */
bool diagnose_is_placeholder(struct diagnosis *d, struct diagnose_place place, int dirfd,
			     const char *file);
/* How many zeros stand before `end`, about a GiB at most. */
uint64_t diagnose_zeros(const struct file_source *source, uint64_t end);
void diagnose_database_end(struct diagnosis *d);
/* names.c: without a database, where it may be. DIAGNOSE_CODES: nowhere; else it was reported. */
enum diagnose_code diagnose_names(struct diagnosis *d);
/* What is not there, since a symbolic link stands in its place. */
void diagnose_link(struct diagnosis *d, struct diagnose_place place, const char *name);

/* surroundings.c: disk, permissions, owners, names, processes. */
void diagnose_surroundings(struct diagnosis *d, const struct stat *database);
void diagnose_ownership(struct diagnosis *d, const struct stat *database, const char *segment);
/* history.c: what the store tells; database is NULL if there is none. False: the files are
 * being exchanged, look no further. */
bool diagnose_history(struct diagnosis *d, const struct stat *database);
/* sqlite.c: from the file's own bytes. False: SQLite cannot open it now. */
bool diagnose_database_file(struct diagnosis *d, const struct stat *st);
/* tables.c: what the database says; d->db is open. False: no sense in looking further. */
bool diagnose_structure(struct diagnosis *d);
bool diagnose_tables(struct diagnosis *d);
/* directory.c: what the database says of all else; d->db is open, r is what was said then. */
void diagnose_contents(struct diagnosis *d, int r);
/* rows.c: tenants, databases, and settings. */
int diagnose_rows(struct diagnosis *d); /* 0 or -ENOMEM */
/* queue.c: a collection's marks, and the rows that wait for it. */
void diagnose_queue(struct diagnosis *d, const struct chroma_collection *c);
/* segment.c: the files of a collection's VECTOR segment against the database. */
void diagnose_segment(struct diagnosis *d, const struct chroma_collection *c);

/* graph.c: whether searches find the elements; the files are whole. */
void diagnose_graph(struct diagnosis *d, struct diagnose_place place, const struct hnsw_header *h,
		    const struct file_source *level0, const struct file_source *links);

/* cosine.c: whether vectors and lengths are such as cosine space has; in a quick look only lengths.
 */
void diagnose_cosine(struct diagnosis *d, struct diagnose_place level0,
		     struct diagnose_place lengths, const struct hnsw_header *h,
		     const struct file_source *level0_source,
		     const struct file_source *length_source);

/* ids.c: ids and labels of a segment, between pickle, index, records and queue. */
struct diagnose_files {
	const struct file_source *pickle; /* NULL: none, the vectors are in the queue */
	const struct file_source *level0;
	const struct hnsw_header *header;
};
void diagnose_ids(struct diagnosis *d, const struct chroma_collection *c,
		  const struct diagnose_files *files);

#endif
