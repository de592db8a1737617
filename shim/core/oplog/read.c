/* SPDX-License-Identifier: MIT
 *
 * The op log, reading: one segment in memory.
 */
#include "core/oplog/read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/oplog/oplog.h"

bool oplog_op_has_two_names(unsigned op)
{
	switch (op) {
	case OP_RENAME:
	case OP_RENAMEAT:
	case OP_RENAMEAT2:
	case OP_LINK:
	case OP_LINKAT:
	case OP_SYMLINK:
	case OP_SYMLINKAT:
		return true;
	default:
		return false;
	}
}

const char *oplog_error_text(int error)
{
	switch (error) {
	case -ENODATA:
		return "it is empty";
	case -EMSGSIZE:
		return "it is cut off inside its header";
	case -EILSEQ:
		return "it is no op log segment";
	case -ENOTSUP:
		return "it comes from a machine with another byte order";
	case -EPROTONOSUPPORT:
		return "it was written by a newer version of chromashim";
	case -EBADMSG:
		return "its header is damaged";
	case -EINVAL:
		return "its header says what cannot be";
	case -EUCLEAN:
		return "its compressed data is damaged";
	case -ELOOP:
		return "it is a symbolic link, which is not followed";
	case -EISDIR:
		return "it is a directory";
	default:
		return strerror(-error);
	}
}

int oplog_header_read(const void *data, size_t size, struct oplog_header *h)
{
	memset(h, 0, sizeof(*h));
	if (size == 0)
		return -ENODATA;
	memcpy(h, data, size < sizeof(*h) ? size : sizeof(*h));
	if (size >= sizeof(h->magic) && h->magic == __builtin_bswap64(OPLOG_MAGIC))
		return -ENOTSUP;
	if (size >= sizeof(h->magic) && h->magic != OPLOG_MAGIC)
		return -EILSEQ;
	if (size < OPLOG_HEADER_SIZE)
		return -EMSGSIZE;
	if (h->version > OPLOG_VERSION)
		return -EPROTONOSUPPORT;
	if (h->check != oplog_header_check(h))
		return -EBADMSG;
	if (h->version < 2)
		h->life = h->dropped = 0;
	if (h->endian != OPLOG_ENDIAN)
		return -ENOTSUP;
	if (h->version == 0 || h->header_size != OPLOG_HEADER_SIZE ||
	    h->slot_size != OPLOG_SLOT_SIZE || h->capacity == 0 || h->capacity > OPLOG_CAPACITY_MAX)
		return -EINVAL;
	h->program[sizeof(h->program) - 1] = '\0';
	h->data_dir[sizeof(h->data_dir) - 1] = '\0';
	return 0;
}

static const void *slot_at(const struct oplog_image *image, uint32_t slot)
{
	return image->data + (size_t)slot * OPLOG_SLOT_SIZE;
}

/* ---- texts ---- */

static int reserve_text(struct oplog_image *image, size_t size)
{
	char *text;

	if (size <= image->text_room)
		return 0;
	text = realloc(image->text, size);
	if (!text)
		return -ENOMEM;
	image->text = text;
	image->text_room = size;
	return 0;
}

/* The texts after a slot, as far as they are sound, into image->text. Their size or -ENOMEM. */
static int collect_texts(struct oplog_image *image, uint32_t slot, unsigned count)
{
	size_t size = 0;
	unsigned part;

	if (reserve_text(image, (size_t)count * OPLOG_TEXT_BYTES + 1) < 0)
		return -ENOMEM;
	for (part = 0; part < count && slot + 1 + part < image->slots; part++) {
		uint32_t at = slot + 1 + part;
		struct oplog_text t;

		memcpy(&t, slot_at(image, at), sizeof(t));
		if (t.op != OP_TEXT || t.part != part || !t.check || t.size > OPLOG_TEXT_BYTES ||
		    t.check != oplog_slot_check(slot_at(image, at), at))
			break;
		memcpy(image->text + size, t.bytes, t.size);
		size += t.size;
	}
	image->text[size] = '\0';
	return (int)size;
}

/* ---- the index ---- */

