/* SPDX-License-Identifier: MIT
 *
 * Property: whatever a database and the pages of a transaction hold, they are read to an end,
 * within their bytes, and what is told lies within what is kept.
 */
#include <stdlib.h>
#include <string.h>

#include "core/chroma/rows_seen.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rows_seen seen;
static uint64_t sum;

static void add(struct rows_text text)
{
	size_t i;

	for (i = 0; i < text.size; i++)
		sum += (unsigned char)text.bytes[i];
}

static void on_event(void *context, const struct rows_event *event)
{
	(void)context;
	add(event->collection);
	add(event->name);
	add(event->other);
}

static uint8_t put_id(void *context, const void *id, size_t size, unsigned char *out)
{
	size_t n = size < 255 ? size : 255;

	(void)context;
	memcpy(out, id, n);
	return (uint8_t)n;
}

/* The first byte tells which of the pages were saved, and where the last rows were. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rows_highest highest = {{0}}, after;
	struct file_source source;
	struct rows_roots roots;
	size_t at, n = 0;
	unsigned i;

	if (!size)
		return 0;
	file_source_memory(&source, data + 1, size - 1);
	if (!rows_read(&seen, &source, &roots, &highest))
		return 0;
	for (i = 0; i < ROWS_TABLES && data[0] & 1; i++)
		highest.row[i] /= 2;
	rows_begin(&seen, &highest);
	seen.event = on_event;
	seen.id = put_id;
	for (at = 1; size - at >= roots.page_size; at += roots.page_size)
		rows_page(&seen, data + at, roots.page_size, data[0] >> (n++ % 8) & 1);
	rows_before(&seen, &source, &roots, data[0] & 2);
	for (i = 0; i < ROWS_TABLES && data[0] & 4; i++)
		seen.is_touched[i] = true;
	rows_committed(&seen, &source, &roots, data[0] & 8, &after);
	if (seen.topics_count > ROWS_TOPICS || seen.old_count > ROWS_OLD ||
	    seen.ids_size > ROWS_IDS || seen.names_size > ROWS_NAMES ||
	    seen.ranges_count > ROWS_RANGES)
		abort();
	return 0;
}
