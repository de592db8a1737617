/* SPDX-License-Identifier: MIT
 *
 * What is known here of each replica: a file for each in the store, replica/<place>/state, written
 * by whoever sends and read by whoever tells of it. Times are ns of CLOCK_REALTIME, 0: never.
 */
#ifndef CORE_REPLICA_STATE_H
#define CORE_REPLICA_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "core/replica/target.h"

#define REPLICA_DIR "replica" /* in the store */
#define REPLICA_PLACE_SIZE 17u
#define REPLICA_ERROR_SIZE 512u

struct replica_state {
	uint64_t snapshot;	/* the newest that is there in full, 0: none */
	uint64_t snapshot_time; /* when it was taken */
	uint64_t done;		/* when it was there in full */
	uint64_t tried;		/* when the last attempt began */
	uint64_t failed;	/* when the last attempt failed; 0: it has not */
	uint64_t failures;	/* how many in turn */
	uint64_t pending;	/* bytes that wait to be sent, as far as they are known */
	uint64_t snapshots;	/* how many this store has sent */
	uint64_t bytes;		/* what they took there */
	uint64_t line;		/* as whom this store sends: epoch << 32 | line, 0: not yet */
	uint64_t pruned;	/* the newest prune that is known of */
	uint64_t intent;	/* the snapshot whose manifest is being sent */
	char target[REPLICA_TARGET_SIZE];
	char error[REPLICA_ERROR_SIZE]; /* why the last attempt failed; "" */
};

/* The name of a replica's directory in replica/, told from what it is called. */
void replica_place(char out[REPLICA_PLACE_SIZE], const char *target);

/* 0; -ENOENT: nothing was ever tried; -EBADMSG: damaged, and as good as none; *out is then empty
 * but for the target. */
int replica_state_read(int storefd, const char *target, struct replica_state *out);
/* Whole or not at all. */
int replica_state_write(int storefd, const struct replica_state *state);

/* The content of such a file; -EBADMSG, -EPROTONOSUPPORT of a newer version. */
int replica_state_parse(struct replica_state *out, const void *data, size_t size);

#endif
