/* SPDX-License-Identifier: MIT
 *
 * What acts say in their texts.
 */
#include "core/oplog/acts.h"

#include <errno.h>
#include <string.h>

#include "core/base/checksum.h"

int oplog_act_records(const struct oplog_entry *e, struct oplog_act_records *out)
{
	memset(out, 0, sizeof(*out));
	if (e->op != OP_RECORDS || e->text_size < sizeof(out->head))
		return -EBADMSG;
	memcpy(&out->head, e->text, sizeof(out->head));
	out->at = (const unsigned char *)e->text + sizeof(out->head);
	out->end = (const unsigned char *)e->text + e->text_size;
	out->left = out->head.form == OPLOG_IDS_HASH || out->head.form == OPLOG_IDS_PLAIN
			? out->head.ids
			: 0;
	return 0;
}

bool oplog_act_next_id(struct oplog_act_records *r, struct oplog_act_id *out)
{
	struct oplog_id id;

	if (!r->left || (size_t)(r->end - r->at) < sizeof(id))
		return false;
	memcpy(&id, r->at, sizeof(id));
	if (id.size > r->end - r->at - (ptrdiff_t)sizeof(id) ||
	    (r->head.form == OPLOG_IDS_HASH && id.size != sizeof(uint64_t)))
		return false;
	out->operation = id.operation;
	out->is_hash = r->head.form == OPLOG_IDS_HASH;
	out->size = id.size;
	out->bytes = r->at + sizeof(id);
	r->at += sizeof(id) + id.size;
	r->left--;
	return true;
}

const char *oplog_act_word(unsigned operation)
{
	static const char *const words[] = {"add", "update", "upsert", "delete"};

	return operation < 4 ? words[operation] : "other";
}

uint64_t oplog_act_hash(const uint8_t store_id[16], const char *id, size_t size)
{
	uint64_t seed;

	memcpy(&seed, store_id, sizeof(seed));
	return checksum64(id, size, seed);
}

bool oplog_act_has_id(const struct oplog_entry *e, const uint8_t store_id[16], const char *id)
{
	size_t size = strlen(id), cut = size < UINT8_MAX ? size : UINT8_MAX;
	uint64_t hash = oplog_act_hash(store_id, id, size);
	struct oplog_act_records r;
	struct oplog_act_id each;

	if (oplog_act_records(e, &r) < 0)
		return false;
	while (oplog_act_next_id(&r, &each))
		if (each.is_hash ? memcmp(each.bytes, &hash, sizeof(hash)) == 0
				 : each.size == cut && memcmp(each.bytes, id, cut) == 0)
			return true;
	return false;
}

/* What follows the first NUL of the entry's texts, or NULL: nothing does. */
static const char *second_text(const struct oplog_entry *e)
{
	size_t first = strlen(e->text);

	return first + 1 < e->text_size ? e->text + first + 1 : NULL;
}

void oplog_act_collection(const struct oplog_entry *e, const char **name, const char **old)
{
	*name = e->text;
	*old = e->result == OPLOG_COLLECTION_RENAMED ? second_text(e) : NULL;
}

const char *oplog_act_collection_word(const struct oplog_entry *e)
{
	switch (e->result) {
	case OPLOG_COLLECTION_CREATED:
		return "created";
	case OPLOG_COLLECTION_RENAMED:
		return "renamed";
	case OPLOG_COLLECTION_CONFIGURED:
		return "configured";
	case OPLOG_COLLECTION_DELETED:
		return "deleted";
	default:
		return "changed";
	}
}

void oplog_act_segment(const struct oplog_entry *e, const char **id, const char **scope)
{
	const char *second = second_text(e);

	*id = e->text;
	*scope = second ? second : "";
}

/* A digit's value, or -1. */
static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_uuid(const char *text, uint8_t out[16])
{
	unsigned at = 0, n;

	for (n = 0; n < 36; n++) {
		int digit = digit_of(text[n]);

		if (n == 8 || n == 13 || n == 18 || n == 23) {
			if (text[n] != '-')
				return false;
			continue;
		}
		if (digit < 0)
			return false;
		out[at / 2] = (uint8_t)(at % 2 ? out[at / 2] | digit : digit << 4);
		at++;
	}
	return true;
}

bool oplog_act_uuid(const char *text, uint8_t out[16])
{
	size_t size = text ? strlen(text) : 0, i;

	for (i = 0; i + 36 <= size; i++)
		if (read_uuid(text + i, out))
			return true;
	return false;
}
