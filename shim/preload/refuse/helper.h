/* SPDX-License-Identifier: MIT
 *
 * Starting the command beside the backend, unseen by it.
 */
#ifndef PRELOAD_HELPER_H
#define PRELOAD_HELPER_H

#include <limits.h>
#include <stdbool.h>

#define HELPER_STACK (32u << 10)
#define HELPER_WORDS 8

struct helper {
	char between[HELPER_STACK], stack[HELPER_STACK];
	char command[PATH_MAX + 32];
	char dir[PATH_MAX], number[24]; /* room for the words */
	char *words[HELPER_WORDS];	/* NULL behind the last one */
	int keep;			/* a descriptor that it gets under its number; -1: none */
	bool is_heard;			/* it may speak on standard error */
	int pid;			/* of what was started */
	int error;			/* of the last step that failed */
};

/* In the constructor: where the command is, beside the library. */
void helper_find_command(void);

/* NULL with its reason, as a part of a sentence: there can be none. */
struct helper *helper_new(const char **why);
/* Runs it with its words. NULL, or why it does not. Keeps errno. */
const char *helper_start(struct helper *h);
void helper_free(struct helper *h);

#endif
