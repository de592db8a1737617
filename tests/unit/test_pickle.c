/* SPDX-License-Identifier: MIT
 *
 * The reader of index_metadata.pickle: both shapes, every way to be cut short, hostile ones.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "bytes.h"
#include "core/segment/pickle.h"

struct seen {
	uint64_t count[PICKLE_MAPS];
	int64_t sum[PICKLE_MAPS];
	char last[64];
	int answer;
};

static int note(void *context, enum pickle_map map, const char *id, size_t size, int64_t number)
{
	struct seen *s = context;

	s->count[map]++;
	s->sum[map] += number;
	snprintf(s->last, sizeof(s->last), "%.*s", (int)size, id);
	return s->answer;
}

static int read_index(const struct bytes *b, struct seen *s, struct pickle_index *out)
{
	struct file_source source;

	memset(s->count, 0, sizeof(s->count));
	memset(s->sum, 0, sizeof(s->sum));
	file_source_memory(&source, b->data, b->size);
	return pickle_read_index(&source, note, s, out);
}

/* ---- as Chroma >= 1.0 writes it ---- */

static void add_string(struct bytes *b, const char *s)
{
	bytes_text(b, "X");
	bytes_le(b, strlen(s), 4);
	bytes_text(b, s);
}

static void add_int(struct bytes *b, int64_t value)
{
	bytes_text(b, "J");
	bytes_le(b, (uint64_t)value, 4);
}

static void make_dict(struct bytes *b, unsigned elements)
{
	char id[16];
	unsigned i;

	bytes_add(b, "\x80\x03}(", 4);
	add_string(b, "dimensionality");
	bytes_text(b, "N");
	add_string(b, "total_elements_added");
	add_int(b, elements);
	add_string(b, "max_seq_id");
	bytes_text(b, "N");
	add_string(b, "id_to_label");
	bytes_text(b, "}(");
	for (i = 1; i <= elements; i++) {
		if (i % 1000 == 0)
			bytes_text(b, "u(");
		snprintf(id, sizeof(id), "id-%u", i);
		add_string(b, id);
		add_int(b, i);
	}
	bytes_text(b, "u");
	add_string(b, "label_to_id");
	bytes_text(b, "}(");
	for (i = 1; i <= elements; i++) {
		snprintf(id, sizeof(id), "id-%u", i);
		add_int(b, i);
		add_string(b, id);
	}
	bytes_text(b, "u");
	add_string(b, "id_to_seq_id");
	bytes_text(b, "}u.");
}

/* ---- as Chroma < 1.0 writes it: memoised, framed, an object ---- */

static void add_short(struct bytes *b, const char *s)
{
	bytes_le(b, 0x8c, 1);
	bytes_le(b, strlen(s), 1);
	bytes_text(b, s);
	bytes_le(b, 0x94, 1);
}

static void make_object(struct bytes *b)
{
	bytes_add(b, "\x80\x04\x95\0\0\0\0\0\0\0\0", 11);
	add_short(b, "chromadb.segment.impl.vector.local_persistent_hnsw"); /* memo 0 */
	add_short(b, "PersistentData");					    /* 1 */
	bytes_add(b, "\x93\x94)\x81\x94}\x94(", 8);			    /* 2 3 4 */
	add_short(b, "dimensionality");					    /* 5 */
	bytes_text(b, "M\x01\x03");
	add_short(b, "total_elements_added"); /* 6 */
	bytes_text(b, "K\x02");
	add_short(b, "id_to_label"); /* 7 */
	bytes_add(b, "}\x94(", 3);   /* 8 */
	add_short(b, "first");	     /* 9 */
	bytes_text(b, "K\x01");
	add_short(b, "second"); /* 10 */
	bytes_text(b, "K\x02u");
	add_short(b, "label_to_id"); /* 11 */
	bytes_add(b, "}\x94(K\x01h\x09K\x02j\x0a\0\0\0u", 15);
	add_short(b, "id_to_seq_id");			   /* 13 */
	bytes_add(b, "}\x94h\x09\x8a\x03\x01\0\x01s", 10); /* one item: SETITEM */
	bytes_text(b, "ub.");
}

static void test_dict(void **state)
{
	struct seen s = {0};
	struct pickle_index x;
	struct bytes b = {0};

	(void)state;
	make_dict(&b, 2500);
	assert_int_equal(read_index(&b, &s, &x), 0);
	assert_false(x.is_object);
	assert_false(x.has_dimension);
	assert_false(x.has_max_seq_id);
	assert_int_equal(x.protocol, 3);
	assert_int_equal(x.total_elements_added, 2500);
	assert_int_equal(x.pairs[PICKLE_ID_TO_LABEL], 2500);
	assert_int_equal(x.pairs[PICKLE_LABEL_TO_ID], 2500);
	assert_int_equal(x.pairs[PICKLE_ID_TO_SEQ_ID], 0);
	assert_int_equal(s.sum[PICKLE_LABEL_TO_ID], 2500 * 2501 / 2);
	assert_string_equal(s.last, "id-2500");
	assert_int_equal(x.end, b.size);
	bytes_free(&b);
}

