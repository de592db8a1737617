/* SPDX-License-Identifier: MIT
 *
 * The op log, reading: what merging it is made of. Only merge.c and its parts include it.
 */
#ifndef CORE_OPLOG_MERGE_H
#define CORE_OPLOG_MERGE_H

#include <pthread.h>

#include "core/oplog/read.h"

struct source {
	struct oplog_segment_info info;
	struct oplog_image image;
	bool open;	      /* image is there */
	bool told;	      /* first_time is known */
	uint64_t first_time;  /* of its records; 0: it has those from the process's start on */
	uint32_t at;	      /* next in image.order */
	unsigned char *given; /* following: one bit a slot */
};

/* A segment that is being read. */
struct loading {
	struct source *source;
	int dirfd;
	const char *name;
	bool packed;
	struct oplog_image image; /* unless error */
	int read_error, error;
};

struct oplog_reader {
	int dirfd[2]; /* by enum oplog_log; -1: there is none, or it is not asked for */
	enum oplog_which which;
	int storefd; /* its own */
	bool following;
	uint64_t since; /* what is before is not wanted */
	bool reads_ahead, ahead_runs;
	struct loading ahead;
	pthread_t thread;
	struct source **sources; /* by name, those found by a poll after the others */
	size_t sources_size, sources_room;
	size_t opened; /* how many of them have been */
	size_t *heap;  /* sources with records left, the earliest record on top */
	size_t heap_size;
	bool top_taken; /* the record on top was given by the last call */
};

static inline int merge_folder(const struct oplog_reader *r, const struct source *s)
{
	return r->dirfd[s->info.log];
}

/* ---- load.c: a segment into memory, also by another thread ---- */

/* A whole segment, also one that was compressed since its name was read. *data: as
 * oplog_file_read(). */
int merge_read_file(int dirfd, const char *name, bool packed, unsigned char **data, size_t *size);
/* Whether its process lives is asked before it is read: it may still write, and then die. */
void merge_prepare(struct oplog_reader *r, struct source *s, struct loading *l);
/* The one that was prepared; for pthread_create(). */
void *merge_read_ahead(void *loading);
/* Now, or what has been read ahead. */
void merge_load_image(struct oplog_reader *r, struct source *s, struct loading *l);
void merge_drop_ahead(struct oplog_reader *r);

/* ---- both.c: what each of the two logs has ---- */

/* From when on the other log has what this segment says of acts; UINT64_MAX: it is not asked. */
uint64_t merge_other_from(struct oplog_reader *r, const struct source *s);
/* Of a log that is there for what the other one lacks: only that. */
void merge_select_missing(struct oplog_reader *r, struct source *s, uint64_t from);

#endif
