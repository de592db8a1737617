/* SPDX-License-Identifier: MIT
 *
 * The op log, reading: calls and acts are two logs, of which one may have what the other lacks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/oplog/merge.h"
#include "core/oplog/oplog.h"

/* The two logs say the same moment with a little in between. */
#define SAME_NS UINT64_C(1000000000)

/* Reads a segment for the time of its first record. */
static void read_first_time(struct oplog_reader *r, struct source *s)
{
	struct oplog_image image;
	unsigned char *data = NULL;
	size_t size = 0;
	uint32_t i;
	int error;

	s->told = true;
	s->first_time = UINT64_MAX;
	error = merge_read_file(merge_folder(r, s), s->info.name, s->info.packed, &data, &size);
	if ((error == 0 || error == -EUCLEAN) && oplog_image_open(&image, data, size) == 0) {
		if (image.order_size)
			s->first_time = image.order[0].time - image.header.anchor_monotonic +
					image.header.anchor_realtime;
		for (i = 0; i < image.order_size && s->first_time; i++) {
			struct oplog_record record;

			memcpy(&record, image.data + (size_t)image.order[i].slot * OPLOG_SLOT_SIZE,
			       sizeof(record));
			/* With arg 1 it says who goes on. */
			if (record.op == OP_START && !record.arg)
				s->first_time = 0;
		}
		oplog_image_close(&image);
	}
	free(data);
}

/* From when on a log has the process, or UINT64_MAX: not at all. */
static uint64_t told_from(struct oplog_reader *r, const struct oplog_header *h, enum oplog_log log)
{
	struct source *first = NULL;
	size_t i;

	for (i = 0; i < r->sources_size; i++) {
		struct source *s = r->sources[i];

		if (s->info.log == log && !s->info.error &&
		    oplog_same_process(&s->info.header, h) &&
		    (!first || s->info.header.sequence < first->info.header.sequence))
			first = s;
	}
	if (!first)
		return UINT64_MAX;
	if (!first->told)
		read_first_time(r, first);
	return first->first_time;
}

/* Ops that stand in acts/ only. */
static bool is_in_acts_only(uint16_t op)
{
	return op >= OP_RECORDS || op == OP_THREAD;
}

uint64_t merge_other_from(struct oplog_reader *r, const struct source *s)
{
	bool is_acts = s->info.log == OPLOG_LOG_ACTS;

	if (r->which == OPLOG_CALLS || (r->which == OPLOG_ACTS) == is_acts)
		return UINT64_MAX;
	return told_from(r, &s->info.header, is_acts ? OPLOG_LOG_CALLS : OPLOG_LOG_ACTS);
}

void merge_select_missing(struct oplog_reader *r, struct source *s, uint64_t from)
{
	struct oplog_image *image = &s->image;
	uint64_t shift = image->header.anchor_realtime - image->header.anchor_monotonic;
	bool acts_alone = r->which == OPLOG_ACTS && s->info.log == OPLOG_LOG_CALLS;
	uint32_t i, n = 0;

	if (from == UINT64_MAX && !acts_alone)
		return;
	for (i = 0; i < image->order_size; i++) {
		uint16_t op;

		memcpy(&op,
		       image->data + (size_t)image->order[i].slot * OPLOG_SLOT_SIZE +
			   offsetof(struct oplog_record, op),
		       sizeof(op));
		if (acts_alone && !oplog_is_act(op))
			continue;
		if (from != UINT64_MAX && !(!acts_alone && is_in_acts_only(op)) &&
		    (from < SAME_NS || image->order[i].time + shift >= from - SAME_NS))
			continue;
		image->order[n++] = image->order[i];
	}
	image->order_size = n;
}
