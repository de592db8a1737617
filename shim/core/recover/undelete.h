/* SPDX-License-Identifier: MIT
 *
 * What the parts of bringing a deleted collection back share; for recover_undelete*.c only.
 */
#ifndef CORE_RECOVER_UNDELETE_H
#define CORE_RECOVER_UNDELETE_H

#include "core/recover/internal.h"

struct undelete {
	struct recovery *r;
	const struct leftover *l;
	enum chroma_space space;
	bool is_lost; /* not deleted, as far as can be told: the database has lost it */
	sqlite3_stmt *put;
	/* of the new collection */
	char id[CHROMA_ID_SIZE], vector[CHROMA_ID_SIZE], metadata[CHROMA_ID_SIZE];
	char name[LEFTOVER_NAME_SIZE];
	char topic[sizeof(CHROMA_TOPIC_PREFIX) + CHROMA_ID_SIZE];
};

/* undelete.c: its own name and id if they are known and free; -EEXIST: the name that was asked for
 * is not. */
int recover_undelete_name(struct undelete *u, const char *asked);

/* undelete_rows.c, in the transaction of the caller: the collection with its settings, and its
 * segments. */
int recover_undelete_collection(struct undelete *u);
/*
 * Likewise, and its records from temp.back behind the queue.
 */
int recover_undelete_rows(struct undelete *u);

#endif
