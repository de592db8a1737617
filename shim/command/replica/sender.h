/* SPDX-License-Identifier: MIT
 *
 * Sending to one replica: what the parts of it share.
 */
#ifndef COMMAND_REPLICA_SENDER_H
#define COMMAND_REPLICA_SENDER_H

#include "command/base/guard_settings.h"
#include "command/replica/remote.h"
#include "core/replica/state.h"

struct sender_size {
	uint64_t name; /* its first bytes */
	uint64_t size;
};

struct sender {
	const struct data_directory *data;
	const struct guard_settings *settings;
	struct remote remote;
	struct replica_state state;
	struct replica_sent sent;
	int placefd; /* replica/<place> in the store */
	int lockfd;
	uint64_t done_before; /* when the last sending before this one ended */
	bool is_adopted;      /* what was known of it is lost; its list tells what is there */
	/* Where a name may stand for what was cut off (rclone): how large it is, after a list. */
	struct sender_size *sizes;
	size_t size_count, size_room;
	/* On the way. */
	struct replica_name batch[LINK_BATCH];
	size_t waiting;
	uint64_t waiting_bytes;
	struct snapshot_store store; /* open while a batch is filled */
	bool is_store_open;
	unsigned char *data_room; /* a chunk */
};

/* Opens all of it; -EBUSY: somebody else sends; -errno with remote.link.error. To be closed in both
 * cases. */
int sender_open(struct sender *s, const struct data_directory *t,
		const struct guard_settings *settings, const struct replica_target *target);
void sender_close(struct sender *s);

/* That this store may send: it is the owner, or becomes it where there is none. `take_over`: also
 * where there is. -EPERM, -EAGAIN. */
int sender_claim(struct sender *s, bool take_over);
/* That it still may, and no prune has begun since. */
int sender_still_may(struct sender *s);

/* Whether a snapshot there is this store's. */
bool sender_has_sent(const struct sender *s, const struct replica_name *snapshot);

/* What the replica has, from a list of it if what is remembered may be wrong. */
int sender_remember(struct sender *s, bool anew);
/* Whether the list says that a chunk has another size there than it must have; told once. */
bool sender_has_cut(struct sender *s, const struct replica_chunk_name *name, uint64_t size);
/* All has gone well: what is remembered is right. */
void sender_is_sure(struct sender *s);

/* Sends a snapshot. 0; 1: it is not there any more, or not to be sent; -errno. */
int sender_send(struct sender *s, uint64_t id);

/* Tells what has become of those that were there before. */
int sender_mark(struct sender *s);

/* All that are there. */
int sender_send_all(struct sender *s);
/* The same, without a look at what is remembered: also chunks of what was sent before. */
int sender_send_again(struct sender *s);

#endif
