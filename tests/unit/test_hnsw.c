/* SPDX-License-Identifier: MIT
 *
 * Segment files: header rules, elements, link lists; hostile counts and sizes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bytes.h"
#include "core/segment/hnsw.h"

#define DIM 3
#define COUNT 5

static struct hnsw_header sound(void)
{
	return (struct hnsw_header){
	    .version = 1,
	    .capacity = 100,
	    .count = COUNT,
	    .stride = 4 + 4 * 32 + 4 * DIM + 8,
	    .label_offset = 4 + 4 * 32 + 4 * DIM,
	    .vector_offset = 4 + 4 * 32,
	    .max_level = 1,
	    .entry_point = 2,
	    .m_upper = 16,
	    .m_level0 = 32,
	    .m = 16,
	    .mult = 1 / log(16),
	    .ef_construction = 100,
	};
}

/* Element i has label 10 + i, vector (i, 1, 2), and is deleted if i is 3. */
static void make_level0(struct bytes *b, const struct hnsw_header *h)
{
	float vector[DIM] = {0, 1, 2};
	unsigned i;

	for (i = 0; i < h->count; i++) {
		vector[0] = (float)i;
		bytes_le(b, 1, 2);
		bytes_le(b, i == 3, 1);
		bytes_le(b, 0, 1);
		for (unsigned j = 0; j < 32; j++)
			bytes_le(b, j ? 0xdeadbeef : (i + 1) % h->count, 4);
		bytes_add(b, vector, sizeof(vector));
		bytes_le(b, 10 + i, 8);
	}
}

/* Only element 2, the entry point, has an upper level. */
static void make_links(struct bytes *b, const struct hnsw_header *h)
{
	unsigned i, j;

	for (i = 0; i < h->count; i++) {
		bytes_le(b, i == 2 ? 68 : 0, 4);
		for (j = 0; i == 2 && j < 17; j++)
			bytes_le(b, j == 0 ? 1 : 2, 4);
	}
}

static void test_header(void **state)
{
	struct hnsw_header h = sound(), back;
	unsigned char raw[HNSW_HEADER_SIZE];

	(void)state;
	hnsw_header_format(raw, &h);
	assert_int_equal(hnsw_header_parse(&back, raw, sizeof(raw)), 0);
	assert_int_equal(hnsw_header_check(&back), 0);
	assert_int_equal(back.stride, h.stride);
	assert_int_equal(back.entry_point, 2);
	assert_true(back.mult == h.mult);
	assert_int_equal(hnsw_dimension(&back), DIM);
	assert_int_equal(hnsw_header_parse(&back, raw, 99), -ENODATA);
	raw[0] = 2;
	assert_int_equal(hnsw_header_parse(&back, raw, sizeof(raw)), -EPROTONOSUPPORT);
}

static void test_header_rules(void **state)
{
	struct hnsw_header h;

	(void)state;
#define BREAKS(field, value, fault) \
	h = sound();                \
	h.field = (value);          \
	assert_int_equal(hnsw_header_check(&h), fault)
	BREAKS(stride, UINT64_C(1) << 63, HNSW_FAULT_LAYOUT);
	BREAKS(label_offset, 0, HNSW_FAULT_LAYOUT);
	BREAKS(vector_offset, 0, HNSW_FAULT_LAYOUT);
	BREAKS(m_level0, 33, HNSW_FAULT_LAYOUT);
	BREAKS(level0_offset, 4, HNSW_FAULT_LAYOUT);
	BREAKS(count, UINT64_C(1) << 63, HNSW_FAULT_COUNT);
	BREAKS(count, 101, HNSW_FAULT_COUNT);
	BREAKS(entry_point, COUNT, HNSW_FAULT_ENTRY);
	BREAKS(max_level, -1, HNSW_FAULT_ENTRY);
	BREAKS(mult, 1, HNSW_FAULT_MULT);
	BREAKS(mult, (double)NAN, HNSW_FAULT_MULT);
	BREAKS(ef_construction, 0, HNSW_FAULT_EF);
	BREAKS(capacity, UINT64_C(1) << 40, HNSW_FAULT_COUNT);
	h = sound();
	h.m = h.m_upper = UINT64_C(1) << 62;
	assert_true(hnsw_header_check(&h) & HNSW_FAULT_LAYOUT);
	h = sound();
	h.count = 0; /* an index that never had an element */
	h.max_level = -1;
	h.entry_point = HNSW_NO_ELEMENT;
	assert_int_equal(hnsw_header_check(&h), 0);
}

