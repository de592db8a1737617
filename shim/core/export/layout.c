/* SPDX-License-Identifier: MIT
 *
 * The header of a vector index that has lost it, from what the elements look like.
 *
 * Labels are handed out one by one, so none is above the last one, which the pickle tells, and
 * there are no more elements than that. An element's neighbours may lie beyond the end of a file
 * that was cut short: how many are left is no bound for them.
 */
#include <errno.h>
#include <math.h>

#include "core/export/internal.h"

#define M_TRIED 256
#define ELEMENTS_TRIED 64

static void lay_out(struct hnsw_header *h, uint64_t m, int64_t dimension, uint64_t size)
{
	*h = (struct hnsw_header){.version = HNSW_VERSION,
				  .m_upper = m,
				  .m_level0 = 2 * m,
				  .m = m,
				  .mult = m > 1 ? 1 / log((double)m) : 1,
				  .ef_construction = 100};
	h->vector_offset = 4 + 4 * h->m_level0;
	h->label_offset = h->vector_offset + (uint64_t)dimension * sizeof(float);
	h->stride = h->label_offset + sizeof(uint64_t);
	h->capacity = h->count = size / h->stride;
}

bool export_is_element(const struct hnsw_header *h, const struct hnsw_element *e, uint64_t most)
{
	uint32_t i;

	if (e->label == 0 || e->label > most || e->link_count > h->m_level0)
		return false;
	for (i = 0; i < e->link_count; i++)
		if (get_le32(e->links + 4 * (size_t)i) >= most)
			return false;
	return true;
}

/* Elements from the start that look like such, at most `tried`; with lenient, all among those. */
static uint64_t count_elements(const struct hnsw_header *h, const struct file_source *level0,
			       uint64_t tried, uint64_t most, bool lenient)
{
	struct hnsw_level0 l;
	struct hnsw_element e;
	uint64_t i, found = 0;

	if (hnsw_level0_open(&l, h, level0) < 0)
		return 0;
	for (i = 0; i < tried && hnsw_level0_get(&l, i, &e) == 0; i++) {
		if (export_is_element(h, &e, most))
			found++;
		else if (!lenient)
			break;
	}
	hnsw_level0_close(&l);
	return found;
}

int export_guess_header(struct hnsw_header *out, const struct file_source *level0,
			int64_t dimension, uint64_t last_label, uint64_t lengths)
{
	uint64_t m, n, found = 0, best = 0, most;
	struct hnsw_header h;

	if (dimension <= 0 || dimension > (int64_t)HNSW_DIMENSION_MAX)
		return -EBADMSG;
	for (m = 1; m <= M_TRIED; m++) {
		lay_out(&h, m, dimension, level0->size);
		most = last_label ? last_label : UINT32_MAX;
		n = count_elements(&h, level0, ELEMENTS_TRIED, most, last_label > 0);
		if (n > found || (n == found && m == 16)) {
			found = n;
			best = m;
		}
	}
	if (found == 0)
		return -EBADMSG;
	lay_out(out, best, dimension, level0->size);
	if (!last_label) { /* what is behind the last element is garbage */
		most = lengths > out->count ? lengths : out->count;
		out->count = count_elements(out, level0, out->count, most, false);
	} else if (out->count > last_label) {
		out->count = last_label;
	}
	return out->count ? 0 : -EBADMSG;
}
