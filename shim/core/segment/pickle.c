/* SPDX-License-Identifier: MIT
 *
 * A bounded reader of the two shapes of index_metadata.pickle.
 *
 * The pickle machine with its stack, except that pairs of the three maps never pile up on it: they
 * are handed out as soon as the value is there. The state dict itself has six entries, so a short
 * stack is enough for every real file and bounds the others.
 */
#include "core/segment/pickle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STACK_MAX 64
#define WINDOW_SIZE (64u << 10)
#define LINE_MAX_SIZE 256

enum opcode {
	OP_MARK = '(',
	OP_STOP = '.',
	OP_BININT = 'J',
	OP_BININT1 = 'K',
	OP_BININT2 = 'M',
	OP_NONE = 'N',
	OP_BINUNICODE = 'X',
	OP_BUILD = 'b',
	OP_GLOBAL = 'c',
	OP_BINGET = 'h',
	OP_LONG_BINGET = 'j',
	OP_BINPUT = 'q',
	OP_LONG_BINPUT = 'r',
	OP_SETITEM = 's',
	OP_SETITEMS = 'u',
	OP_EMPTY_DICT = '}',
	OP_EMPTY_TUPLE = ')',
	OP_PROTO = 0x80,
	OP_NEWOBJ = 0x81,
	OP_LONG1 = 0x8a,
	OP_SHORT_BINUNICODE = 0x8c,
	OP_BINUNICODE8 = 0x8d,
	OP_STACK_GLOBAL = 0x93,
	OP_MEMOIZE = 0x94,
	OP_FRAME = 0x95,
};

enum kind { NONE, INT, STRING, DICT, MARK, TUPLE, CLASS, OBJECT };

enum field { OTHER, DIMENSION, TOTAL, MAX_SEQ_ID, ID_TO_LABEL, LABEL_TO_ID, ID_TO_SEQ_ID };

static const char *const field_names[] = {
    [DIMENSION] = "dimensionality", [TOTAL] = "total_elements_added",
    [MAX_SEQ_ID] = "max_seq_id",    [ID_TO_LABEL] = "id_to_label",
    [LABEL_TO_ID] = "label_to_id",  [ID_TO_SEQ_ID] = "id_to_seq_id",
};

struct value {
	enum kind kind;
	enum field field; /* of a string: the name it is; of a dict: the field whose value it is */
	int64_t number;	  /* of an int; of a string: its serial */
};

struct reader {
	struct file_window window, back; /* going forward; for strings fetched from the memo */
	uint64_t at;
	pickle_pair_fn *pair;
	void *context;
	struct pickle_index *out;
	struct value stack[STACK_MAX];
	unsigned depth;
	bool has_state; /* the first dict has been made */
	char *text;	/* of the newest string */
	size_t text_size, text_room;
	int64_t serial;	    /* of the newest string */
	uint64_t string_at; /* offset of its opcode, 0 if the top is no string */
	uint32_t *memo;	    /* opcode offsets of strings, 0 for anything else */
	size_t memo_count, memo_room;
};

/* ---- reading operands ---- */

static int pickle_take(struct reader *r, size_t n, const unsigned char **out)
{
	int ret = file_window_get(&r->window, r->at, n, out);

	if (ret == 0)
		r->at += n;
	return ret;
}

static int text_reserve(struct reader *r, uint64_t size)
{
	char *more;

	if (size > PICKLE_ID_MAX)
		return -EFBIG;
	if (size <= r->text_room)
		return 0;
	more = realloc(r->text, (size_t)size);
	if (!more)
		return -ENOMEM;
	r->text = more;
	r->text_room = (size_t)size;
	return 0;
}

/* The string whose opcode is at *at: its text goes to r->text, and *at moves behind it. */
static int load_string(struct reader *r, struct file_window *w, uint64_t *at)
{
	const unsigned char *p;
	uint64_t size, done, width;
	int ret = file_window_get(w, *at, 1, &p);

	if (ret < 0)
		return ret;
	width = *p == OP_SHORT_BINUNICODE ? 1 : *p == OP_BINUNICODE8 ? 8 : 4;
	ret = file_window_get(w, *at + 1, (size_t)width, &p);
	if (ret < 0)
		return ret;
	size = width == 1 ? *p : width == 4 ? get_le32(p) : get_le64(p);
	*at += 1 + width;
	if (size > w->source->size - *at)
		return -ENODATA;
	ret = text_reserve(r, size);
	for (done = 0; ret == 0 && done < size;) {
		size_t n = size - done < WINDOW_SIZE / 2 ? (size_t)(size - done) : WINDOW_SIZE / 2;

		ret = file_window_get(w, *at + done, n, &p);
		if (ret == 0)
			memcpy(r->text + done, p, n);
		done += n;
	}
	if (ret < 0)
		return ret;
	r->text_size = (size_t)size;
	*at += size;
	return 0;
}

