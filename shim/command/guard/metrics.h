/* SPDX-License-Identifier: MIT
 *
 * The guardian's numbers for Prometheus: metrics.prom in the store, and CHROMASHIM_METRICS where a
 * collector can read it.
 */
#ifndef COMMAND_GUARD_METRICS_H
#define COMMAND_GUARD_METRICS_H

#include <stdio.h>

#include "command/guard/guardian.h"
#include "core/base/fileio.h"

#define METRICS_FILE "metrics.prom" /* in the store */
#define METRICS_MAX (1u << 20)	    /* bytes of such a file */

/* What the report has found out of the store (report.c). Times are ns, 0: none. */
struct facts {
	unsigned states[GUARD_STATES];
	uint64_t newest, verified, oldest;
	uint64_t first; /* of any state */
	uint64_t newest_id, verified_id;
	uint64_t judged; /* the newest that was checked, good or not */
	bool is_judged_good;
	uint64_t chunks, undo, room;
};

void metrics_write(struct guardian *g, const struct facts *f, bool running);
/* A report's file, written anew. NULL: it cannot be. */
FILE *metrics_begin(struct file_publish *p, int dirfd, const char *name);
void metrics_end(struct file_publish *p, FILE *out);

/* ---- from the log (metrics_log.c) ---- */

/* Reads what has come since the last time. */
void metrics_read_log(struct guardian *g, bool last);

/* ---- sizes (metrics_sizes.c) ---- */

/* Of the database and of each collection's index, now. */
/* A label's value, with what it may not hold as it is escaped. */
void metrics_put_value(FILE *out, const char *text);
void metrics_write_sizes(FILE *out, const struct guardian *g, const char *label);

#endif