static void test_object(void **state)
{
	struct seen s = {0};
	struct pickle_index x;
	struct bytes b = {0};

	(void)state;
	make_object(&b);
	assert_int_equal(read_index(&b, &s, &x), 0);
	assert_true(x.is_object);
	assert_int_equal(x.dimension, 769);
	assert_int_equal(x.total_elements_added, 2);
	assert_int_equal(s.count[PICKLE_ID_TO_LABEL], 2);
	assert_int_equal(s.count[PICKLE_LABEL_TO_ID], 2);
	assert_int_equal(s.sum[PICKLE_LABEL_TO_ID], 3);
	assert_int_equal(s.count[PICKLE_ID_TO_SEQ_ID], 1);
	assert_int_equal(s.sum[PICKLE_ID_TO_SEQ_ID], 65537);
	assert_string_equal(s.last, "first");
	bytes_free(&b);
}

/* Cut anywhere it is "cut short", never anything else, and never complete. */
static void test_cut(void **state)
{
	struct seen s = {0};
	struct pickle_index x;
	struct bytes b = {0}, cut;
	int shape;

	(void)state;
	for (shape = 0; shape < 2; shape++) {
		if (shape)
			make_dict(&b, 20);
		else
			make_object(&b);
		for (cut = b; cut.size-- > 0;) {
			cut.data = malloc(cut.size ? cut.size : 1); /* so that ASan sees the end */
			memcpy(cut.data, b.data, cut.size);
			assert_int_equal(read_index(&cut, &s, &x), -ENODATA);
			free(cut.data);
		}
		bytes_free(&b);
	}
}

static void test_callback_ends_reading(void **state)
{
	struct seen s = {.answer = 7};
	struct pickle_index x;
	struct bytes b = {0};

	(void)state;
	make_dict(&b, 20);
	assert_int_equal(read_index(&b, &s, &x), 7);
	assert_int_equal(s.count[PICKLE_ID_TO_LABEL], 1);
	bytes_free(&b);
}

static void expect(const char *data, size_t size, int error)
{
	struct seen s = {0};
	struct pickle_index x;
	struct bytes b = {0};

	bytes_add(&b, data, size);
	assert_int_equal(read_index(&b, &s, &x), error);
	bytes_free(&b);
}
#define EXPECT(literal, error) expect(literal, sizeof(literal) - 1, error)

static void test_hostile(void **state)
{
	struct bytes b = {0};
	int i;

	(void)state;
	EXPECT("PK\x03\x04", -EBADMSG);
	EXPECT("\x80\x63N.", -EPROTONOSUPPORT);
	EXPECT("\x80\x04N.", -EBADMSG); /* no dict */
	EXPECT("\x80\x03}.", -EBADMSG); /* no total */
	EXPECT("\x80\x04"
	       "cos\nsystem\n",
	       -EPROTONOSUPPORT); /* another class */
	EXPECT("\x80\x04\x8c\x02os\x8c\x06system\x93", -EPROTONOSUPPORT);
	EXPECT("\x80\x03R", -EPROTONOSUPPORT);	       /* REDUCE */
	EXPECT("\x80\x03X\xff\xff\xff\x7f", -ENODATA); /* longer than the file */
	EXPECT("\x80\x03\x8d\xff\xff\xff\xff\xff\xff\xff\xff", -ENODATA);
	EXPECT("\x80\x03\x8a\x09"
	       "123456789",
	       -EBADMSG);				/* 72-bit number */
	EXPECT("\x80\x03h\x05", -EBADMSG);		/* nothing memoised */
	EXPECT("\x80\x03Nr\xff\xff\xff\xff", -EBADMSG); /* memo with a gap */
	EXPECT("\x80\x03\x94", -EBADMSG);		/* nothing to memoise */
	EXPECT("\x80\x03us", -EBADMSG);
	EXPECT("\x80\x03}N(u", -EBADMSG);
	EXPECT("\x80\x03)\x81", -EBADMSG);
	EXPECT("\x80\x03"
	       "b",
	       -EBADMSG);

	bytes_add(&b, "\x80\x03", 2);
	for (i = 0; i < 100000; i++)
		bytes_text(&b, "}(");
	expect((char *)b.data, b.size, -EBADMSG); /* too deep */
	bytes_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_dict),    cmocka_unit_test(test_object),
	    cmocka_unit_test(test_cut),	    cmocka_unit_test(test_callback_ends_reading),
	    cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
