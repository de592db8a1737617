/* SPDX-License-Identifier: MIT
 *
 * Records of the op log: claiming their slots, with the names that their segment has to know, and
 * sealing them. Inside the backend.
 */
#include <string.h>

#include "core/base/checksum.h"
#include "core/base/sys.h"
#include "core/oplog/segments.h"

/* Told in the last segment there is as well: another one may never come. */
static void count_lost(struct oplog_writer *w)
{
	struct oplog_segment *s = atomic_load_explicit(&w->current, memory_order_acquire);

	atomic_fetch_add_explicit(&w->lost, 1, memory_order_relaxed);
	if (s)
		__atomic_fetch_add(&__atomic_load_n(&s->header, __ATOMIC_RELAXED)->lost, 1,
				   __ATOMIC_RELAXED);
}

/* What is asked for: slots of a record and its texts, and before it names as they are needed. */
struct demand {
	uint32_t slots;
	const struct oplog_name *names;
	unsigned count;
	unsigned fresh; /* a bit for each that is not known to the segment */
};

/* Slots of a text; what is longer is cut. */
static uint32_t texts_of(size_t size)
{
	size_t texts = (size + OPLOG_TEXT_BYTES - 1) / OPLOG_TEXT_BYTES;

	return texts < OPLOG_TEXTS_MAX ? (uint32_t)texts : OPLOG_TEXTS_MAX;
}

static bool is_known(const struct oplog_name *name, uint32_t sequence)
{
	return (!name->number && !name->op) ||
	       (name->told &&
		atomic_load_explicit(name->told, memory_order_acquire) == sequence + 1);
}

/*
 * Slots of it all in the segment with that sequence: a name stands in each segment that has a
 * record with it, since the others may be gone when it is read.
 */
static uint32_t slots_in(struct demand *d, uint32_t sequence)
{
	uint32_t slots = d->slots;
	unsigned i;

	d->fresh = 0;
	for (i = 0; i < d->count; i++) {
		if (is_known(&d->names[i], sequence))
			continue;
		d->fresh |= 1u << i;
		slots += 1 + texts_of(d->names[i].length);
	}
	return slots;
}

/* One try in segment s, which has been entered. False: it is full. */
static bool claim_in(struct oplog_segment *s, uint32_t n, struct oplog_claim *claim, bool *due)
{
	uint32_t capacity = __atomic_load_n(&s->capacity, __ATOMIC_RELAXED);
	struct oplog_header *header = __atomic_load_n(&s->header, __ATOMIC_RELAXED);
	uint64_t index = __atomic_fetch_add(&header->claimed, n, __ATOMIC_ACQUIRE);
	/* when the next segment is made: not at once in a life that may be short */
	uint64_t early = capacity < OPLOG_CAPACITY / 8 ? capacity / 2 : capacity / 8;

	if (index + n > capacity)
		return false;
	oplog_segment_pass(s, index, n);
	claim->record = __atomic_load_n(&s->slots, __ATOMIC_RELAXED) + index;
	claim->index = (uint32_t)index;
	claim->segment = s;
	*due = index <= early && index + n > early;
	return true;
}

static void seal(void *slot, uint32_t index)
{
	__atomic_store_n((uint32_t *)slot, oplog_slot_check(slot, index), __ATOMIC_RELEASE);
}

/* What a record says, and what stands behind it. */
struct words {
	const char *text, *more;
	size_t size, more_size;
};

/* The next bytes of both, as many as fit into a slot. */
static size_t take_words(struct words *w, char *out)
{
	size_t n = w->size < OPLOG_TEXT_BYTES ? w->size : OPLOG_TEXT_BYTES, rest;

	if (n)
		memcpy(out, w->text, n);
	w->text += n;
	w->size -= n;
	rest = w->more_size < OPLOG_TEXT_BYTES - n ? w->more_size : OPLOG_TEXT_BYTES - n;
	if (rest)
		memcpy(out + n, w->more, rest);
	w->more += rest;
	w->more_size -= rest;
	return n + rest;
}

static void put_texts(struct oplog_claim claim, struct words words)
{
	uint8_t part;

	for (part = 0; part < claim.record->texts; part++) {
		struct oplog_text *t = (struct oplog_text *)(claim.record + 1 + part);

		t->size = (uint8_t)take_words(&words, t->bytes);
		t->part = part;
		t->op = OP_TEXT;
		seal(t, claim.index + 1 + part);
	}
}

/* The claim goes on to what is behind it. */
static void put_name(struct oplog_claim *claim, const struct oplog_name *name,
		     const struct oplog_record *for_whom)
{
	struct oplog_record *r = claim->record;

	r->texts = (uint8_t)texts_of(name->length);
	r->flags = name->length > OPLOG_TEXTS_MAX * OPLOG_TEXT_BYTES ? OPLOG_F_CUT : 0;
	r->time = for_whom->time ? for_whom->time : oplog_now();
	r->tid = for_whom->tid;
	r->file = name->number;
	r->offset = -1;
	r->length = name->length;
	r->arg = name->kind;
	r->op = name->op ? name->op : OP_NAME;
	put_texts(*claim, (struct words){.text = name->text, .size = name->length});
	seal(r, claim->index);
	if (name->told)
		atomic_store_explicit(name->told, claim->sequence + 1, memory_order_release);
	claim->index += 1 + r->texts;
	claim->record += 1 + r->texts;
}

