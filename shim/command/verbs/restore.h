/* SPDX-License-Identifier: MIT
 *
 * The parts of `chromashim restore`.
 */
#ifndef COMMAND_RESTORE_H
#define COMMAND_RESTORE_H

#include <limits.h>

#include "command/base/snapshots.h"

/* Single records, not the whole directory. */
struct restore_selection {
	const char *collection; /* a name or id in the snapshot; NULL: the whole directory */
	const char *as;		/* into a new collection of this name; NULL: into the same one */
	const char *ids;	/* a file with one id a line, "-" standard input; NULL: no list */
	bool deleted, changed;
};

struct restoring {
	struct snapshots s;
	struct manifest *m;
	const char *out;
	const char *from; /* a copy of a directory, instead of a snapshot; or a replica */
	const char *key;  /* of a replica; NULL: none */
	uint64_t state;	  /* of what is there, before it is kept */
	struct snapshot_flags flags;
	struct restore_selection records;
};

/* ---- restore_keep.c ---- */

extern const char restore_stop_it[];
/* What is restored, as it is called in messages. */
const char *restore_subject(const struct restoring *x, char out[PATH_MAX]);
/* R5: what is there now is snapshotted, so that this can be undone. The exit status. */
int restore_keep(struct restoring *x, uint64_t *id_out);
/* Nothing was changed after all: what was kept goes again, unless an exchange has begun. 0: none.
 */
void restore_forget(struct restoring *x, uint64_t id);
/* Who has been there since x->state was read, and has ended, or has not: 0 or -errno. */
int restore_is_as_it_was(void *restoring);

/* What was built: 0: good, EXIT_WARNINGS: not, but so be it, else refused. */
int restore_look_at(const struct restoring *x, int dirfd);

/* ---- restore_replica.c ---- */

/* A new directory from a replica. The exit status. */
int restore_replica(struct restoring *x, const char *to);

/* ---- restore_records.c ---- */

/* x->m is chosen, and all of it copied. The exit status. */
int restore_records(struct restoring *x);

#endif
