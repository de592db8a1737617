/* SPDX-License-Identifier: MIT
 *
 * Whether searches can find the elements of an index: a walk over the graph from its entry point.
 * On the upper levels everything counts as found, since a search comes down from them; so what is
 * called out of reach is. A few that are are normal.
 */
#include <stdlib.h>

#include "core/check/internal.h"

#define FEW 16 /* and a hundredth of all live ones: no news */

struct walk {
	struct hnsw_level0 level0;
	uint64_t count;
	unsigned char *seen; /* a bit for each element */
	uint32_t *todo;	     /* each is there once at most */
	uint64_t todo_count;
	uint64_t live, reached; /* live ones */
};

static void put(struct walk *w, uint64_t i)
{
	if (i >= w->count || w->seen[i / 8] & 1 << i % 8)
		return;
	w->seen[i / 8] |= (unsigned char)(1 << i % 8);
	w->todo[w->todo_count++] = (uint32_t)i;
}

/* Those that are on a level above the lowest. */
static void put_upper(struct walk *w, const struct file_source *links)
{
	const unsigned char *p;
	struct file_window window;
	uint64_t i, at = 0;

	if (file_window_open(&window, links, 64u << 10) < 0)
		return;
	for (i = 0; i < w->count && file_window_get(&window, at, 4, &p) == 0; i++) {
		if (get_le32(p))
			put(w, i);
		at += 4 + get_le32(p);
	}
	file_window_close(&window);
}

static void go(struct walk *w)
{
	struct hnsw_element e;
	uint32_t k;

	while (w->todo_count && hnsw_level0_get(&w->level0, w->todo[--w->todo_count], &e) == 0) {
		w->reached += !e.deleted;
		for (k = 0; k < e.link_count && k < w->level0.header.m_level0; k++)
			put(w, get_le32(e.links + 4 * (size_t)k));
	}
}

static void count_live(struct walk *w)
{
	struct hnsw_element e;
	uint64_t i;

	for (i = 0; i < w->count && hnsw_level0_get(&w->level0, i, &e) == 0; i++)
		w->live += !e.deleted;
}

static void graph_tell(struct diagnosis *d, struct diagnose_place place, const struct walk *w)
{
	uint64_t lost = w->live - w->reached, deleted = w->count - w->live;

	if (lost > FEW && lost * 100 > w->live)
		diagnose_report(d, DIAGNOSE_UNREACHABLE, place, "%llu of %llu live elements",
				(unsigned long long)lost, (unsigned long long)w->live);
	if (deleted > 1000 && deleted > w->live)
		diagnose_report(d, DIAGNOSE_INDEX_STALE, place, "%llu of %llu elements are deleted",
				(unsigned long long)deleted, (unsigned long long)w->count);
}

void diagnose_graph(struct diagnosis *d, struct diagnose_place place, const struct hnsw_header *h,
		    const struct file_source *level0, const struct file_source *links)
{
	struct walk w = {.count = 0};

	if (h->count == 0 || h->entry_point >= h->count ||
	    hnsw_level0_open(&w.level0, h, level0) < 0)
		return;
	w.count = hnsw_level0_count(&w.level0);
	w.seen = calloc(1, w.count / 8 + 1);
	w.todo = calloc(w.count + 1, sizeof(*w.todo));
	if (w.seen && w.todo && w.count == h->count) {
		count_live(&w);
		put(&w, h->entry_point);
		put_upper(&w, links);
		go(&w);
		graph_tell(d, place, &w);
	}
	free(w.seen);
	free(w.todo);
	hnsw_level0_close(&w.level0);
}
