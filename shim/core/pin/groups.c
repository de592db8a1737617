/* SPDX-License-Identifier: MIT
 *
 * The persists that were under way at a pin: a segment counts as it was at the start of its oldest
 * group. Their undo files go on growing while they are read.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/pin/groups.h"

void pin_groups_close(struct pin_view *v)
{
	size_t i;

	for (i = 0; i < v->group_count; i++) {
		close(v->groups[i].fd);
		free(v->groups[i].blocks);
	}
	free(v->groups);
	v->groups = NULL;
	v->group_count = 0;
}

static int group_trouble(const struct pin_view *v, const struct pin_group *g, int error)
{
	snprintf(v->trouble->file, sizeof(v->trouble->file), PINS_DIR "/%s", g->name);
	snprintf(v->trouble->detail, sizeof(v->trouble->detail), "%s",
		 error == -EPROTONOSUPPORT ? "of a newer version" : "the undo file is damaged");
	return error;
}

/* Oldest first. */
static int compare_groups(const void *a, const void *b)
{
	const struct undo_header *x = &((const struct pin_group *)a)->reader.header;
	const struct undo_header *y = &((const struct pin_group *)b)->reader.header;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

static int add_group(struct pin_view *v, const char *name)
{
	struct pin_group *more = reallocarray(v->groups, v->group_count + 1, sizeof(*more)), *g;
	int r;

	if (!more)
		return -ENOMEM;
	v->groups = more;
	g = &more[v->group_count];
	*g = (struct pin_group){.fd = file_open_at(v->pins->dirfd, name)};
	snprintf(g->name, sizeof(g->name), "%s", name);
	if (g->fd < 0)
		return g->fd;
	v->group_count++;
	r = undo_open(&g->reader, g->fd);
	return r == -EBADMSG || r == -ENODATA ? group_trouble(v, g, -EBADMSG)
	       : r < 0			      ? group_trouble(v, g, r)
					      : 0;
}

int pin_groups_open(struct pin_view *v)
{
	const struct dirent *entry;
	DIR *dir;
	int r = file_names_at(v->pins->dirfd, NULL, &dir);

	if (r < 0)
		return r;
	while (r == 0 && (entry = readdir(dir))) {
		size_t n = strlen(entry->d_name), suffix = strlen(UNDO_SUFFIX);
		char *end;

		if (n > suffix && !strcmp(entry->d_name + n - suffix, UNDO_SUFFIX) &&
		    strtoull(entry->d_name, &end, 10) == v->id && *end == '-' && n < PIN_NAME_MAX)
			r = add_group(v, entry->d_name);
	}
	closedir(dir);
	if (r == 0 && v->group_count)
		qsort(v->groups, v->group_count, sizeof(*v->groups), compare_groups);
	return r;
}

/* ---- what they saved ---- */

static int compare_blocks(const void *a, const void *b)
{
	const struct pin_group_block *x = a, *y = b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int add_block(struct pin_group *g, const struct undo_record *record)
{
	struct pin_group_block *more;

	if (record->kind != UNDO_BLOCK_IMAGE)
		return 0;
	if (g->count == g->room) {
		g->room = g->room ? 2 * g->room : 64;
		more = reallocarray(g->blocks, g->room, sizeof(*more));
		if (!more)
			return -ENOMEM;
		g->blocks = more;
	}
	g->blocks[g->count++] =
	    (struct pin_group_block){.file = record->file,
				     .length = record->length,
				     .offset = record->offset,
				     .at = g->reader.at - ((record->length + 7) & ~7u)};
	return 0;
}

/* What is only half there speaks of a block that is untouched still: it is looked at again. */
static int read_on(struct pin_group *g, unsigned char *data)
{
	struct undo_record record;
	size_t before = g->count;
	int r = 0;

	if (g->reader.skipped) {
		g->reader.at = g->reader.start;
		g->reader.skipped = 0;
		g->count = before = 0;
	}
	while (r == 0) {
		uint64_t at = g->reader.at;

		r = undo_next(&g->reader, &record, data);
		if (r == -ENODATA)
			g->reader.at = at;
		else if (r == 0)
			r = add_block(g, &record);
	}
	if (r == -ENODATA)
		r = 0;
	if (g->count > before)
		qsort(g->blocks, g->count, sizeof(*g->blocks), compare_blocks);
	return r;
}

int pin_groups_refresh(struct pin_view *v, const char *segment)
{
	unsigned char *data = NULL;
	size_t i;
	int r = 0;

	for (i = 0; i < v->group_count && r == 0; i++) {
		if (segment && strcmp(v->groups[i].reader.header.segment, segment) != 0)
			continue;
		data = data ? data : malloc(UNDO_LENGTH_MAX);
		r = data ? read_on(&v->groups[i], data) : -ENOMEM;
	}
	free(data);
	return r;
}

int pin_groups_check(struct pin_view *v)
{
	size_t i;
	int r = pin_groups_refresh(v, NULL);

	for (i = 0; i < v->group_count && r == 0; i++)
		if (v->groups[i].reader.skipped)
			r = group_trouble(v, &v->groups[i], -EBADMSG);
	return r;
}

static const struct pin_group *next_group(const struct pin_view *v, const char *segment,
					  const struct pin_group *g)
{
	const struct pin_group *end = v->groups + v->group_count;

	for (g = g ? g + 1 : v->groups; g && g < end; g++)
		if (!strcmp(g->reader.header.segment, segment))
			return g;
	return NULL;
}

const struct undo_header *pin_groups_header(const struct pin_view *v, const char *segment)
{
	const struct pin_group *g = next_group(v, segment, NULL);

	return g ? &g->reader.header : NULL;
}

/* The first block that ends behind offset. */
static size_t find_block(const struct pin_group *g, unsigned file, uint64_t offset)
{
	size_t low = 0, high = g->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct pin_group_block *b = &g->blocks[middle];

		if (b->file < file || (b->file == file && b->offset + b->length <= offset))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Bytes that are covered are marked. */
static int lay_over(const struct pin_view *v, const struct pin_group *g, unsigned file,
		    uint64_t offset, unsigned char *buf, size_t n, unsigned char *marks)
{
	size_t i;

	for (i = find_block(g, file, offset); i < g->count; i++) {
		const struct pin_group_block *b = &g->blocks[i];
		uint64_t from = b->offset > offset ? b->offset : offset;
		uint64_t end =
		    b->offset + b->length < offset + n ? b->offset + b->length : offset + n;
		ssize_t got;

		if (b->file != file || from >= end)
			break;
		got = file_read_at(g->fd, buf + (from - offset), (size_t)(end - from),
				   b->at + (from - b->offset));
		if (got < 0)
			return (int)got;
		if ((uint64_t)got < end - from)
			return group_trouble(v, g, -EBADMSG);
		memset(marks + (from - offset), 1, (size_t)(end - from));
	}
	return 0;
}

int pin_groups_lay_over(const struct pin_view *v, const char *segment, unsigned file,
			uint64_t offset, void *buf, size_t n)
{
	unsigned char marks[PIN_BLOCK] = {0};
	size_t i = v->group_count;
	int r = 0;

	/* The oldest last: it knows what was first. */
	while (i-- > 0 && r == 0)
		if (!strcmp(v->groups[i].reader.header.segment, segment))
			r = lay_over(v, &v->groups[i], file, offset, buf, n, marks);
	return r < 0 ? r : !memchr(marks, 0, n);
}

int pin_groups_moved(const struct pin_view *v, const char *segment, unsigned file)
{
	const struct pin_group *g = NULL;
	char moved[UNDO_NAME_MAX], name[PIN_NAME_MAX];
	int fd;

	while ((g = next_group(v, segment, g))) {
		undo_moved_name(moved, &g->reader.header, file);
		snprintf(name, sizeof(name), "%.*s-%s", (int)strcspn(g->name, "-"), g->name, moved);
		fd = file_open_at(v->pins->dirfd, name);
		if (fd != -ENOENT)
			return fd;
	}
	return -ENOENT;
}
