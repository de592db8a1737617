/* SPDX-License-Identifier: MIT
 *
 * Objects of a replica, written and read piece by piece; see chromashim_replica.h.
 *
 * Errors: -ENODATA cut short, -EBADMSG damaged, or another object under this name, -ENOKEY sealed
 * to another key, or none is given, -EPROTONOSUPPORT of a newer version.
 */
#ifndef CORE_REPLICA_SEAL_H
#define CORE_REPLICA_SEAL_H

#include <sys/uio.h>

#include "core/base/fileio.h"
#include "core/replica/keys.h"

/* An object with that body, into fd; `keys` NULL: plain. Not synced. *size_out (may be NULL): its
 * bytes. 0 or -errno. */
int replica_seal(const struct replica_keys *keys, const char *name, const struct iovec *body,
		 int count, int fd, uint64_t *size_out);

/* What an object with a body of so many bytes takes. */
uint64_t replica_seal_size(const struct replica_keys *keys, uint64_t body);

/*
 * Its body goes to `take` as it is read, and is to be trusted only when this returns 0. keys may be
 * NULL, or have no secret: then only what is plain can be read. `take` returns 0 or -errno.
 */
typedef int replica_take_fn(void *context, const void *data, size_t size);
int replica_unseal(const struct replica_keys *keys, const char *name,
		   const struct file_source *source, replica_take_fn *take, void *context);

/* The same into memory, of at most `limit` bytes (-EFBIG); *data_out is the caller's to free. */
int replica_unseal_all(const struct replica_keys *keys, const char *name,
		       const struct file_source *source, size_t limit, unsigned char **data_out,
		       size_t *size_out);

/* A control object: what is written, and read. */
void replica_control_finish(struct replica_control *c, const char *name);
int replica_control_parse(struct replica_control *out, const char *name, const void *data,
			  size_t size);

#endif
