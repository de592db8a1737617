/* SPDX-License-Identifier: MIT
 *
 * What other verbs and the guardian do with replicas.
 */
#ifndef COMMAND_REPLICA_H
#define COMMAND_REPLICA_H

#include "command/base/snapshots.h"
#include "core/replica/state.h"

#define REPLICA_BUILDING ".chromashim-replica" /* in a directory that is being restored */

/* What `restore --from` is told. */
struct replica_wanted {
	const char *from, *to;	  /* a replica, and which of its snapshots */
	const char *key;	  /* the secret key's file, or NULL */
	const char *ssh_config;	  /* NULL: by the environment */
	const struct stat *owner; /* whose it shall be, or NULL */
	bool *is_empty; /* not NULL: a replica without snapshots is no error, and told here */
	bool quiet;
};

/*
 * Builds it in the empty directory dirfd. 0, or the exit status after saying why; *m_out is to be
 * freed in both cases. Nothing that is damaged is left there.
 */
int replica_restore(const struct replica_wanted *wanted, int dirfd, struct manifest *m_out);

/* ---- sending (send.c) ---- */

/* Of an open data directory, to all its replicas; says on stderr what fails unless `quiet`. The
 * exit status: 0 all is there, 1 not all, 11 somebody else sends. */
int replica_send(struct data_directory *t, bool quiet);

/* The same as if nothing were remembered. */
int replica_resend(struct data_directory *t, bool quiet);
/* Of a directory that is opened for it. */
int replica_on_directory(const char *dir, int (*what)(struct data_directory *t, bool quiet),
			 bool quiet);

/* From now on it sends to them, whoever did before. The same exit status. */
int replica_take_over(struct data_directory *t);

/* The verbs below `chromashim replica`. */
int replica_command_check(int argc, char **argv);
int replica_command_keygen(int argc, char **argv);
int replica_command_list(int argc, char **argv);
int replica_command_prune(int argc, char **argv);
int replica_command_rebuild(int argc, char **argv);
int replica_command_send(int argc, char **argv);
int replica_command_take_over(int argc, char **argv);

#endif
