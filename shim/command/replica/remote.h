/* SPDX-License-Identifier: MIT
 *
 * What is in a replica: whose it is, its snapshots, and their manifests.
 */
#ifndef COMMAND_REPLICA_REMOTE_H
#define COMMAND_REPLICA_REMOTE_H

#include "command/replica/link.h"
#include "core/replica/keys.h"
#include "core/replica/sent.h"
#include "core/replica/seal.h"
#include "core/snapshot/manifest.h"

struct remote {
	struct replica_link link;
	struct replica_keys keys;
	bool is_sealed; /* keys are to be used */
	/* Who may send. */
	struct replica_name owner; /* epoch 0: nobody yet */
	struct replica_control owned;
	uint32_t prune;			/* the number of the newest prune, 0: none was */
	bool is_pruning;		/* it has not ended */
	struct replica_name *snapshots; /* the oldest first */
	uint64_t *sizes;
	size_t count, room;
	struct replica_name *marks; /* of snapshots, in no order */
	size_t mark_count;
};

/* For people, on a machine that may have nothing: `key` is the secret one's file, NULL: none is
 * needed. 0, or the exit status after saying why. */
int remote_open(struct remote *r, const char *target, const char *key, const char *ssh_config);
void remote_close(struct remote *r);

/* Anew. -errno with link.error. */
int remote_look_at_control(struct remote *r);
int remote_look_at_snapshots(struct remote *r);

/* The last that was told of it: REPLICA_HELD, REPLICA_RELEASED or NULL. */
const struct replica_name *remote_hold(const struct remote *r, const struct replica_name *snapshot);
bool remote_is_marked_verified(const struct remote *r, const struct replica_name *snapshot);

/* A new control object; store_id may be NULL. */
int remote_put_control(struct remote *r, const struct replica_name *name,
		       const unsigned char *store_id);

/* The owner's text; -EBADMSG: damaged. */
int remote_read_owner(struct remote *r);

/* A manifest, and the key of names in *names_out. As for replica_unseal(), -ENOENT: it is not
 * there. *out is to be freed. */
int remote_manifest(struct remote *r, const struct replica_name *name, struct manifest *out,
		    unsigned char names_out[REPLICA_KEY_SIZE]);
/* Of an object that has been fetched; the second of one that tells its own name. */
int remote_manifest_named(struct remote *r, const struct replica_name *at,
			  struct replica_name *name_out, struct manifest *out,
			  unsigned char names_out[REPLICA_KEY_SIZE]);
/* Sealed into tree/ as object `as`; its bytes, or -errno. */
int64_t remote_stage_manifest(struct remote *r, const struct replica_name *as,
			      const struct replica_name *name, struct manifest *m,
			      const unsigned char names[REPLICA_KEY_SIZE]);
int remote_manifest_fetched(struct remote *r, const struct replica_name *at,
			    const struct replica_name *name, struct manifest *out,
			    unsigned char names_out[REPLICA_KEY_SIZE]);

/* The content of a fetched chunk: its file as in a store. */
int remote_chunk_fetched(struct remote *r, const struct replica_name *name, unsigned char **data,
			 size_t *size);

/* "12", or "2-12" of another epoch than the newest; out of 32. */
char *remote_snapshot_text(const struct remote *r, const struct replica_name *name, char out[32]);
/* What ID names: N, EPOCH-N, latest, a time. The index, or -1 after saying why. */
long remote_find(const struct remote *r, const char *spec);

/* Why a manifest or a chunk cannot be used, in words. */
const char *remote_trouble(int error);

/* After an error of the link, or of memory: says it. The exit status. */
int remote_fail(struct remote *r, int error, const char *what);

#endif
