/* SPDX-License-Identifier: MIT
 *
 * Limits of the library itself, which a process has reached. Each is said once: to standard error,
 * in the log of every directory that the process protects, and in its header, where `status` and
 * the guardian find it.
 */
#ifndef PRELOAD_LIMITS_H
#define PRELOAD_LIMITS_H

#include <stdbool.h>

enum limit {
	LIMIT_DIRECTORIES,
	LIMIT_LOCKS,
	LIMIT_GROUPS,
	LIMIT_DESCRIPTORS,
	LIMIT_NEIGHBOURS, /* names of files that are not Chroma's */
	LIMIT_NAMES,
	LIMITS,
};

/* What puts it into the logs (record_limit()): once, before the first directory. */
void limits_hand_in(void (*record)(const char *text));

/* Keeps errno. */
void limit_reached(enum limit which);
/* Whether one was. */
bool limits_are_reached(void);

#endif
