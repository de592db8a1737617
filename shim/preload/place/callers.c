/* SPDX-License-Identifier: MIT */
#include "preload/place/callers.h"

#include <stdatomic.h>
#include <string.h>

#include "preload/base/shim.h"

#define CALLS 64u /* under way at once */
#define BUSY 1u	  /* being filled in */
#define ID_ROOM 40u

static struct call {
	_Atomic uint32_t token; /* 0: free */
	uint32_t records, size;
	uint8_t operation;
	char collection[ID_ROOM];
	char line[OPLOG_CALLER_MAX];
} calls[CALLS];

static _Atomic uint32_t serial;

/* The end of a line that is too long, which has the file's name and the number. */
static void fill_in(struct call *c, const char *line)
{
	size_t size = strlen(line), cut = size > OPLOG_CALLER_MAX ? size - OPLOG_CALLER_MAX : 0;

	while (cut && ((unsigned char)line[cut] & 0xc0) == 0x80)
		cut++;
	c->size = (uint32_t)(size - cut);
	memcpy(c->line, line + cut, c->size);
}

uint32_t callers_begin(const char *collection, unsigned operation, uint32_t records,
		       const char *line)
{
	uint32_t number = atomic_fetch_add(&serial, 1) % (UINT32_MAX / CALLS - 1) + 1, i;

	for (i = 0; i < CALLS; i++) {
		uint32_t place = (number + i) % CALLS, nobody = 0;
		struct call *c = &calls[place];

		if (!atomic_compare_exchange_strong(&c->token, &nobody, BUSY))
			continue;
		c->records = records;
		c->operation = (uint8_t)operation;
		memset(c->collection, 0, sizeof(c->collection));
		memcpy(c->collection, collection, strnlen(collection, ID_ROOM - 1));
		fill_in(c, line);
		atomic_store(&c->token, number * CALLS + place);
		return number * CALLS + place;
	}
	return 0;
}

void callers_end(uint32_t token)
{
	uint32_t expected = token;

	if (token > BUSY)
		atomic_compare_exchange_strong(&calls[token % CALLS].token, &expected, 0);
}

void callers_fork(void)
{
	unsigned i;

	for (i = 0; i < CALLS; i++)
		atomic_store(&calls[i].token, 0);
}

/* ---- which one ---- */

/* An act, as far as a call can be known by it. */
struct sought {
	const char *collection; /* NULL: any */
	int operation;		/* -1: any */
	uint32_t records;	/* 0: any */
	bool of_collection;	/* also calls that are of none yet */
};

static bool is_told_of(uint16_t op)
{
	switch (op) {
	case OP_RECORDS:
	case OP_PURGE:
	case OP_COLLECTION:
	case OP_PERSIST_COMMIT:
	case OP_PERSIST_ROLLBACK:
	case OP_SNAPSHOT_PIN:
	case OP_REFUSE_WRITER:
	case OP_REFUSE_SPACE:
	case OP_REFUSE_DESTROYER:
		return true;
	default:
		return false;
	}
}

/* Records that all came in the same way are one call's. */
static void seek_records(struct sought *s, const struct oplog_record *r, const char *text,
			 size_t size)
{
	struct oplog_records n;
	unsigned kinds = 0, i;

	if (size < sizeof(n))
		return;
	memcpy(&n, text, sizeof(n));
	for (i = 0; i < 4; i++) {
		const uint32_t counts[] = {n.added, n.updated, n.upserted, n.deleted};

		if (!counts[i])
			continue;
		kinds++;
		s->operation = (int)i;
	}
	if (kinds != 1 || n.other)
		s->operation = -1;
	else if (!n.more)
		s->records = (uint32_t)r->result;
}

/* Before Chroma 1.0 an id stands at the end of a topic's name. */
static bool has_end(const char *name, const char *id)
{
	size_t n = strlen(name), k = strnlen(id, ID_ROOM);

	return n >= k && memcmp(name + n - k, id, k) == 0;
}

static bool fits(const struct sought *s, const struct call *c)
{
	if (!c->collection[0])
		return s->of_collection || !s->collection;
	if (s->collection && !has_end(s->collection, c->collection))
		return false;
	if (s->operation >= 0 && c->operation != (unsigned)s->operation)
		return false;
	return !s->records || !c->records || s->records == c->records;
}

/* A copy of one that stayed the same meanwhile. */
static bool look_at(struct call *from, struct call *to)
{
	uint32_t token = atomic_load(&from->token);

	if (token <= BUSY)
		return false;
	memcpy((char *)to + sizeof(to->token), (const char *)from + sizeof(from->token),
	       sizeof(*to) - sizeof(to->token));
	/* Written, so that what was copied is read before it. */
	return atomic_fetch_or(&from->token, 0) == token && to->size &&
	       to->size <= OPLOG_CALLER_MAX;
}

void callers_find(const struct oplog_record *r, const char *collection, const char *text,
		  size_t size, struct caller *out)
{
	struct sought s = {
	    .collection = collection, .operation = -1, .of_collection = r->op != OP_RECORDS};
	struct call c;
	unsigned i;

	out->size = 0;
	if (!settings.log_caller || !is_told_of(r->op))
		return;
	if (r->op == OP_RECORDS)
		seek_records(&s, r, text, size);
	for (i = 0; i < CALLS; i++) {
		if (!look_at(&calls[i], &c) || !fits(&s, &c))
			continue;
		if (out->size && (out->size != c.size || memcmp(out->line, c.line, c.size) != 0)) {
			out->size = 0;
			return;
		}
		out->size = c.size;
		memcpy(out->line, c.line, c.size);
	}
}
