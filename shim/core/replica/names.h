/* SPDX-License-Identifier: MIT
 *
 * Names of the objects of a replica; see chromashim_replica.h.
 */
#ifndef CORE_REPLICA_NAMES_H
#define CORE_REPLICA_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chromashim_replica.h"

enum replica_folder { REPLICA_CONTROL, REPLICA_SNAPSHOTS, REPLICA_CHUNKS };
#define REPLICA_FOLDERS 3

/* The first three of the replica, the others of a snapshot. */
enum replica_mark {
	REPLICA_OWNER = 1,
	REPLICA_PRUNE,
	REPLICA_PRUNED,
	REPLICA_VERIFIED,
	REPLICA_HELD,
	REPLICA_RELEASED
};

/* A chunk in the replica: 32 bytes, as its name says. */
struct replica_chunk_name {
	unsigned char bytes[REPLICA_KEY_SIZE];
};

/* An object by its name, whatever it is. */
struct replica_name {
	enum replica_folder folder;
	enum replica_mark mark;		 /* of control */
	uint32_t epoch, line;		 /* of control and snapshots */
	uint64_t id, time;		 /* of snapshots, and of marks of one */
	uint32_t number;		 /* of HELD and RELEASED: the greatest counts */
	struct replica_chunk_name chunk; /* of chunks */
};

/* "control/…"; out as long as every name is. */
void replica_name_format(char out[REPLICA_NAME_SIZE], const struct replica_name *name);
/* Only what the former writes. */
bool replica_name_parse(struct replica_name *out, const char *text);

/* The newer snapshot is greater: by epoch, line, number. */
int replica_name_compare(const void *a, const void *b);

/* "control", "snapshots", "chunks" */
const char *replica_folder_name(enum replica_folder folder);

/*
 * A line of an answer to "what is there": `ls -ln` of sftp (is_sftp), else a size, a blank and a
 * path. True: an object of that folder, and its size.
 */
bool replica_listing_parse(const char *line, enum replica_folder folder, bool is_sftp,
			   struct replica_name *out, uint64_t *size_out);

#endif
