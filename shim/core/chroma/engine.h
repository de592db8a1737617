/* SPDX-License-Identifier: MIT
 *
 * Which Chroma works on a directory, told from a living process of it, and kept in the store as a
 * line each: its release, the Python that runs it, and where its packages are. With it a drill can
 * open what it has restored, and a start with another release is told.
 */
#ifndef CORE_CHROMA_ENGINE_H
#define CORE_CHROMA_ENGINE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#define ENGINE_NAME "engine" /* in the store */

struct engine {
	char release[32];	 /* "1.5.9"; "": not known */
	char python[PATH_MAX];	 /* "": it is none of Python's */
	char packages[PATH_MAX]; /* its site-packages, or the directory of node_modules */
};

/* False: it has no Chroma loaded, or is not this user's. */
bool engine_of_process(uint32_t pid, struct engine *out);

/* False: none is known, or somebody else could have written it. */
bool engine_read(int storefd, struct engine *out);
/* What nothing depends on. */
void engine_write(int storefd, const struct engine *e);

/* The lines of the file */
bool engine_parse(char *text, struct engine *out);

#endif
