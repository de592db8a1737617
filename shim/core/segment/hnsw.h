/* SPDX-License-Identifier: MIT
 *
 * The files of an HNSW segment as hnswlib writes them (persistence version 1, the same in every
 * Chroma from 0.4.0 on). Reader of header.bin, data_level0.bin, length.bin and link_lists.bin, and
 * the rules by which they must agree. Everything is little-endian and packed; there is no magic and
 * no checksum.
 *
 * header.bin, 100 bytes:
 *	  0 i32 version = 1            52 i32 highest level, -1 when empty
 *	  4 u64 offset of level 0 = 0  56 u32 entry point, 0xffffffff when empty
 *	 12 u64 capacity               60 u64 M (links above level 0)
 *	 20 u64 elements               68 u64 links at level 0 = 2 M
 *	 28 u64 stride                 76 u64 M
 *	 36 u64 label offset           84 f64 1 / ln(M)
 *	 44 u64 vector offset          92 u64 ef_construction
 *
 * data_level0.bin, element i at i * stride:
 *	u16 number of links, u8 bit 0 = deleted, u8 unused, 2M * u32 links, dim * f32 vector (of
 * unit length in cosine space), u64 label
 *
 * length.bin: one f32 per element, the norm the vector had; means something in cosine space only.
 *
 * link_lists.bin: per element a u32 byte count = level * (4 + 4 M), then that many bytes: per level
 *	u32 number of links, M * u32 links.
 *
 * What is no defect: a file size that does not follow the capacity, garbage behind the last
 * element, and four files at their initial size without a pickle, which is how a segment looks
 * until its first persist (the vectors are in the queue).
 *
 * Errors: -ENODATA cut short, -EBADMSG damaged, -EPROTONOSUPPORT another version.
 */
#ifndef CORE_HNSW_H
#define CORE_HNSW_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/fileio.h"

#define HNSW_HEADER_FILE "header.bin"
#define HNSW_LEVEL0_FILE "data_level0.bin"
#define HNSW_LENGTH_FILE "length.bin"
#define HNSW_LINKS_FILE "link_lists.bin"

#define HNSW_HEADER_SIZE 100u
#define HNSW_VERSION 1
#define HNSW_NO_ELEMENT UINT32_MAX
/* Bounds that make the arithmetic below safe; far above what Chroma can make. */
#define HNSW_DIMENSION_MAX (UINT64_C(1) << 20)
#define HNSW_M_MAX (UINT64_C(1) << 15)
#define HNSW_LEVEL_MAX 256

struct hnsw_header {
	int32_t version;
	uint64_t level0_offset;
	uint64_t capacity;
	uint64_t count; /* elements, deleted ones included */
	uint64_t stride;
	uint64_t label_offset;
	uint64_t vector_offset;
	int32_t max_level;
	uint32_t entry_point;
	uint64_t m_upper;
	uint64_t m_level0;
	uint64_t m;
	double mult;
	uint64_t ef_construction;
};

/* Which rule a header breaks; several at once are or-ed. */
enum hnsw_fault {
	HNSW_FAULT_LAYOUT = 1 << 0, /* M, offsets and stride do not belong together */
	/* more elements than capacity, or than labels can tell apart; room for absurdly many */
	HNSW_FAULT_COUNT = 1 << 1,
	HNSW_FAULT_ENTRY = 1 << 2, /* entry point or highest level impossible */
	HNSW_FAULT_MULT = 1 << 3,  /* not 1 / ln(M) */
	HNSW_FAULT_EF = 1 << 4,	   /* ef_construction below M, which hnswlib never makes */
};

/*
 * Reads the fields. -ENODATA: fewer than 100 bytes, -EPROTONOSUPPORT: version is not 1 (*out is
 * filled in all the same). The fields are not believed yet: hnsw_header_check().
 */
int hnsw_header_parse(struct hnsw_header *out, const void *data, size_t size);

