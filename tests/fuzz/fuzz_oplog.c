/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are read as a segment to the end, or refused; no crash, no endless loop, and
 * every record given is within the segment, in order of time, with texts no longer than allowed.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/oplog/oplog.h"
#include "core/oplog/read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Half of the inputs get their checks put right, or nearly all would stop at the header. */
static uint8_t *seal(const uint8_t *data, size_t size)
{
	struct oplog_header h;
	uint8_t *copy = malloc(size);
	uint32_t i, check;

	memcpy(copy, data, size);
	memcpy(&h, copy, sizeof(h));
	h.magic = OPLOG_MAGIC;
	h.version = OPLOG_VERSION;
	h.endian = OPLOG_ENDIAN;
	h.header_size = OPLOG_HEADER_SIZE;
	h.slot_size = OPLOG_SLOT_SIZE;
	h.check = oplog_header_check(&h);
	memcpy(copy, &h, sizeof(h));
	for (i = 0; i < (size - OPLOG_HEADER_SIZE) / OPLOG_SLOT_SIZE; i++) {
		uint8_t *slot = copy + OPLOG_HEADER_SIZE + i * OPLOG_SLOT_SIZE;

		memcpy(&check, slot, sizeof(check));
		if (!(check & 1))
			continue;
		check = oplog_slot_check(slot, i);
		memcpy(slot, &check, sizeof(check));
	}
	return copy;
}

static void read_all(const uint8_t *data, size_t size)
{
	struct oplog_image image;
	struct oplog_entry e;
	uint64_t last = 0;
	uint32_t i;

	if (oplog_image_open(&image, data, size) == 0) {
		if (image.slots > OPLOG_CAPACITY_MAX || image.order_size > image.slots)
			abort();
		for (i = 0; i < image.order_size; i++) {
			if (oplog_image_get(&image, i, &e) < 0)
				continue;
			if (e.slot >= image.slots || image.order[i].time < last ||
			    e.text_size > 255 * OPLOG_TEXT_BYTES || e.text[e.text_size])
				abort();
			last = image.order[i].time;
		}
	}
	oplog_image_close(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	read_all(data, size);
	if (size >= OPLOG_HEADER_SIZE) {
		uint8_t *sealed = seal(data, size);

		read_all(sealed, size);
		free(sealed);
	}
	return 0;
}
