/* SPDX-License-Identifier: MIT
 *
 * A drill: is a snapshot what one would want back? It is restored to a scratch place, checked as
 * `check --full` does, opened by the user's own Chroma, which is asked for sampled records, and
 * removed; and every chunk of all snapshots is read.
 */
#ifndef COMMAND_DRILL_H
#define COMMAND_DRILL_H

#include <signal.h>

#include "core/chroma/engine.h"
#include "command/base/snapshots.h"
#include "core/store/drill.h"

struct drill_options {
	const char *snapshot;	     /* as snapshots_find() takes it; NULL: any */
	const char *from, *key;	     /* a replica, and its secret key's file; NULL: none */
	const char *scratch;	     /* a directory to work in; NULL: chosen */
	const struct engine *engine; /* what shall open it; NULL: none is known */
	bool quiet;
};

/*
 * s is open for SNAPSHOT_KEEP, and closed for changes on the way. Fills in *out, writes it into the
 * store, and leaves drill.failed to be told. 0, or the exit status of what could not even begin,
 * after saying why.
 */
int drill_perform(struct snapshots *s, const struct drill_options *options, struct drill_note *out);

/* Told to end: what was restored is removed, and nothing kept. */
extern volatile sig_atomic_t drill_stopping;

/* ---- where (place.c) ---- */

struct drill_place {
	int parentfd, dirfd; /* dirfd: empty, only this user's */
	char name[80];	     /* in parentfd */
};

/*
 * For `need` bytes: in the store if that leaves its disk as free as it should be, else in $TMPDIR,
 * /var/tmp or /tmp on another. 0, -ENOSPC with the reason in why, or -errno.
 */
int drill_place_open(struct drill_place *p, const struct data_directory *t, const char *scratch,
		     uint64_t need, char *why, size_t room);
/* Removes it. */
void drill_place_close(struct drill_place *p);

/* ---- what Chroma says (ask.c) ---- */

struct drill_answers {
	char release[32];  /* "": it was not opened, `trouble` says why */
	uint64_t compared; /* records that are as they are in the files */
	bool failed;	   /* it was opened, or should have been, and something is wrong */
	char trouble[400];
};

/* Has the directory `path`, which dirfd is open on and nobody else uses, opened by that Chroma. */
void drill_ask(const char *path, int dirfd, const struct engine *engine, const struct manifest *m,
	       struct drill_answers *out);

/* The Python that asks (script.c). */
extern const char drill_script[];

#endif
