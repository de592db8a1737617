/* SPDX-License-Identifier: MIT
 *
 * What hnswlib has of an index in memory, as its files show it: which of several graphs on the same
 * files may be written, and how large a file can become.
 */
#ifndef PRELOAD_GRAPHS_H
#define PRELOAD_GRAPHS_H

#include "preload/place/change.h"

/*
 * A graph is loaded by opening the index's files for writing, and knows nothing of what another one
 * writes afterwards. So one may be written as long as no other has been written since it was
 * loaded; the others must not, whatever their order.
 */

/* One of the four files is opened for writing: whether a graph begins to be loaded by that. */
bool graph_loads(union slot s);
/* The same, afterwards: to which graph it belongs, for slot.object. */
uint8_t graph_opened(union slot s, int flags);
/* Another process is the writer, and one of the four was not opened for writing: hnswlib goes on
 * with streams that write nothing, as long as that graph is in memory. */
void graph_refused(union slot s);
/* Another process may have written since: none that is loaded may be written any more. */
void graphs_forget(unsigned protection);
/* Whether a write is that of a graph that is no longer up to date; or the pickle is about to be
 * written for one. */
bool graph_is_old(const struct change *c);
/* This thread has written the header of the segment, and not its pickle since. */
bool graph_is_persisted(const struct change *c);

/*
 * Whether a write makes the file larger than its index can need by the header that hnswlib wrote,
 * as it does before all else of a persist; the pickle, larger than the ids that there are. One
 * wrong length in memory is else written as many bytes.
 */
bool graph_outgrows(const struct change *c);

#endif
