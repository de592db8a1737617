/* SPDX-License-Identifier: MIT
 *
 * What acts say in their texts: changes of records and their ids, collections, segments. Bounded:
 * nothing that was read is trusted.
 */
#ifndef CORE_OPLOG_ACTS_H
#define CORE_OPLOG_ACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/oplog/read.h"

/* OP_RECORDS: how many of what, and the first ids. */
struct oplog_act_records {
	struct oplog_records head;
	const unsigned char *at, *end; /* ids that were not given yet */
	unsigned left;
};

/* One id. Lent, as the entry's text is. */
struct oplog_act_id {
	uint8_t operation; /* 0 add, 1 update, 2 upsert, 3 delete */
	bool is_hash;
	size_t size;
	const unsigned char *bytes;
};

/* 0, or -EBADMSG: the texts are damaged, or it is another act; then all is 0. */
int oplog_act_records(const struct oplog_entry *e, struct oplog_act_records *out);
/* The next id; false: there are no more, or they are cut. */
bool oplog_act_next_id(struct oplog_act_records *r, struct oplog_act_id *out);

/* "add", "update", "upsert", "delete", or "other". */
const char *oplog_act_word(unsigned operation);

/* What an id is called where ids are hashed; the store's id is the seed. */
uint64_t oplog_act_hash(const uint8_t store_id[16], const char *id, size_t size);

/* Whether it is among those that the act tells, as it is or as its hash. */
bool oplog_act_has_id(const struct oplog_entry *e, const uint8_t store_id[16], const char *id);

/* OP_COLLECTION: its name, and after a rename the old one (else NULL). Lent, NUL-terminated. */
void oplog_act_collection(const struct oplog_entry *e, const char **name, const char **old);
/* "created", "renamed", "configured", "deleted", or "changed". */
const char *oplog_act_collection_word(const struct oplog_entry *e);

/* OP_SEGMENT: the segment's id and its scope ("VECTOR"). Lent, NUL-terminated. */
void oplog_act_segment(const struct oplog_entry *e, const char **id, const char **scope);

/* The first id in the form of Chroma's (8-4-4-4-12 digits) in a text: 16 bytes. False: none. */
bool oplog_act_uuid(const char *text, uint8_t out[16]);

#endif
