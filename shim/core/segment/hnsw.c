/* SPDX-License-Identifier: MIT
 *
 * Reader of hnswlib's segment files, and the rules they must keep.
 */
#include "core/segment/hnsw.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WINDOW_SIZE (256u << 10)
/* Chroma grows by a factor, 1.2 to 2; memory for all of it is asked for when the index is loaded.
 */
#define CAPACITY_MIN (UINT64_C(1) << 20)
#define GROWTH_MAX 1024

static void put_le32(unsigned char *p, uint32_t value)
{
	int i;

	for (i = 0; i < 4; i++)
		p[i] = (unsigned char)(value >> 8 * i);
}

static void put_le64(unsigned char *p, uint64_t value)
{
	put_le32(p, (uint32_t)value);
	put_le32(p + 4, (uint32_t)(value >> 32));
}

int hnsw_header_parse(struct hnsw_header *out, const void *data, size_t size)
{
	const unsigned char *p = data;
	uint64_t bits;

	if (size < HNSW_HEADER_SIZE)
		return -ENODATA;
	out->version = (int32_t)get_le32(p);
	out->level0_offset = get_le64(p + 4);
	out->capacity = get_le64(p + 12);
	out->count = get_le64(p + 20);
	out->stride = get_le64(p + 28);
	out->label_offset = get_le64(p + 36);
	out->vector_offset = get_le64(p + 44);
	out->max_level = (int32_t)get_le32(p + 52);
	out->entry_point = get_le32(p + 56);
	out->m_upper = get_le64(p + 60);
	out->m_level0 = get_le64(p + 68);
	out->m = get_le64(p + 76);
	bits = get_le64(p + 84);
	memcpy(&out->mult, &bits, sizeof(bits));
	out->ef_construction = get_le64(p + 92);
	return out->version == HNSW_VERSION ? 0 : -EPROTONOSUPPORT;
}

void hnsw_header_format(unsigned char out[HNSW_HEADER_SIZE], const struct hnsw_header *h)
{
	uint64_t bits;

	memcpy(&bits, &h->mult, sizeof(bits));
	put_le32(out, (uint32_t)h->version);
	put_le64(out + 4, h->level0_offset);
	put_le64(out + 12, h->capacity);
	put_le64(out + 20, h->count);
	put_le64(out + 28, h->stride);
	put_le64(out + 36, h->label_offset);
	put_le64(out + 44, h->vector_offset);
	put_le32(out + 52, (uint32_t)h->max_level);
	put_le32(out + 56, h->entry_point);
	put_le64(out + 60, h->m_upper);
	put_le64(out + 68, h->m_level0);
	put_le64(out + 76, h->m);
	put_le64(out + 84, bits);
	put_le64(out + 92, h->ef_construction);
}

static bool layout_is_sound(const struct hnsw_header *h)
{
	return h->level0_offset == 0 && h->m >= 1 && h->m <= HNSW_M_MAX && h->m_upper == h->m &&
	       h->m_level0 == 2 * h->m && h->vector_offset == 4 + 4 * h->m_level0 &&
	       h->label_offset > h->vector_offset &&
	       h->label_offset - h->vector_offset <= HNSW_DIMENSION_MAX * sizeof(float) &&
	       (h->label_offset - h->vector_offset) % sizeof(float) == 0 &&
	       h->stride == h->label_offset + sizeof(uint64_t);
}

static bool entry_is_sound(const struct hnsw_header *h)
{
	if (h->count == 0)
		return h->max_level == -1 && h->entry_point == HNSW_NO_ELEMENT;
	return h->max_level >= 0 && h->max_level < HNSW_LEVEL_MAX && h->entry_point < h->count;
}

static bool count_is_sound(const struct hnsw_header *h)
{
	return h->count <= h->capacity && h->count < HNSW_NO_ELEMENT &&
	       (h->capacity <= CAPACITY_MIN || h->capacity / GROWTH_MAX <= h->count);
}

