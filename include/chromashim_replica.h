/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * A replica: snapshots of a store in another place, which only ever grows while it is sent to.
 *
 *	control/<epoch, 6 digits>-<line, 8 digits>.owner	who may send from then on
 *	control/<number, 6 digits>-<any, 8 digits>.prune	chunks are about to be removed
 *	control/<the same>.pruned				and have been
 *	control/<as a snapshot's>.verified			it was found good after it was sent
 *	control/<as a snapshot's>.held-<6 digits>		it is held; the greatest number of these
 *	control/<as a snapshot's>.released-<6 digits>		it is not held any more   counts
 *	snapshots/<epoch>-<line>-<snapshot, 12 digits>-<time, ns, 20 digits>	a manifest
 *	chunks/<2 digits>/<64 digits>				a chunk, or a second copy of a manifest
 *	….part							what was not sent to its end
 *
 * Epoch, number, snapshot and time are decimal, the rest is lower-case hexadecimal. Whoever begins
 * to send, or takes over, writes an owner with the next epoch and a line drawn at random; the newest
 * epoch counts, of two with the same the smaller line. Nothing is written over, and nothing removed
 * but by a prune.
 *
 * A manifest tells of holds and of its state when it was sent; what has changed since is told by
 * marks. A prune goes by both, and removes the marks of what it removes.
 *
 * A chunk is there before any manifest that names it. A prune writes its first mark before it looks
 * which chunks are needed, and the second when it is done. Who sends looks for marks before it sends
 * a manifest and after: chunks whose presence it only remembers are looked for again after a prune.
 *
 *	object  := struct replica_object, sealed | plain
 *	sealed  := u8[80] crypto_box_seal(key, to the public key), u8[24] header, piece*
 *	piece   := crypto_secretstream_xchacha20poly1305 of up to REPLICA_PIECE bytes of body; each but
 *		   the last is full, the last alone has the tag FINAL. Additional data: the struct and
 *		   the object's name as above
 *	plain   := body, u8[32] BLAKE2b of the struct, the name and the body
 *	body    := struct replica_body, content
 *	content := of a chunk, its file (chromashim_snapshot.h); of a manifest, struct replica_manifest
 *		   and its file
 *
 * The key of each object is its own, and whoever sends forgets it. The name of a chunk is BLAKE2b,
 * 32 bytes, keyed by the store's key of names, of its name in the store; without such a key (plain)
 * it is not keyed. The second copy of a manifest is called so by its name "snapshots/…". All numbers
 * are little-endian. A reader refuses a version greater than its own.
 */
#ifndef CHROMASHIM_REPLICA_H
#define CHROMASHIM_REPLICA_H

#include <stddef.h>
#include <stdint.h>

#define REPLICA_MAGIC UINT64_C(0x314a424f52534843) /* "CHSROBJ1" in memory */
#define REPLICA_CONTROL_MAGIC UINT64_C(0x314c544352534843) /* "CHSRCTL1" in memory */
#define REPLICA_VERSION 1u
#define REPLICA_PIECE (UINT32_C(64) << 10)
#define REPLICA_KEY_SIZE 32u
#define REPLICA_NAME_SIZE 96u /* of an object, with its terminating zero */

enum replica_form { REPLICA_SEALED = 1, REPLICA_PLAIN = 2 };
enum replica_type { REPLICA_CHUNK = 1, REPLICA_MANIFEST = 2 };

struct replica_object {
	uint64_t magic;
	uint32_t version;
	uint32_t form; /* enum replica_form */
};

struct replica_body {
	uint32_t type; /* enum replica_type */
	uint32_t reserved;
};

struct replica_manifest {
	uint8_t names[REPLICA_KEY_SIZE]; /* the key of names; zeros: none */
	char name[REPLICA_NAME_SIZE];	 /* "snapshots/…", zeros behind it */
};

/* All of a control object. */
struct replica_control {
	uint64_t magic;
	uint32_t version;
	uint32_t reserved;
	uint64_t time;	      /* ns, CLOCK_REALTIME */
	uint8_t store_id[16]; /* of an owner */
	char host[64];	      /* the machine, with zeros behind it */
	uint64_t check;	      /* XXH3-64, seed = magic, of all before it and the name */
};

_Static_assert(sizeof(struct replica_object) == 16, "layout is fixed");
_Static_assert(sizeof(struct replica_manifest) == 128, "layout is fixed");
_Static_assert(sizeof(struct replica_control) == 112, "layout is fixed");

#endif
