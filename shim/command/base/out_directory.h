/* SPDX-License-Identifier: MIT
 *
 * A directory for -o that is made anew: it has its name only when it is whole.
 */
#ifndef COMMAND_OUT_DIRECTORY_H
#define COMMAND_OUT_DIRECTORY_H

#include <stdbool.h>
#include <sys/stat.h>

struct out_directory {
	const char *path;
	int fd;		/* empty, and this process's own; fill it */
	int parent;	/* -1: it was there already, and stays where it is */
	char name[256]; /* in parent */
	char temporary[300];
	struct stat like;
};

/*
 * `path` does not exist, or is an empty directory. It gets the mode of the directory `like`, of
 * which it will hold a copy, within the umask, and its owner where root asks; one that is there is
 * made no wider than that. like -1: it is like any directory that is made. 0, or the exit status
 * after saying why not.
 */
int out_directory_open(struct out_directory *e, const char *path, int like);

/* keep: it gets its name; else what is in it goes. 0, or the exit status after saying why not. */
int out_directory_close(struct out_directory *e, bool keep);

#endif
