/* SPDX-License-Identifier: MIT
 *
 * The op log, reading: a segment into memory, also ahead of time by another thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/oplog/file.h"
#include "core/oplog/merge.h"
#include "core/oplog/oplog.h"

int merge_read_file(int dirfd, const char *name, bool packed, unsigned char **data, size_t *size)
{
	char other[300];
	struct stat st;
	int error = oplog_file_read(dirfd, name, false, data, size, &st);

	if (error != -ENOENT || packed)
		return error;
	free(*data);
	snprintf(other, sizeof(other), "%.255s.zst", name);
	return oplog_file_read(dirfd, other, false, data, size, &st);
}

static void read_once(struct loading *l)
{
	unsigned char *data = NULL;
	size_t size = 0;

	l->read_error = merge_read_file(l->dirfd, l->name, l->packed, &data, &size);
	/* What a damaged file still gives is taken. */
	if (l->read_error && l->read_error != -EUCLEAN) {
		l->error = l->read_error;
		free(data);
		return;
	}
	l->error = oplog_image_take(&l->image, data, size);
	if (l->error)
		oplog_image_close(&l->image);
}

/* A slot that was read while it was written looks damaged, and does not when it is read again. */
static void read_image(struct loading *l)
{
	unsigned tries;

	read_once(l);
	for (tries = 0; tries < 3 && !l->error && !l->packed && l->image.damaged; tries++) {
		oplog_image_close(&l->image);
		read_once(l);
	}
}

void *merge_read_ahead(void *loading)
{
	read_image(loading);
	return NULL;
}

void merge_prepare(struct oplog_reader *r, struct source *s, struct loading *l)
{
	memset(l, 0, sizeof(*l));
	l->source = s;
	l->dirfd = merge_folder(r, s);
	l->name = s->info.name;
	l->packed = s->info.packed;
	if (!s->info.error)
		s->info.life = oplog_header_life(r->storefd, &s->info.header);
}

static void merge_wait_for_ahead(struct oplog_reader *r)
{
	if (r->ahead_runs)
		pthread_join(r->thread, NULL);
	r->ahead_runs = false;
}

void merge_drop_ahead(struct oplog_reader *r)
{
	merge_wait_for_ahead(r);
	if (r->ahead.source && !r->ahead.error)
		oplog_image_close(&r->ahead.image);
	r->ahead.source = NULL;
}

void merge_load_image(struct oplog_reader *r, struct source *s, struct loading *l)
{
	if (r->ahead.source == s) {
		merge_wait_for_ahead(r);
		*l = r->ahead;
		r->ahead.source = NULL;
		return;
	}
	merge_prepare(r, s, l);
	read_image(l);
}