unsigned hnsw_header_check(const struct hnsw_header *h)
{
	unsigned faults = 0;
	double mult = 1 / log((double)h->m);

	if (!layout_is_sound(h))
		faults |= HNSW_FAULT_LAYOUT;
	if (!count_is_sound(h))
		faults |= HNSW_FAULT_COUNT;
	if (!entry_is_sound(h))
		faults |= HNSW_FAULT_ENTRY;
	/* hnswlib is built with -Ofast: the last bits may differ; with M = 1 it is infinite. */
	if (h->m > 1 && !(fabs(h->mult - mult) <= 1e-6 * mult))
		faults |= HNSW_FAULT_MULT;
	if (h->ef_construction < h->m)
		faults |= HNSW_FAULT_EF;
	return faults;
}

int hnsw_header_read(int dirfd, struct hnsw_header *out)
{
	unsigned char raw[HNSW_HEADER_SIZE];
	int fd = file_open_at(dirfd, HNSW_HEADER_FILE), r;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = file_read_at(fd, raw, sizeof(raw), 0);
	close(fd);
	r = n < 0 ? (int)n : hnsw_header_parse(out, raw, (size_t)n);
	return r == 0 && hnsw_header_check(out) & HNSW_FAULT_LAYOUT ? -EBADMSG : r;
}

int hnsw_level0_open(struct hnsw_level0 *l, const struct hnsw_header *header,
		     const struct file_source *source)
{
	size_t capacity = WINDOW_SIZE;

	if (!layout_is_sound(header))
		return -EBADMSG;
	l->header = *header;
	if (capacity < 4 * header->stride)
		capacity = 4 * (size_t)header->stride;
	return file_window_open(&l->window, source, capacity);
}

void hnsw_level0_close(struct hnsw_level0 *l)
{
	file_window_close(&l->window);
}

uint64_t hnsw_level0_count(const struct hnsw_level0 *l)
{
	uint64_t whole = l->window.source->size / l->header.stride;

	return whole < l->header.count ? whole : l->header.count;
}

int hnsw_level0_get(struct hnsw_level0 *l, uint64_t i, struct hnsw_element *out)
{
	const unsigned char *p;
	int r;

	if (i >= hnsw_level0_count(l))
		return -ENODATA;
	r = file_window_get(&l->window, i * l->header.stride, (size_t)l->header.stride, &p);
	if (r < 0)
		return r;
	out->link_count = get_le16(p);
	out->deleted = p[2] & 1;
	out->links = p + 4;
	out->vector = p + l->header.vector_offset;
	out->label = get_le64(p + l->header.label_offset);
	return 0;
}

uint64_t hnsw_bad_links(const struct hnsw_header *h, const struct hnsw_element *e)
{
	uint64_t bad = 0;
	uint32_t i;

	if (e->link_count > h->m_level0)
		return 1;
	for (i = 0; i < e->link_count; i++)
		bad += get_le32(e->links + 4 * (size_t)i) >= h->count;
	return bad;
}

void hnsw_vector_copy(float *out, const struct hnsw_element *e, uint64_t dimension, float length)
{
	uint64_t i;

	memcpy(out, e->vector, (size_t)dimension * sizeof(float));
	if (length == 1.0f || length == 0.0f || !isfinite(length))
		return;
	for (i = 0; i < dimension; i++)
		out[i] *= length;
}

static double squares_of(const struct hnsw_element *e, uint64_t dimension)
{
	double squares = 0;
	uint64_t i;

	for (i = 0; i < dimension; i++) {
		float x;

		memcpy(&x, e->vector + i * sizeof(x), sizeof(x));
		squares += (double)x * (double)x;
	}
	return squares;
}

static bool is_unit(double squares)
{
	return squares > 0.999 && squares < 1.001;
}

/* The roots of the least and of the greatest sum of squares that a float holds. */
bool hnsw_is_length(float length)
{
	return length > 3e-23f && length < 2e19f;
}

enum hnsw_fit hnsw_fits_cosine(const struct hnsw_element *e, uint64_t dimension, float length)
{
	double squares = squares_of(e, dimension);

	if (!hnsw_is_length(length)) /* none but of such a vector, or of a tiny one */
		return is_unit(squares) ? HNSW_LENGTH_LOST : HNSW_FITS;
	return is_unit(squares) || length < 1e-12f ? HNSW_FITS : HNSW_VECTOR_LOST;
}

