/* SPDX-License-Identifier: MIT
 *
 * Keys of replicas. The secret one is a file that its owner keeps away from the machine; in the
 * store is the public one, and the key by which chunks are named there.
 *
 *	# chromashim: …
 *	public 64 digits
 *	secret 64 digits	or	names 64 digits
 */
#ifndef CORE_REPLICA_KEYS_H
#define CORE_REPLICA_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/replica/names.h"

#define REPLICA_KEY_FILE "key" /* in replica/ in the store */

struct replica_keys {
	unsigned char public_key[REPLICA_KEY_SIZE];
	unsigned char secret_key[REPLICA_KEY_SIZE];
	unsigned char names[REPLICA_KEY_SIZE]; /* zeros: none */
	bool has_public, has_secret, has_names;
};

/* Before anything else here. -EIO: there is no randomness. */
int replica_keys_start(void);

/* A new pair, and a new key of names. */
void replica_keys_draw(struct replica_keys *out);
void replica_keys_draw_names(struct replica_keys *out);
void replica_keys_forget(struct replica_keys *keys);

/* The text of a file of either kind. -EINVAL: none; a secret key has to fit the public one. */
int replica_keys_parse(struct replica_keys *out, const char *text, size_t size);
/* Lines of what it has, but `secret` only if asked for. The length; room 400 is enough. */
int replica_keys_format(const struct replica_keys *keys, bool secret, char *out, size_t room);

/* From a path; -EINVAL, or what the file system says. */
int replica_keys_read(struct replica_keys *out, const char *path);
/* Of the store: -ENOENT: none. */
int replica_keys_read_store(struct replica_keys *out, int storefd);
int replica_keys_write_store(const struct replica_keys *keys, int storefd);

/* What a chunk is called in the replica, by what it is called in the store (or a second copy of a
 * manifest, by the manifest's name). */
void replica_chunk_name_of(const unsigned char names[REPLICA_KEY_SIZE], const void *name,
			   size_t size, struct replica_chunk_name *out);

#endif