/* Little-endian two's complement of n bytes; a number of more than 8 is none of Chroma's. */
static int take_integer(struct reader *r, size_t n, bool is_signed, int64_t *out)
{
	const unsigned char *p;
	uint64_t value = 0;
	size_t i;
	int ret;

	if (n > 8)
		return -EBADMSG;
	ret = pickle_take(r, n, &p);
	if (ret < 0)
		return ret;
	for (i = 0; i < n; i++)
		value |= (uint64_t)p[i] << 8 * i;
	if (is_signed && n > 0 && n < 8 && p[n - 1] & 0x80)
		value |= UINT64_MAX << 8 * n;
	*out = (int64_t)value;
	return 0;
}

static int skip_line(struct reader *r, char line[LINE_MAX_SIZE])
{
	const unsigned char *p;
	size_t n = 0;
	int ret;

	while ((ret = pickle_take(r, 1, &p)) == 0 && *p != '\n') {
		if (n == LINE_MAX_SIZE - 1)
			return -EBADMSG;
		line[n++] = (char)*p;
	}
	line[n] = '\0';
	return ret;
}

/* ---- the stack ---- */

static struct value *top(struct reader *r, unsigned down)
{
	return down < r->depth ? &r->stack[r->depth - 1 - down] : NULL;
}

static bool top_is(struct reader *r, unsigned down, enum kind kind)
{
	const struct value *v = top(r, down);

	return v && v->kind == kind;
}

static bool is_map(const struct value *v)
{
	return v->kind == DICT && v->field >= ID_TO_LABEL;
}

static int emit(struct reader *r, enum field field, const struct value *key,
		const struct value *value)
{
	enum pickle_map map = (enum pickle_map)(field - ID_TO_LABEL);
	const struct value *string = field == LABEL_TO_ID ? value : key;
	const struct value *number = field == LABEL_TO_ID ? key : value;

	/* The text kept is the newest string's; in a pair there is only one. */
	if (string->kind != STRING || number->kind != INT || string->number != r->serial)
		return -EBADMSG;
	r->out->pairs[map]++;
	return r->pair
		   ? r->pair(r->context, map, r->text ? r->text : "", r->text_size, number->number)
		   : 0;
}

static int pickle_push(struct reader *r, struct value v)
{
	struct value *key = top(r, 0), *map = top(r, 2);

	/* map MARK key + value: out it goes, and MARK is on top again */
	if (map && is_map(map) && top_is(r, 1, MARK)) {
		r->depth--;
		return emit(r, map->field, key, &v);
	}
	if (r->depth == STACK_MAX)
		return -EBADMSG;
	r->stack[r->depth++] = v;
	return 0;
}

static int push_kind(struct reader *r, enum kind kind)
{
	return pickle_push(r, (struct value){.kind = kind});
}

static int push_string(struct reader *r)
{
	struct value v = {.kind = STRING, .number = ++r->serial};
	unsigned i;

	for (i = DIMENSION; i <= ID_TO_SEQ_ID; i++)
		if (strlen(field_names[i]) == r->text_size &&
		    memcmp(field_names[i], r->text, r->text_size) == 0)
			v.field = (enum field)i;
	return pickle_push(r, v);
}

static int push_dict(struct reader *r)
{
	struct value v = {.kind = DICT};
	const struct value *key = top(r, 0);

	if (r->has_state && key && key->kind == STRING)
		v.field = key->field;
	r->has_state = true;
	if (r->depth >= 3 && top_is(r, 1, MARK) && is_map(top(r, 2)))
		return -EBADMSG; /* a dict as a label */
	return pickle_push(r, v);
}

/* ---- the memo ---- */