bool hnsw_was_divided(const struct hnsw_element *e, uint64_t dimension, float length)
{
	double squares = squares_of(e, dimension);

	return is_unit(squares) || (hnsw_is_length(length) && length != 1.0f &&
				    fabs(sqrt(squares) - (double)length) > 1e-3 * (double)length);
}

int hnsw_length_get(struct file_window *w, uint64_t i, float *out)
{
	const unsigned char *p;
	int r;

	if (i > UINT64_MAX / sizeof(float))
		return -ENODATA;
	r = file_window_get(w, i * sizeof(float), sizeof(float), &p);
	if (r == 0)
		memcpy(out, p, sizeof(float));
	return r;
}

/* The levels of each element, and the highest on which it is a neighbour. NULL: not known. */
struct levels {
	unsigned char *has, *wanted;
};

/* One entry's levels: each a count and M neighbours. */
static uint64_t count_bad_links(const struct hnsw_header *h, const struct levels *levels,
				const unsigned char *p, uint64_t size)
{
	uint64_t bad = 0, at, i;
	unsigned char level = 1;

	for (at = 0; at < size; at += hnsw_level_size(h), level++) {
		uint64_t links = get_le16(p + at);

		if (links > h->m_upper) {
			bad++;
			continue;
		}
		for (i = 0; i < links; i++) {
			uint64_t to = get_le32(p + at + 4 + 4 * i);

			if (to >= h->count)
				bad++;
			else if (levels->wanted && levels->wanted[to] < level)
				levels->wanted[to] = level;
		}
	}
	return bad;
}

static int walk_entry(const struct hnsw_header *h, struct file_window *w, uint64_t element,
		      const struct levels *levels, struct hnsw_links *out)
{
	const unsigned char *p;
	uint64_t size, level;
	int r = file_window_get(w, out->bytes, 4, &p);

	if (r < 0)
		return r;
	size = get_le32(p);
	level = size / hnsw_level_size(h);
	if (size % hnsw_level_size(h) != 0 || level >= HNSW_LEVEL_MAX)
		return -EBADMSG;
	r = file_window_get(w, out->bytes + 4, (size_t)size, &p);
	if (r < 0)
		return r;
	out->bad_links += count_bad_links(h, levels, p, size);
	if (levels->has && level)
		levels->has[element] = (unsigned char)level;
	if (level > out->levels)
		out->levels = (uint32_t)level;
	if (element == h->entry_point)
		out->entry_point_on_top = level == (uint64_t)h->max_level;
	out->bytes += 4 + size;
	out->entries++;
	return 0;
}

/* On a level that a neighbour does not have, Chroma follows a null pointer. */
static uint64_t count_missing_levels(const struct levels *levels, uint64_t count)
{
	uint64_t missing = 0, i;

	for (i = 0; levels->has && levels->wanted && i < count; i++)
		missing += levels->wanted[i] > levels->has[i];
	return missing;
}

int hnsw_links_walk(const struct hnsw_header *header, const struct file_source *source,
		    struct hnsw_links *out)
{
	struct levels levels = {0};
	struct file_window w;
	size_t capacity = WINDOW_SIZE;
	int r;

	*out = (struct hnsw_links){0};
	if (!layout_is_sound(header))
		return -EBADMSG;
	if (capacity < HNSW_LEVEL_MAX * hnsw_level_size(header))
		capacity = HNSW_LEVEL_MAX * (size_t)hnsw_level_size(header);
	r = file_window_open(&w, source, capacity);
	if (header->count <= source->size / 4) {
		levels.has = calloc(header->count ? header->count : 1, 1);
		levels.wanted = calloc(header->count ? header->count : 1, 1);
	}
	/* Every entry takes four bytes of a real file, so a hostile count ends with the file. */
	while (r == 0 && out->entries < header->count)
		r = walk_entry(header, &w, out->entries, &levels, out);
	if (r == 0)
		out->bad_links += count_missing_levels(&levels, header->count);
	free(levels.has);
	free(levels.wanted);
	file_window_close(&w);
	return r;
}