static int compare_order(const void *a, const void *b)
{
	const struct oplog_order *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static int compare_names(const void *a, const void *b)
{
	const struct oplog_name_entry *x = a, *y = b;

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static void free_names(struct oplog_image *image)
{
	uint32_t i;

	for (i = 0; i < image->names_size; i++)
		free(image->names[i].text);
	free(image->names);
	image->names = NULL;
	image->names_size = 0;
}

enum slot_kind { SLOT_FREE, SLOT_DAMAGED, SLOT_TEXT, SLOT_NAME, SLOT_RECORD };

static enum slot_kind judge_slot(const struct oplog_image *image, uint32_t slot,
				 struct oplog_record *r)
{
	memcpy(r, slot_at(image, slot), sizeof(*r));
	if (r->check == 0 && r->op == 0)
		return SLOT_FREE;
	if (r->check && r->check != oplog_slot_check(slot_at(image, slot), slot))
		return SLOT_DAMAGED;
	if (r->op == OP_TEXT)
		return SLOT_TEXT;
	if (r->op == OP_NAME)
		return r->check ? SLOT_NAME : SLOT_FREE;
	return SLOT_RECORD;
}

static int add_name(struct oplog_image *image, uint32_t slot, const struct oplog_record *r)
{
	struct oplog_name_entry *n = &image->names[image->names_size];

	if (collect_texts(image, slot, r->texts) < 0)
		return -ENOMEM;
	n->number = r->file;
	n->slot = slot;
	n->kind = (uint8_t)r->arg;
	n->text = strdup(image->text);
	if (!n->text)
		return -ENOMEM;
	image->names_size++;
	return 0;
}

/* What each slot is, and how many records and names there are: each is judged once. */
static void judge_slots(struct oplog_image *image, unsigned char *kinds, uint32_t *names)
{
	struct oplog_record r;
	uint32_t slot;

	*names = image->records = image->damaged = image->in_flight = 0;
	for (slot = 0; slot < image->slots; slot++) {
		enum slot_kind kind = judge_slot(image, slot, &r);

		kinds[slot] = (unsigned char)kind;
		image->damaged += kind == SLOT_DAMAGED;
		*names += kind == SLOT_NAME;
		image->records += kind == SLOT_RECORD;
		image->in_flight += kind == SLOT_RECORD && !r.check;
	}
}

/* Slots are claimed in order of time, nearly: often there is nothing to sort. */
static void sort_records(struct oplog_image *image)
{
	uint32_t i;

	for (i = 1; i < image->order_size; i++)
		if (image->order[i].time < image->order[i - 1].time)
			break;
	if (i < image->order_size)
		qsort(image->order, image->order_size, sizeof(*image->order), compare_order);
}

static int fill_tables(struct oplog_image *image, const unsigned char *kinds)
{
	struct oplog_record r;
	uint32_t slot;

	for (slot = 0; slot < image->slots; slot++) {
		if (kinds[slot] != SLOT_NAME && kinds[slot] != SLOT_RECORD)
			continue;
		memcpy(&r, slot_at(image, slot), sizeof(r));
		if (kinds[slot] == SLOT_NAME && add_name(image, slot, &r) < 0)
			return -ENOMEM;
		if (kinds[slot] == SLOT_NAME)
			continue;
		image->order[image->order_size].time = r.time;
		image->order[image->order_size++].slot = slot;
	}
	sort_records(image);
	qsort(image->names, image->names_size, sizeof(*image->names), compare_names);
	return 0;
}

int oplog_image_index(struct oplog_image *image)
{
	unsigned char *kinds = malloc((size_t)image->slots + 1);
	uint32_t names;
	int r = -ENOMEM;

	free_names(image);
	free(image->order);
	image->order = NULL;
	image->order_size = 0;
	if (kinds) {
		judge_slots(image, kinds, &names);
		image->order = malloc(((size_t)image->records + 1) * sizeof(*image->order));
		image->names = malloc(((size_t)names + 1) * sizeof(*image->names));
		if (image->order && image->names)
			r = fill_tables(image, kinds);
	}
	free(kinds);
	return r;
}

int oplog_image_take(struct oplog_image *image, unsigned char *data, size_t size)
{
	size_t slots;
	int r;

	memset(image, 0, sizeof(*image));
	image->own = data;
	r = oplog_header_read(data, size, &image->header);
	if (r < 0)
		return r;
	slots = (size - OPLOG_HEADER_SIZE) / OPLOG_SLOT_SIZE;
	if (slots > image->header.capacity)
		slots = image->header.capacity;
	image->slots = (uint32_t)slots;
	image->missing = image->header.capacity - image->slots;
	image->data = data + OPLOG_HEADER_SIZE;
	return oplog_image_index(image);
}

int oplog_image_open(struct oplog_image *image, const void *data, size_t size)
{
	unsigned char *copy = malloc(size + 1);

	if (!copy) {
		memset(image, 0, sizeof(*image));
		return -ENOMEM;
	}
	memcpy(copy, data, size);
	return oplog_image_take(image, copy, size);
}

void oplog_image_close(struct oplog_image *image)
{
	free_names(image);
	free(image->order);
	free(image->own);
	free(image->text);
	memset(image, 0, sizeof(*image));
}

/* The name told last for a number, or NULL. */
static const struct oplog_name_entry *find_name(const struct oplog_image *image, uint64_t number)
{
	uint32_t low = 0, high = image->names_size;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (image->names[middle].number <= number)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || image->names[low - 1].number != number)
		return NULL;
	return &image->names[low - 1];
}

/* The texts end with the line that called Chroma, which is no part of what the record says. */
static void split_caller(char *text, struct oplog_entry *e)
{
	size_t size = e->text_size ? (unsigned char)text[e->text_size - 1] : 0;

	if (!size || size > OPLOG_CALLER_MAX || e->text_size < size + 2 ||
	    text[e->text_size - size - 2] != '\0')
		return;
	text[e->text_size - 1] = '\0';
	e->caller = text + e->text_size - size - 1;
	e->text_size -= size + 2;
}

int oplog_image_get(struct oplog_image *image, uint32_t n, struct oplog_entry *e)
{
	const struct oplog_name_entry *name;
	uint32_t slot = image->order[n].slot;
	struct oplog_record r;
	int size;

	memcpy(&r, slot_at(image, slot), sizeof(r));
	size = collect_texts(image, slot, r.check ? r.texts : 0);
	if (size < 0)
		return size;
	memset(e, 0, sizeof(*e));
	e->time = r.time - image->header.anchor_monotonic + image->header.anchor_realtime;
	e->duration = r.check ? r.duration : 0;
	e->offset = r.offset;
	e->length = r.length;
	e->result = r.check ? r.result : 0;
	e->arg = r.arg;
	e->tid = r.tid;
	e->file = r.file;
	e->slot = slot;
	e->op = r.op;
	e->flags = r.flags;
	e->in_flight = !r.check;
	e->text = image->text;
	e->text_size = (size_t)size;
	if (r.flags & OPLOG_F_CALLER && oplog_is_act(r.op))
		split_caller(image->text, e);
	e->header = &image->header;
	name = r.file ? find_name(image, r.file) : NULL;
	e->name = name ? name->text : NULL;
	e->kind = name ? name->kind : 0;
	name = oplog_op_has_two_names(r.op) && r.arg ? find_name(image, r.arg) : NULL;
	e->name2 = name ? name->text : NULL;
	return 0;
}
