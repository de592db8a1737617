/* SPDX-License-Identifier: MIT
 *
 * Property: the texts of an act, whatever they are, are parsed within their bounds; as many ids are
 * given as they say at most, and each lies in the texts.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/oplog/acts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_ids(const struct oplog_entry *e)
{
	struct oplog_act_records r;
	struct oplog_act_id id;
	unsigned given = 0;

	if (oplog_act_records(e, &r) < 0)
		return;
	while (oplog_act_next_id(&r, &id)) {
		const char *at = (const char *)id.bytes;

		if (++given > r.head.ids || at < e->text || at + id.size > e->text + e->text_size)
			abort();
		oplog_act_word(id.operation);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t ops[] = {OP_RECORDS, OP_COLLECTION, OP_SEGMENT, OP_PURGE};
	static const uint8_t store_id[16] = {1, 2, 3};
	struct oplog_entry e = {.op = OP_RECORDS};
	const char *first, *second;
	uint8_t uuid[16];
	char *text;

	if (size < 2)
		return 0;
	e.op = ops[data[0] % 4];
	e.result = data[1];
	e.text_size = size - 2;
	text = malloc(e.text_size + 1);
	memcpy(text, data + 2, e.text_size);
	text[e.text_size] = '\0';
	e.text = text;
	read_ids(&e);
	oplog_act_has_id(&e, store_id, "id");
	oplog_act_collection(&e, &first, &second);
	if (strlen(first) > e.text_size || (second && second > text + e.text_size))
		abort();
	oplog_act_segment(&e, &first, &second);
	if (strlen(first) + strlen(second) > e.text_size)
		abort();
	oplog_act_uuid(text, uuid);
	free(text);
	return 0;
}
