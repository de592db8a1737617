/* SPDX-License-Identifier: MIT
 *
 * Vectors of a cosine index, and the lengths that they had.
 */
#include "core/check/internal.h"

struct cosine {
	struct hnsw_level0 level0;
	struct file_window lengths;
	bool all; /* elements are looked at, or those whose length is odd */
	uint64_t asked, divided, lost, no_length;
};

static int look_at(struct cosine *c, uint64_t i)
{
	struct hnsw_element e;
	float length = 1;
	int r = hnsw_length_get(&c->lengths, i, &length);
	enum hnsw_fit fit;

	if (r < 0 || (!c->all && hnsw_is_length(length)))
		return r;
	r = hnsw_level0_get(&c->level0, i, &e);
	if (r < 0 || e.deleted)
		return r;
	fit = hnsw_fits_cosine(&e, hnsw_dimension(&c->level0.header), length);
	c->asked++;
	c->divided += fit != HNSW_VECTOR_LOST ||
		      hnsw_was_divided(&e, hnsw_dimension(&c->level0.header), length);
	c->lost += fit == HNSW_VECTOR_LOST;
	c->no_length += fit == HNSW_LENGTH_LOST;
	return 0;
}

/* None is told where most are otherwise: a release that is not known. */
void diagnose_cosine(struct diagnosis *d, struct diagnose_place level0,
		     struct diagnose_place lengths, const struct hnsw_header *h,
		     const struct file_source *level0_source,
		     const struct file_source *length_source)
{
	struct cosine c = {.all = d->options->full};
	uint64_t i;

	if (hnsw_level0_open(&c.level0, h, level0_source) < 0)
		return;
	if (file_window_open(&c.lengths, length_source, 64u << 10) == 0) {
		for (i = 0; i < h->count && look_at(&c, i) == 0; i++)
			;
		file_window_close(&c.lengths);
	}
	hnsw_level0_close(&c.level0);
	if (c.no_length)
		diagnose_report(d, DIAGNOSE_LENGTH_DAMAGED, lengths, "%llu of %llu",
				(unsigned long long)c.no_length, (unsigned long long)h->count);
	if (c.lost && 2 * c.divided > c.asked)
		diagnose_report(d, DIAGNOSE_VECTORS_DAMAGED, level0, "%llu of %llu",
				(unsigned long long)c.lost, (unsigned long long)h->count);
}
