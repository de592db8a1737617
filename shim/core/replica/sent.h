/* SPDX-License-Identifier: MIT
 *
 * Which chunks a replica has, by their names there: replica/<place>/sent in the store. It grows by
 * what was sent, and is made anew from a list of the replica when it may be wrong.
 */
#ifndef CORE_REPLICA_SENT_H
#define CORE_REPLICA_SENT_H

#include "core/replica/names.h"

/* Zeroed memory is an empty one. */
struct replica_sent {
	struct replica_chunk_name *slots; /* zeros: free */
	size_t room, count;		  /* room is a power of two */
	int fd;				  /* the file, -1: none */
};

/* Opens and reads it; `anew` begins an empty one. dirfd is replica/<place>. 1: there was none, or
 * it was damaged, and it is empty; 0 or -errno. */
int replica_sent_open(struct replica_sent *s, int dirfd, bool anew);
void replica_sent_close(struct replica_sent *s);

bool replica_sent_has(const struct replica_sent *s, const struct replica_chunk_name *name);
/* In memory only. -ENOMEM. */
int replica_sent_note(struct replica_sent *s, const struct replica_chunk_name *name);
/* And in the file, once all of them are there. */
int replica_sent_add(struct replica_sent *s, const struct replica_chunk_name *names, size_t count);

#endif
