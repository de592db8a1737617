/* SPDX-License-Identifier: MIT
 *
 * Which line of the program called Chroma: CHROMASHIM_LOG_CALLER.
 *
 * What a call of Chroma's changes is written by threads of its own as well, so a line belongs to an
 * act if, of the calls that are under way, those that fit it all come from that line; else none is
 * told. Lock-free, no malloc, errno kept.
 */
#ifndef PRELOAD_CALLERS_H
#define PRELOAD_CALLERS_H

#include <stddef.h>
#include <stdint.h>

#include "chromashim_oplog.h"

enum caller_operation { /* the first four as in Chroma's queue */
			CALLER_ADD,
			CALLER_UPDATE,
			CALLER_UPSERT,
			CALLER_DELETE,
			CALLER_READS,
			CALLER_CHANGES_COLLECTION,
};

/*
 * A call begins. collection: its id, "": the call is of none yet; records: how many it gives, 0:
 * not known. A token for callers_end(), or 0: there is no room.
 */
uint32_t callers_begin(const char *collection, unsigned operation, uint32_t records,
		       const char *line);
void callers_end(uint32_t token);

/* In a forked child: the calls were of threads that are not there. */
void callers_fork(void);

struct caller {
	size_t size; /* 0: none is told */
	char line[OPLOG_CALLER_MAX];
};

/* The line that is to be told with an act whose texts are given; collection: as the act names it,
 * or NULL. */
void callers_find(const struct oplog_record *r, const char *collection, const char *text,
		  size_t size, struct caller *out);

/* ---- Python (callers_python.c) ---- */

/* In the constructor: is there a Python in this program? */
void callers_bind(void);
/* With the first transaction: the interpreter is asked to tell of its calls when it next can. */
void callers_ask(void);

#endif
