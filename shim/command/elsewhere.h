/* SPDX-License-Identifier: MIT
 *
 * A directory for -o that is made anew: it has its name only when it is whole.
 */
#ifndef COMMAND_ELSEWHERE_H
#define COMMAND_ELSEWHERE_H

#include <stdbool.h>

struct elsewhere {
	const char *path;
	int fd;		/* empty, and this process's own; fill it */
	int parent;	/* -1: it was there already, and stays where it is */
	char name[256]; /* in parent */
	char temporary[300];
};

/* `path` does not exist, or is an empty directory. 0, or the exit status after saying why not. */
int elsewhere_open(struct elsewhere *e, const char *path);

/* keep: it gets its name; else what is in it goes. 0, or the exit status after saying why not. */
int elsewhere_close(struct elsewhere *e, bool keep);

#endif
