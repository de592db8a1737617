/* SPDX-License-Identifier: MIT
 *
 * Recovering as a verb and in the pre-flight of `run`, and how it is told.
 */
#ifndef COMMAND_RECOVER_H
#define COMMAND_RECOVER_H

#include "command/base/snapshots.h"
#include "command/verbs/undelete.h"
#include "core/base/json.h"
#include "core/recover/recover.h"

/* What is told: sentences at once, JSON as one object at the end. */
struct recover_telling {
	FILE *out;
	const char *dir; /* that is recovered */
	bool is_json, quiet;
	bool any;	  /* there was a step */
	char error[1024]; /* "": none */
	/* The steps as JSON, until the object is printed. */
	struct json steps;
	char *text;
	size_t size;
};

/* -ENOMEM. */
int recover_telling_begin(struct recover_telling *t);
/* One step; collection may be NULL. */
void recover_tell_step(struct recover_telling *t, const char *step, const char *collection,
		       const char *sentence);
/*
 * The account, or why there is none. Called once, whatever happened; quarantine is NULL if nothing
 * was exchanged. *lost_out counts records that lost something. -errno if the account cannot be read
 * to its end.
 */
int recover_tell_end(struct recover_telling *t, struct recover_result *result,
		     const char *quarantine, uint64_t *lost_out);

struct recovering {
	/* Open for SNAPSHOT_CHANGE if there are any; with `out` or a dry run the data directory
	 * alone. */
	struct snapshots s;
	struct snapshot_flags flags;
	const char *out; /* NULL: in place */
	unsigned steps;
	bool set_aside;
	const char *rebuild; /* NULL: none */
	struct undelete undelete;
	struct recover_telling telling;
	char quarantine[48];
	int refused; /* the exit status of what was not agreed to */
	/* Nothing is exchanged if that would cost something: `loss` records. */
	bool without_loss;
	uint64_t loss;
	bool is_loss; /* also of what cannot be counted */
	/* Asked last, directly before the exchange: < 0, and there is none. May be NULL. */
	int (*may_exchange)(void *context);
	void *exchange_context;
	/* While it is worked on. */
	struct recover_job *job;
	struct recover_result *result;
};

/* All of it, and the account. The exit status. */
int recovering_run(struct recovering *x);

#endif
