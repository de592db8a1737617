/* SPDX-License-Identifier: MIT
 *
 * Where replicas are: the value of CHROMASHIM_REPLICA, and one place of it.
 *
 *	/a/directory
 *	sftp://[user@]host[:port]/path
 *	rclone:REMOTE:PATH
 */
#ifndef CORE_REPLICA_TARGET_H
#define CORE_REPLICA_TARGET_H

#include <stddef.h>
#include <stdint.h>

#define REPLICA_TARGET_SIZE 1024u /* with its terminating zero */
#define REPLICA_TARGETS 8u

enum replica_kind { REPLICA_DIRECTORY = 1, REPLICA_SFTP, REPLICA_RCLONE };

struct replica_target {
	enum replica_kind kind;
	char text[REPLICA_TARGET_SIZE]; /* all of it, as people name it */
	char host[256];			/* "user@host" or "host"; of sftp */
	unsigned port;			/* 0: what ssh's configuration says */
	char path[REPLICA_TARGET_SIZE]; /* the directory; of rclone "REMOTE:PATH". No slash ends it
					 */
};

struct replica_targets {
	unsigned count;
	struct replica_target all[REPLICA_TARGETS];
};

/* 0; -EINVAL: none of the three kinds, or with characters that cannot be handed on. */
int replica_target_parse(struct replica_target *out, const char *text);

/* A list with spaces or commas between; empty: none. -EINVAL with the word that is wrong in
 * *wrong_out (at least REPLICA_TARGET_SIZE bytes; may be NULL); -E2BIG: too many. */
int replica_targets_parse(struct replica_targets *out, const char *setting, char *wrong_out);

#endif
