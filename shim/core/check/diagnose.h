/* SPDX-License-Identifier: MIT
 *
 * Judging a Chroma directory from its files, without Chroma and without writing anything.
 *
 * The rule above all: never call healthy what is damaged by accident, and never damaged what is
 * healthy. What looks strange and is normal (a segment without a pickle before its first persist,
 * garbage in length.bin, dimensionality None, many rows in acquire_write, directories of deleted
 * collections, file sizes that do not follow the capacity) gives no warning.
 *
 * Works while a backend runs: each segment is compared with the database under one read
 * transaction, and again if its files changed meanwhile.
 */
#ifndef CORE_DIAGNOSE_H
#define CORE_DIAGNOSE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/chroma/migrations.h"
#include "core/snapshot/store.h"

enum diagnose_severity {
	DIAGNOSE_NOTE,	  /* normal, but worth knowing */
	DIAGNOSE_WARNING, /* works now; may not for long */
	DIAGNOSE_DAMAGE,  /* data is lost or not reachable by Chroma */
	DIAGNOSE_UNKNOWN, /* could not be checked */
};
#define DIAGNOSE_SEVERITIES 4

enum diagnose_code {
#define KIND(name, code, severity, means, helps) DIAGNOSE_##name,
#include "core/check/kinds.def"
#undef KIND
	DIAGNOSE_CODES
};

struct diagnose_kind {
	const char *code; /* stable, as "pickle-truncated" */
	enum diagnose_severity severity;
	const char *means;
	const char *helps;
};

extern const struct diagnose_kind diagnose_kinds[DIAGNOSE_CODES];
extern const char *const diagnose_severity_names[DIAGNOSE_SEVERITIES];

/* Texts are lent; NULL where they do not apply. */
struct diagnose_finding {
	enum diagnose_code code;
	const char *collection; /* name */
	const char *segment;	/* directory */
	const char *file;
	const char *detail; /* numbers, SQLite's words, ids */
	const char *helps;  /* as things are here; "DIR" as in the kind's */
};

struct diagnose_options {
	bool full;   /* also what takes long: integrity_check, the full-text index, every vector */
	int storefd; /* the directory's store, lent; 0 or less: none */
	int store_error; /* -errno: why it cannot be opened */
	int logfd;	 /* a store whose log alone is asked, where there is none; likewise */
	int strayfd;	 /* undo/ that an older version has left elsewhere, lent; 0 or less: none */
	const char
	    *backend; /* an installation (chroma/installation.h) that shall open it; NULL: none */
	void (*report)(void *context, const struct diagnose_finding *finding);
	/* done of total bytes; may be NULL */
	void (*progress)(void *context, uint64_t done, uint64_t total);
	void *context;
};

#define DIAGNOSE_IN_THE_MIDDLE ", in the middle of " /* a call: in the detail of a death */

struct diagnose_summary {
	uint64_t findings[DIAGNOSE_SEVERITIES];
	uint64_t collections, records, bytes;
	struct migration_state migrations;
	const struct migration_era *era; /* of releases that wrote it, NULL: unknown */
	uint64_t processes;		 /* others that have the database open */
	int first_process;		 /* pid of one */
	char first_command[256];	 /* its command line, cut */
	uint64_t snapshots;
	uint64_t newest_snapshot; /* ns, of one that can be restored; 0: none */
	char backend_release[32]; /* of options.backend */
	bool has_verdict;
	enum migration_verdict backend_verdict;
};

/*
 * path names the directory that dirfd is open on. 0 when the directory was judged, whatever the
 * findings; -errno only if that could not even be begun.
 */
int diagnose_directory(const char *path, int dirfd, const struct diagnose_options *options,
		       struct diagnose_summary *out);

/* Likewise what a snapshot holds, read from its chunks, which were all compared just now. The store
 * is open. */
int diagnose_snapshot(struct snapshot_store *store, const struct manifest *m,
		      const struct diagnose_options *options, struct diagnose_summary *out);

/* A copy that went wrong: the whole thing is elsewhere, and healing what is here would be the loss.
 */
bool diagnose_is_bad_copy(enum diagnose_code code);

/*
 * What keeps ids and vectors in a directory that no collection uses from being read: the code of
 * the first such finding, or NULL.
 */
int diagnose_leftover(int dirfd, const char *segment, const char **damage_out);

#endif
