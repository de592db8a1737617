/* SPDX-License-Identifier: MIT
 *
 * Whether searches can find the elements of an index: a walk over the graph from its entry point.
 * On the upper levels everything counts as found, since a search comes down from them; so what is
 * called out of reach is. A few that are are normal.
 */
#include <stdlib.h>

#include "core/check/internal.h"

#define FEW 16	   /* and a hundredth of all live ones: no news */
#define SWEEPS 16u /* a real graph takes four or five */

struct walk {
	struct hnsw_level0 level0;
	uint64_t count;
	unsigned char *seen, *done; /* a bit for each element: met; and what it links to as well */
	uint32_t *todo;		    /* NULL: all that is seen and not done */
	uint64_t todo_count;
	uint64_t live, reached; /* live ones */
};

static void put(struct walk *w, uint64_t i)
{
	if (i >= w->count || w->seen[i / 8] & 1 << i % 8)
		return;
	w->seen[i / 8] |= (unsigned char)(1 << i % 8);
	if (w->todo)
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

static bool visit(struct walk *w, uint64_t i)
{
	struct hnsw_element e;
	uint32_t k;

	w->done[i / 8] |= (unsigned char)(1 << i % 8);
	if (hnsw_level0_get(&w->level0, i, &e) < 0)
		return false;
	w->reached += !e.deleted;
	for (k = 0; k < e.link_count && k < w->level0.header.m_level0; k++)
		put(w, get_le32(e.links + 4 * (size_t)k));
	return true;
}

/* From the first to the last: so a snapshot's chunks are each read once. True: there is more. */
static bool sweep(struct walk *w)
{
	uint64_t i;
	bool any = false;

	for (i = 0; i < w->count; i++) {
		if (i % 8 == 0 && w->seen[i / 8] == w->done[i / 8]) {
			i += 7;
			continue;
		}
		if (!((w->seen[i / 8] ^ w->done[i / 8]) & 1 << i % 8))
			continue;
		any = true;
		if (!visit(w, i))
			return false;
	}
	return any;
}

/* Along the links, in whatever order: for a graph that sweeps do not come to an end with. */
static bool follow(struct walk *w)
{
	uint64_t i;

	w->todo = calloc(w->count + 1, sizeof(*w->todo)); /* each is there once at most */
	for (i = 0; w->todo && i < w->count; i++)
		if ((w->seen[i / 8] ^ w->done[i / 8]) & 1 << i % 8)
			w->todo[w->todo_count++] = (uint32_t)i;
	while (w->todo_count && visit(w, w->todo[--w->todo_count]))
		;
	return w->todo;
}

/* False: out of memory. */
static bool go(struct walk *w)
{
	unsigned sweeps = 0;

	while (sweep(w))
		if (++sweeps == SWEEPS)
			return follow(w);
	return true;
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
	w.done = calloc(1, w.count / 8 + 1);
	if (w.seen && w.done && w.count == h->count) {
		count_live(&w);
		put(&w, h->entry_point);
		put_upper(&w, links);
		if (go(&w))
			graph_tell(d, place, &w);
	}
	free(w.seen);
	free(w.done);
	free(w.todo);
	hnsw_level0_close(&w.level0);
}
