/* SPDX-License-Identifier: MIT
 *
 * A pin as a directory that can be read: which files there were, and what was in them; the format
 * is specified in chromashim_pin.h. Meanwhile the backend goes on writing.
 *
 * Errors: -EBADMSG what was saved is damaged, -ESTALE somebody has written without the shim,
 * -EPROTONOSUPPORT of a newer version; *t then says which file. Not in a process that has SQLite's
 * locks on the database: files are opened and closed.
 */
#ifndef CORE_PIN_VIEW_H
#define CORE_PIN_VIEW_H

#include <string.h>

#include "core/base/fileio.h"
#include "core/base/trouble.h"
#include "core/pin/pin.h"

struct pin_view_file {
	char path[PIN_PATH];
	uint64_t size;
	uint32_t mode, mtime_ns;
	int64_t mtime;
};

struct pin_list_entry;
struct pin_group; /* of a persist that was under way */

struct pin_view {
	struct pins *pins; /* lent */
	int rootfd;	   /* lent: the data directory */
	uint64_t id, time, database_size, wal_size;
	bool wal;
	struct pin_list_entry *list; /* what there was at the pin */
	size_t list_count;
	struct pin_view_file *files; /* by path, the database first */
	size_t count;
	struct pin_group *groups;
	size_t group_count;
	struct snapshot_trouble *trouble; /* lent */
};

int pin_view_open(struct pin_view *v, struct pins *pins, const struct pin_slot *slot, int rootfd,
		  struct snapshot_trouble *t);
void pin_view_close(struct pin_view *v);
/* After all has been read: were the persists that were under way saved whole? */
int pin_view_check(struct pin_view *v);
/* What the list says of a file, NULL: there was none. */
static inline const struct pin_list_entry *pin_view_listed(const struct pin_view *v,
							   const char *path)
{
	size_t i;

	for (i = 0; i < v->list_count; i++)
		if (!strcmp(v->list[i].path, path))
			return &v->list[i];
	return NULL;
}

/* One file of it. */
struct pin_layer {
	uint64_t id;
	struct pin_file pre; /* pre-images; header NULL: none */
	int whole;	     /* the file itself, as it was removed; -1: none */
};

struct pin_reader {
	struct file_source source; /* reads the file as it was; points to this very struct */
	struct pin_view *view;
	struct pin_view_file file;
	uint64_t generation;
	struct pin_layer *layers; /* oldest first; the last may have a `whole` */
	size_t layer_count;
	int live;    /* -1: gone */
	int moved;   /* the file itself, moved aside by the persist that was under way; -1: none */
	int segment; /* index of the file in its segment, -1: none */
	char id[40]; /* of the segment */
};

/* -ENOENT: there was no such file. Close it also after an error. */
int pin_reader_open(struct pin_reader *r, struct pin_view *v, const char *path);
void pin_reader_close(struct pin_reader *r);
/* After something was read: was it what the pin held? -ESTALE: who knows; it is told. */
int pin_reader_judge(struct pin_reader *r);

#endif
