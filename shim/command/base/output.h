/* SPDX-License-Identifier: MIT
 *
 * Where the output of a verb goes: stdout, a file that appears only when it is complete, or what is
 * written through, plain or compressed; and numbers that read back as they were.
 */
#ifndef COMMAND_OUTPUT_H
#define COMMAND_OUTPUT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/base/fileio.h"
#include "core/base/json.h"

/* ---- where a name leads (output_place.c) ---- */

enum output_kind {
	OUTPUT_NEW,	  /* nothing there yet */
	OUTPUT_FILE,	  /* a regular file */
	OUTPUT_DIRECTORY, /* a directory */
	OUTPUT_THROUGH,	  /* a device, a FIFO, a terminal, a descriptor: never replaced */
};

struct output_place {
	enum output_kind kind;
	char path[PATH_MAX]; /* absolute, at the end of all links */
	char name[256];	     /* its last part; "": a directory that has none */
	struct stat st;	     /* of what is there */
	int fd; /* of a descriptor such as /dev/stdout, the caller's to close; else -1 */
};

/* Follows all links, also the one whose target is missing. 0 or -errno. */
int output_place_find(struct output_place *p, const char *path);

/* ---- files ---- */

struct output {
	FILE *stream; /* write here */
	/* private */
	FILE *plain; /* under `stream` when that compresses */
	struct file_publish file;
	bool is_file;
	void *compressor;
};

/*
 * path NULL or "-": stdout. A regular file is replaced as a whole, when it is complete, and keeps
 * its mode; what is no regular file is written through. 0 or -errno.
 */
int output_open(struct output *o, const char *path, bool zstd);

/* Completes it. -errno: it was not written, and the file is not there. */
int output_close(struct output *o);
void output_abort(struct output *o);

/* Says why it cannot be written (-errno), and what to do. Returns the exit status. */
int output_fail(int error, const char *path);

/* An array of floats with 9 digits, which read back as the same floats; null where not finite. */
void output_floats(struct json *j, const float *values, uint64_t count);

/* One float; at least 24 bytes, not terminated. Returns its length. */
size_t output_format_float(char *out, float value);

#endif
