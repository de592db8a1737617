/* SPDX-License-Identifier: MIT
 *
 * Where bulk output goes: stdout or a file that appears only when it is complete, plain or
 * compressed; and numbers that read back as they were.
 */
#ifndef COMMAND_OUTPUT_H
#define COMMAND_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/fileio.h"
#include "core/json.h"

struct output {
	FILE *stream; /* write here */
	/* private */
	FILE *plain; /* under `stream` when that compresses */
	struct file_publish file;
	bool is_file;
	void *compressor;
};

/* path NULL: stdout. -errno. */
int output_open(struct output *o, const char *path, bool zstd);

/* Completes it. -errno: it was not written, and the file is not there. */
int output_close(struct output *o);
void output_abort(struct output *o);

/* An array of floats with 9 digits, which read back as the same floats; null where not finite. */
void output_floats(struct json *j, const float *values, uint64_t count);

/* One float; at least 24 bytes, not terminated. Returns its length. */
size_t output_format_float(char *out, float value);

#endif
