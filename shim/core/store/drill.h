/* SPDX-License-Identifier: MIT
 *
 * What the last drill found: `drill` in the store, one struct in the machine's byte order, written
 * anew each time. A drill restores a snapshot to a scratch place, checks it, has it opened by
 * Chroma, and reads all chunks.
 */
#ifndef CORE_STORE_DRILL_H
#define CORE_STORE_DRILL_H

#include <stddef.h>
#include <stdint.h>

#define DRILL_NAME "drill"			 /* in the store */
#define DRILL_REPLICA_NAME "drill-replica"	 /* of one from a replica */
#define DRILL_MAGIC UINT64_C(0x4c4c495244534843) /* "CHSDRILL" in little-endian memory */
#define DRILL_VERSION 1u

enum drill_outcome {
	DRILL_GOOD = 1,
	DRILL_FAILED = 2,
	DRILL_SKIPPED = 3, /* it could not be tried: no room, no snapshot */
};

/* Times are ns of CLOCK_REALTIME, durations ns. */
struct drill_note {
	uint64_t magic;
	uint64_t check; /* of what follows */
	uint32_t version, outcome;
	uint64_t time;		/* when it ended */
	uint64_t good;		/* when the last good one ended, 0: there was none */
	uint64_t snapshot;	/* 0: none was chosen */
	uint64_t snapshot_time; /* when that was taken */
	uint64_t bytes;		/* that were restored */
	uint64_t restore_ns, check_ns, open_ns, read_ns;
	uint64_t chunks;   /* that were read, of all snapshots */
	uint64_t damaged;  /* of them */
	uint64_t records;  /* of the snapshot */
	uint64_t compared; /* of them, as Chroma gives them with as they are in the files */
	uint64_t failures; /* drills in turn that failed */
	uint64_t reserved[4];
	char chroma[32];   /* the release that opened it, "": none has */
	char trouble[400]; /* why it failed or was skipped, or was not opened; "": nothing */
};

/* 0; -ENOENT: there was none; -EBADMSG: damaged, -EPROTONOSUPPORT: of a newer version. *out is then
 * empty. */
int drill_note_read(int storefd, const char *name, struct drill_note *out);
/* Whole or not at all; magic, version and check are filled in. */
int drill_note_write(int storefd, const char *name, struct drill_note *note);
/* The file's content. */
int drill_note_parse(struct drill_note *out, const void *data, size_t size);

#endif
