/* SPDX-License-Identifier: MIT
 *
 * Who has a file open, by /proc.
 */
#ifndef CORE_OPENERS_H
#define CORE_OPENERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct process_opener {
	uint32_t pid;
	bool writes;	   /* it is open for writing */
	char name[64];	   /* comm */
	char command[256]; /* command line, cut */
};

/*
 * Processes that have the file open, by pid; `name` is its last part. Never waits for a file system
 * other than the file's own. *list_out is the caller's to free; *hidden_out: how
 * many processes could not be looked into. The number of them, or -errno.
 */
int process_find_openers(const struct stat *file, const char *name,
			 struct process_opener **list_out, unsigned *hidden_out);

#endif