static void test_elements(void **state)
{
	struct hnsw_header h = sound();
	struct hnsw_level0 l;
	struct hnsw_element e;
	struct file_source source;
	struct bytes b = {0};
	float v[DIM];

	(void)state;
	make_level0(&b, &h);
	file_source_memory(&source, b.data, b.size);
	assert_int_equal(hnsw_level0_open(&l, &h, &source), 0);
	assert_int_equal(hnsw_level0_count(&l), COUNT);
	assert_int_equal(hnsw_level0_get(&l, 3, &e), 0);
	assert_true(e.deleted);
	assert_int_equal(hnsw_level0_get(&l, 4, &e), 0);
	assert_false(e.deleted);
	assert_int_equal(e.label, 14);
	hnsw_vector_copy(v, &e, DIM, 2.0f);
	assert_true(v[0] == 8.0f && v[1] == 2.0f && v[2] == 4.0f);
	hnsw_vector_copy(v, &e, DIM, NAN);
	assert_true(v[0] == 4.0f);
	assert_int_equal(hnsw_level0_get(&l, COUNT, &e), -ENODATA);
	hnsw_level0_close(&l);

	source.size -= 1; /* the last element is cut */
	assert_int_equal(hnsw_level0_open(&l, &h, &source), 0);
	assert_int_equal(hnsw_level0_count(&l), COUNT - 1);
	hnsw_level0_close(&l);
	h.stride = 0;
	assert_int_equal(hnsw_level0_open(&l, &h, &source), -EBADMSG);
	bytes_free(&b);
}

static void test_links(void **state)
{
	struct hnsw_header h = sound();
	struct hnsw_links links;
	struct file_source source;
	struct bytes b = {0};

	(void)state;
	make_links(&b, &h);
	file_source_memory(&source, b.data, b.size);
	assert_int_equal(hnsw_links_walk(&h, &source, &links), 0);
	assert_int_equal(links.entries, COUNT);
	assert_int_equal(links.bytes, b.size);
	assert_int_equal(links.levels, 1);
	assert_int_equal(links.bad_links, 0);
	assert_true(links.entry_point_on_top);

	b.data[16] = 99; /* a neighbour that does not exist */
	assert_int_equal(hnsw_links_walk(&h, &source, &links), 0);
	assert_int_equal(links.bad_links, 1);
	b.data[16] = 0; /* one that has no such level */
	assert_int_equal(hnsw_links_walk(&h, &source, &links), 0);
	assert_int_equal(links.bad_links, 1);
	source.size--;
	assert_int_equal(hnsw_links_walk(&h, &source, &links), -ENODATA);
	assert_int_equal(links.entries, COUNT - 1);
	b.data[8] = 67; /* not a whole number of levels */
	assert_int_equal(hnsw_links_walk(&h, &source, &links), -EBADMSG);
	assert_int_equal(links.entries, 2);
	memset(b.data, 0xff, 4);
	assert_int_equal(hnsw_links_walk(&h, &source, &links), -EBADMSG);
	bytes_free(&b);
}

/* A file of 17 TB that holds nothing, and a header that believes in 2^32 - 2 elements. */
static void test_runaway(void **state)
{
	struct hnsw_header h = sound();
	struct hnsw_links links;
	struct file_source source;
	int fd = memfd_create("links", MFD_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, INT64_C(17) << 40), 0);
	assert_int_equal(pwrite(fd, "\xff\xff\xff\xff", 4, 4 * COUNT), 4);
	h.count = h.capacity = UINT32_MAX - 1;
	assert_int_equal(file_source_open(&source, fd), 0);
	assert_int_equal(hnsw_links_walk(&h, &source, &links), -EBADMSG);
	assert_int_equal(links.entries, COUNT);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_header),   cmocka_unit_test(test_header_rules),
	    cmocka_unit_test(test_elements), cmocka_unit_test(test_links),
	    cmocka_unit_test(test_runaway),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
