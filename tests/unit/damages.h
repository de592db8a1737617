/* SPDX-License-Identifier: MIT
 *
 * Damages of the directory of chroma_fixture.h, and what becomes of each.
 */
#ifndef UNIT_DAMAGES_H
#define UNIT_DAMAGES_H

#include <stddef.h>

#include "chroma_fixture.h"

struct damage {
	void (*act)(struct chroma_fixture *f);
	const char *codes;	/* what check finds, in its order, each once */
	uint64_t records, bare; /* that export reads of it, and those of them without a vector */
	uint64_t left;		/* damage that recover leaves */
	uint64_t after, after_snapshot; /* records with their vectors, without and with one */
};

struct damages {
	const struct damage *list;
	size_t count;
};

extern const struct damages damages_of_segment, damages_of_rows, damages_of_database;

void damage_database_gone(struct chroma_fixture *f);
void damage_segment_gone(struct chroma_fixture *f);
void damage_folder_too_deep(struct chroma_fixture *f);
/* Its rows are all there; one of them has another vector for r3 than the index. */
void damage_queue_root(struct chroma_fixture *f);

#endif