/* Returns 0 or the faults. Without HNSW_FAULT_LAYOUT the elements can be read. */
unsigned hnsw_header_check(const struct hnsw_header *h);

/* Of a segment's directory. -EBADMSG: with HNSW_FAULT_LAYOUT. Also -errno of reading it. */
int hnsw_header_read(int dirfd, struct hnsw_header *out);

/* The 100 bytes again. */
void hnsw_header_format(unsigned char out[HNSW_HEADER_SIZE], const struct hnsw_header *h);

static inline uint64_t hnsw_dimension(const struct hnsw_header *h)
{
	return (h->label_offset - h->vector_offset) / sizeof(float);
}

/* Bytes of one level of an element in link_lists.bin. */
static inline uint64_t hnsw_level_size(const struct hnsw_header *h)
{
	return 4 + 4 * h->m_upper;
}

/* One element of data_level0.bin; the pointers are lent until the next call. */
struct hnsw_element {
	uint64_t label;
	bool deleted;
	uint32_t link_count;	     /* as stored: may exceed 2M in a damaged file */
	const unsigned char *links;  /* 2M * u32 */
	const unsigned char *vector; /* dimension * f32 */
};

struct hnsw_level0 {
	struct hnsw_header header;
	struct file_window window;
};

/* header must be without HNSW_FAULT_LAYOUT, else -EBADMSG. The source is lent. */
int hnsw_level0_open(struct hnsw_level0 *l, const struct hnsw_header *header,
		     const struct file_source *source);
void hnsw_level0_close(struct hnsw_level0 *l);

/* How many whole elements the file holds, which may be fewer than the header says. */
uint64_t hnsw_level0_count(const struct hnsw_level0 *l);

/* Element i < hnsw_level0_count(); -ENODATA beyond. */
int hnsw_level0_get(struct hnsw_level0 *l, uint64_t i, struct hnsw_element *out);

/* Neighbours on level 0 that are no element; more of them than there can be count as one. */
uint64_t hnsw_bad_links(const struct hnsw_header *h, const struct hnsw_element *e);

/*
 * What the client gave: the stored vector, times `length` in cosine space (length.bin; 1 when it
 * is 0, infinite or no number, which leaves the direction).
 */
void hnsw_vector_copy(float *out, const struct hnsw_element *e, uint64_t dimension, float length);

/*
 * In cosine space Chroma stores a vector divided by its length. What cannot come of that: another
 * stored length than 1, or no such length of what was given. Not of vectors so short that it is not
 * told, and of what never had one (zeros, infinities, no numbers).
 */
enum hnsw_fit {
	HNSW_FITS,
	HNSW_LENGTH_LOST, /* the direction is there */
	HNSW_VECTOR_LOST,
};
enum hnsw_fit hnsw_fits_cosine(const struct hnsw_element *e, uint64_t dimension, float length);
/* Of no vector of floats is it the length: the file holds something else there. */
bool hnsw_is_length(float length);
/* Whether its release divides by the length: the element shows it, or a length that is not its. */
bool hnsw_was_divided(const struct hnsw_element *e, uint64_t dimension, float length);

/* Entry i of length.bin. */
int hnsw_length_get(struct file_window *w, uint64_t i, float *out);

/* What a walk over link_lists.bin found. */
struct hnsw_links {
	uint64_t entries; /* good ones before the walk stopped */
	uint64_t bytes;	  /* that they take; the file may be longer */
	uint64_t
	    bad_links;	 /* neighbours that are no element or not on that level; too many of them */
	uint32_t levels; /* highest level of any element */
	bool entry_point_on_top;
};

/*
 * Walks the entries of header->count elements. 0, -ENODATA: the file ends early, -EBADMSG: an
 * entry's size is impossible; *out says how far it got.
 */
int hnsw_links_walk(const struct hnsw_header *header, const struct file_source *source,
		    struct hnsw_links *out);

#endif