/* What is claimed keeps its place until it is left. */
static struct oplog_claim claim_slots(struct oplog_writer *w, struct demand *d,
				      const struct oplog_record *for_whom)
{
	struct oplog_claim claim = {.record = NULL};
	bool due = false, advanced, claimed = false;
	int tries;
	unsigned i;

	for (tries = 0; tries < 16 && !claimed; tries++) {
		struct oplog_segment *s = atomic_load_explicit(&w->current, memory_order_acquire);

		if (s && !oplog_segment_enter(s, &claim.sequence))
			continue; /* it has gone on meanwhile */
		claimed = s && claim_in(s, slots_in(d, claim.sequence), &claim, &due);
		if (claimed)
			break;
		advanced = w->storefd && oplog_advance(w, s);
		if (s)
			oplog_segment_leave(s);
		if (!advanced)
			break;
	}
	if (!claimed)
		count_lost(w);
	else if (due)
		oplog_prepare_next(w);
	for (i = 0; claimed && i < d->count; i++)
		if (d->fresh & 1u << i)
			put_name(&claim, &d->names[i], for_whom);
	return claim;
}

struct oplog_claim oplog_begin(struct oplog_writer *w, const struct oplog_record *known,
			       const struct oplog_name *names, unsigned count)
{
	struct demand d = {.slots = 1, .names = names, .count = count};
	struct oplog_claim claim = claim_slots(w, &d, known);
	struct oplog_record *r = claim.record;

	if (!r)
		return claim;
	r->flags = known->flags;
	r->time = oplog_now();
	r->tid = known->tid;
	r->file = known->file;
	r->offset = known->offset;
	r->length = known->length;
	r->arg = known->arg;
	__atomic_store_n(&r->op, known->op, __ATOMIC_RELEASE);
	oplog_segment_leave(claim.segment);
	return claim;
}

/* The call may have taken so long that its segment's place has gone to another one. */
static bool enter_again(struct oplog_claim claim)
{
	uint32_t sequence;

	if (!claim.record || !oplog_segment_enter(claim.segment, &sequence))
		return false;
	if (sequence == claim.sequence)
		return true;
	oplog_segment_leave(claim.segment);
	return false;
}

void oplog_moved(struct oplog_claim claim, int64_t offset)
{
	if (!enter_again(claim))
		return;
	claim.record->offset = offset;
	oplog_segment_leave(claim.segment);
}

void oplog_end(struct oplog_claim claim, int64_t result)
{
	struct oplog_record *r = claim.record;

	/* A record that can no longer be reached stays in flight, which is what it was for long. */
	if (!enter_again(claim))
		return;
	r->duration = oplog_now() - r->time;
	r->result = result;
	seal(r, claim.index);
	oplog_segment_leave(claim.segment);
}

static uint32_t put_record(struct oplog_writer *w, const struct oplog_record *r, struct words words,
			   const struct oplog_name *names, unsigned count)
{
	size_t size = words.size + words.more_size;
	struct demand d = {.slots = 1 + texts_of(size), .names = names, .count = count};
	struct oplog_claim claim = claim_slots(w, &d, r);

	if (!claim.record)
		return 0;
	memcpy((char *)claim.record + sizeof(uint32_t), (const char *)r + sizeof(uint32_t),
	       sizeof(*r) - sizeof(uint32_t));
	claim.record->texts = (uint8_t)texts_of(size);
	if (size > OPLOG_TEXTS_MAX * OPLOG_TEXT_BYTES)
		claim.record->flags |= OPLOG_F_CUT;
	if (!claim.record->time)
		claim.record->time = oplog_now();
	put_texts(claim, words);
	seal(claim.record, claim.index);
	oplog_segment_leave(claim.segment);
	return claim.sequence + 1;
}

uint32_t oplog_put(struct oplog_writer *w, const struct oplog_record *r, const char *text,
		   size_t size, const struct oplog_name *names, unsigned count)
{
	return put_record(w, r, (struct words){.text = text, .size = size}, names, count);
}

uint32_t oplog_put_caller(struct oplog_writer *w, const struct oplog_record *r, const char *text,
			  size_t size, const char *caller, size_t caller_size,
			  const struct oplog_name *names, unsigned count)
{
	char tail[OPLOG_CALLER_MAX + 2] = "";
	struct words words = {
	    .text = text, .size = size, .more = tail, .more_size = caller_size + 2};
	struct oplog_record with = *r;

	if (!caller_size || caller_size > OPLOG_CALLER_MAX ||
	    size + words.more_size > (size_t)OPLOG_TEXTS_MAX * OPLOG_TEXT_BYTES)
		return oplog_put(w, r, text, size, names, count);
	memcpy(tail + 1, caller, caller_size);
	tail[1 + caller_size] = (char)(unsigned char)caller_size;
	with.flags |= OPLOG_F_CALLER;
	return put_record(w, &with, words, names, count);
}