static int memo_put(struct reader *r, uint64_t index)
{
	if (index == r->memo_count && r->memo_count == r->memo_room) {
		size_t room = r->memo_room ? 2 * r->memo_room : 1024;
		uint32_t *more;

		if (room > PICKLE_MEMO_MAX)
			return -EFBIG;
		more = realloc(r->memo, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->memo = more;
		r->memo_room = room;
	}
	/* Both picklers number in order; a gap would let a small file ask for a huge table. */
	if (index > r->memo_count || r->depth == 0)
		return -EBADMSG;
	r->memo[index] = (uint32_t)r->string_at;
	r->memo_count += index == r->memo_count;
	return 0;
}

static int memo_get(struct reader *r, uint64_t index)
{
	uint64_t at;
	int ret;

	if (index >= r->memo_count || !r->memo[index])
		return -EBADMSG;
	at = r->memo[index];
	ret = load_string(r, &r->back, &at);
	return ret < 0 ? ret : push_string(r);
}

/* ---- building ---- */

static int set_scalar(struct reader *r, enum field field, const struct value *v)
{
	struct pickle_index *out = r->out;

	if (field == OTHER)
		return 0;
	if (field >= ID_TO_LABEL)
		return v->kind == DICT ? 0 : -EBADMSG;
	if (v->kind == NONE && field != TOTAL)
		return 0;
	if (v->kind != INT)
		return -EBADMSG;
	if (field == DIMENSION) {
		out->has_dimension = true;
		out->dimension = v->number;
	} else if (field == TOTAL) {
		out->has_total = true;
		out->total_elements_added = v->number;
	} else {
		out->has_max_seq_id = true;
		out->max_seq_id = v->number;
	}
	return 0;
}

static int set_pair(struct reader *r, const struct value *dict, const struct value *key,
		    const struct value *value)
{
	if (is_map(dict))
		return emit(r, dict->field, key, value);
	return key->kind == STRING ? set_scalar(r, key->field, value) : -EBADMSG;
}

static int set_item(struct reader *r)
{
	int ret;

	if (!top_is(r, 2, DICT))
		return -EBADMSG;
	ret = set_pair(r, top(r, 2), top(r, 1), top(r, 0));
	r->depth -= 2;
	return ret;
}

/* dict MARK (key value)*; those of a map have been handed out already */
static int set_items(struct reader *r)
{
	unsigned mark = r->depth, i;
	int ret = 0;

	while (mark > 0 && r->stack[mark - 1].kind != MARK)
		mark--;
	if (mark < 2 || r->stack[mark - 2].kind != DICT || (r->depth - mark) % 2)
		return -EBADMSG;
	for (i = mark; ret == 0 && i < r->depth; i += 2)
		ret = set_pair(r, &r->stack[mark - 2], &r->stack[i], &r->stack[i + 1]);
	r->depth = mark - 1;
	return ret;
}

static int check_class(const char *name, size_t size)
{
	static const char expected[] = "PersistentData";

	if (size != sizeof(expected) - 1 || memcmp(name, expected, size) != 0)
		return -EPROTONOSUPPORT;
	return 0;
}

static int stack_global(struct reader *r)
{
	int ret;

	if (!top_is(r, 0, STRING) || !top_is(r, 1, STRING) || top(r, 0)->number != r->serial)
		return -EBADMSG;
	ret = check_class(r->text, r->text_size);
	r->depth -= 2;
	return ret < 0 ? ret : push_kind(r, CLASS);
}

static int global(struct reader *r)
{
	char line[LINE_MAX_SIZE];
	int ret = skip_line(r, line);

	if (ret == 0)
		ret = skip_line(r, line);
	if (ret == 0)
		ret = check_class(line, strlen(line));
	return ret < 0 ? ret : push_kind(r, CLASS);
}

static int new_object(struct reader *r)
{
	if (!top_is(r, 0, TUPLE) || !top_is(r, 1, CLASS))
		return -EBADMSG;
	r->depth -= 2;
	return push_kind(r, OBJECT);
}

static int build(struct reader *r)
{
	if (!top_is(r, 0, DICT) || !top_is(r, 1, OBJECT))
		return -EBADMSG;
	r->depth--;
	return 0;
}

/* ---- the machine ---- */

static int do_integer(struct reader *r, unsigned char op)
{
	struct value v = {.kind = INT};
	int64_t size = 0;
	int ret = 0;

	if (op == OP_LONG1)
		ret = take_integer(r, 1, false, &size);
	if (ret == 0)
		ret = op == OP_LONG1	 ? take_integer(r, (size_t)size, true, &v.number)
		      : op == OP_BININT	 ? take_integer(r, 4, true, &v.number)
		      : op == OP_BININT2 ? take_integer(r, 2, false, &v.number)
					 : take_integer(r, 1, false, &v.number);
	return ret < 0 ? ret : pickle_push(r, v);
}

static int do_memo(struct reader *r, unsigned char op)
{
	bool is_long = op == OP_LONG_BINPUT || op == OP_LONG_BINGET;
	int64_t index = (int64_t)r->memo_count;
	int ret = 0;

	if (op != OP_MEMOIZE)
		ret = take_integer(r, is_long ? 4 : 1, false, &index);
	if (ret < 0)
		return ret;
	if (op == OP_BINGET || op == OP_LONG_BINGET)
		return memo_get(r, (uint64_t)index);
	return memo_put(r, (uint64_t)index);
}

static int do_string(struct reader *r)
{
	uint64_t at = r->at - 1;
	int ret;

	r->string_at = at;
	ret = load_string(r, &r->window, &at);
	r->at = at;
	return ret < 0 ? ret : push_string(r);
}

static int do_protocol(struct reader *r)
{
	int64_t protocol;
	int ret = take_integer(r, 1, false, &protocol);

	if (ret < 0)
		return ret;
	r->out->protocol = (int)protocol;
	return protocol >= 2 && protocol <= 5 ? 0 : -EPROTONOSUPPORT;
}

static int pickle_step(struct reader *r, unsigned char op)
{
	int64_t ignored;

	switch (op) {
	case OP_BINUNICODE:
	case OP_SHORT_BINUNICODE:
	case OP_BINUNICODE8:
		return do_string(r);
	case OP_BININT:
	case OP_BININT1:
	case OP_BININT2:
	case OP_LONG1:
		return do_integer(r, op);
	case OP_MEMOIZE:
	case OP_BINPUT:
	case OP_LONG_BINPUT:
	case OP_BINGET:
	case OP_LONG_BINGET:
		return do_memo(r, op);
	case OP_NONE:
		return push_kind(r, NONE);
	case OP_EMPTY_TUPLE:
		return push_kind(r, TUPLE);
	case OP_EMPTY_DICT:
		return push_dict(r);
	case OP_MARK:
		return push_kind(r, MARK);
	case OP_SETITEM:
		return set_item(r);
	case OP_SETITEMS:
		return set_items(r);
	case OP_FRAME:
		return take_integer(r, 8, false, &ignored);
	case OP_STACK_GLOBAL:
		return stack_global(r);
	case OP_GLOBAL:
		return global(r);
	case OP_NEWOBJ:
		return new_object(r);
	case OP_BUILD:
		return build(r);
	default:
		return -EPROTONOSUPPORT;
	}
}

static bool is_memo(unsigned char op)
{
	return op == OP_MEMOIZE || op == OP_BINPUT || op == OP_LONG_BINPUT;
}

static int pickle_finish(struct reader *r)
{
	if (r->depth != 1 || !r->has_state || !r->out->has_total)
		return -EBADMSG;
	r->out->is_object = top_is(r, 0, OBJECT);
	return r->out->is_object || top_is(r, 0, DICT) ? 0 : -EBADMSG;
}

static int pickle_run(struct reader *r)
{
	const unsigned char *p;
	unsigned char op = 0;
	int ret = pickle_take(r, 1, &p);

	if (ret == 0)
		ret = *p == OP_PROTO ? do_protocol(r) : -EBADMSG;
	while (ret == 0) {
		ret = pickle_take(r, 1, &p);
		if (ret < 0)
			break;
		op = *p;
		if (op == OP_STOP)
			return pickle_finish(r);
		if (!is_memo(op))
			r->string_at = 0;
		ret = pickle_step(r, op);
	}
	return ret;
}

int pickle_read_index(const struct file_source *source, pickle_pair_fn *pair, void *context,
		      struct pickle_index *out)
{
	struct reader *r;
	int ret;

	*out = (struct pickle_index){0};
	if (source->size > UINT32_MAX)
		return -EFBIG;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->pair = pair;
	r->context = context;
	r->out = out;
	ret = file_window_open(&r->window, source, WINDOW_SIZE);
	if (ret == 0)
		ret = file_window_open(&r->back, source, WINDOW_SIZE);
	if (ret == 0)
		ret = pickle_run(r);
	out->end = r->at;
	file_window_close(&r->window);
	file_window_close(&r->back);
	free(r->text);
	free(r->memo);
	free(r);
	return ret;
}
