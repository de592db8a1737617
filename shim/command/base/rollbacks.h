/* SPDX-License-Identifier: MIT
 *
 * Undoing persists that were cut off, for the verbs that do it by name, and their words for it; and
 * ending restores that were.
 */
#ifndef COMMAND_ROLLBACKS_H
#define COMMAND_ROLLBACKS_H

#include "command/base/command.h"

struct rollbacks {
	unsigned undone; /* or, in a dry run, would be */
	unsigned failed; /* cannot be undone, or was put aside; each is said */
	unsigned live;	 /* of a living process: left alone */
};

/*
 * All of the directory. Each line is a whole sentence without its newline. 0, also where there is
 * nothing; -errno if they could not even be looked for.
 */
int rollbacks_run(const struct data_directory *t, bool dry,
		  void (*say)(void *context, const char *line), void *context,
		  struct rollbacks *out);

/* A restore or recovery that was cut off is ended, or what it had copied removed; nothing is said
 * if there is none. */
void restore_end_pending(const struct data_directory *t);

#endif
