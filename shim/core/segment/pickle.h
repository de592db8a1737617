/* SPDX-License-Identifier: MIT
 *
 * Reader of index_metadata.pickle: which id has which label in an HNSW segment.
 *
 * Chroma < 1.0 pickles an object of class …PersistentData with protocol 4 or 5 (2 or 3 are read as
 * well), Chroma >= 1.0 a plain dict with protocol 3. Both hold
 *
 *	dimensionality		None (always so in >= 1.0) or int
 *	total_elements_added	int, the last label handed out; labels start at 1
 *	max_seq_id		None or int; only in files of <= 0.5.5 does it mean something
 *	id_to_label		{str: int}
 *	label_to_id		{int: str}, its inverse
 *	id_to_seq_id		{str: int}, empty in >= 1.0
 *
 * This is no general unpickler: it knows the opcodes that these files use, builds no objects and
 * calls nothing. Pairs are handed out as they are read. Memory: the longest id, and four bytes for
 * each memoised string, since label_to_id names the ids of id_to_label by number (protocol 4).
 */
#ifndef CORE_PICKLE_H
#define CORE_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/fileio.h"

#define PICKLE_FILE "index_metadata.pickle"
#define PICKLE_ID_MAX (16u << 20)	    /* bytes of an id */
#define PICKLE_MEMO_MAX (UINT32_C(1) << 27) /* memoised strings: 512 MiB of table */

enum pickle_map {
	PICKLE_ID_TO_LABEL,
	PICKLE_LABEL_TO_ID,
	PICKLE_ID_TO_SEQ_ID,
};
#define PICKLE_MAPS 3

struct pickle_index {
	int protocol;
	bool is_object; /* written by Chroma < 1.0, and readable by it */
	bool has_dimension;
	bool has_total;
	bool has_max_seq_id;
	int64_t dimension;
	int64_t total_elements_added;
	int64_t max_seq_id;
	uint64_t pairs[PICKLE_MAPS]; /* by enum pickle_map, repeated keys counted again */
	uint64_t end;		     /* offset behind the last opcode read */
};

/*
 * Called for every pair, in the file's order; id is UTF-8 as stored, lent, not terminated. A
 * result other than 0 ends the reading and is returned. May be NULL.
 */
typedef int pickle_pair_fn(void *context, enum pickle_map map, const char *id, size_t id_size,
			   int64_t number);

/*
 * Reads it from the first to the STOP opcode. 0, -ENODATA: cut short (pairs seen so far are good),
 * -EBADMSG: no such pickle, -EPROTONOSUPPORT: a protocol, opcode or class that Chroma does not use
 * here, -EFBIG: beyond the bounds above or 4 GiB, -ENOMEM, or what the source or `pair` returned.
 * *out is filled in as far as the reading got. What the numbers mean is not judged here.
 */
int pickle_read_index(const struct file_source *source, pickle_pair_fn *pair, void *context,
		      struct pickle_index *out);

#endif
