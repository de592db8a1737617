/* SPDX-License-Identifier: MIT
 *
 * An export as a directory that appears when it is complete: for each collection a folder with
 * collection.json and records.jsonl (or .jsonl.zst).
 */
#ifndef COMMAND_EXPORT_FOLDERS_H
#define COMMAND_EXPORT_FOLDERS_H

#include "command/base/output.h"
#include "core/base/json.h"
#include "core/export/export.h"

struct folders {
	char path[4096], partial[4096];
	bool zstd, is_writing;
	struct output output; /* of the folder now written */
};

/* -EEXIST: path is there already; -errno. */
int folders_open(struct folders *f, const char *path, bool zstd);

/* The folder of the next collection; *stream_out takes its records until the next call. */
int folders_next(struct folders *f, const struct export_collection *told, FILE **stream_out);

int folders_close(struct folders *f);
void folders_abort(struct folders *f);

/* "metadata": an object, or null if there is none. */
void export_put_metadata(struct json *j, const struct export_value *values, size_t count);

#endif
