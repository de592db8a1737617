/* SPDX-License-Identifier: MIT
 *
 * The way to a replica: listing, sending, fetching and removing objects, by well-kept programs (or,
 * for a directory, by ourselves). What is sent lies in tree/ of a working directory, under the
 * names that it gets; what is fetched comes to lie there.
 *
 * Errors are -errno, with the reason in words in link->error. -ENOENT: there is no such place.
 */
#ifndef COMMAND_REPLICA_LINK_H
#define COMMAND_REPLICA_LINK_H

#include <limits.h>
#include <stdbool.h>

#include "core/replica/names.h"
#include "core/replica/target.h"

#define LINK_TREE "tree"		/* in the working directory */
#define LINK_BATCH 256u			/* objects on the way at once, */
#define LINK_BYTES (UINT64_C(32) << 20) /* or so many bytes */

struct replica_link {
	struct replica_target target;
	int workfd;		/* the working directory */
	int rootfd;		/* of a directory; else -1 */
	uint64_t rate;		/* bytes a second, 0: as fast as it goes */
	const char *ssh_config; /* NULL: ssh's own */
	unsigned requests;	/* made so far */
	char error[512];
};

typedef int link_object_fn(void *context, const struct replica_name *name, uint64_t size);

/* The working directory is the link's from now on, and emptied. */
int link_open(struct replica_link *l, const struct replica_target *target, int workfd);
void link_close(struct replica_link *l);

/* All objects of a folder. */
int link_list(struct replica_link *l, enum replica_folder folder, link_object_fn *fn,
	      void *context);
/* From tree/, which is empty then. One that is there already with another content is an error where
 * that can be told without reading it, and is never written over by a directory or sftp. */
int link_send(struct replica_link *l, const struct replica_name *names, size_t count);
/* To tree/; what is not there is left out. */
int link_fetch(struct replica_link *l, const struct replica_name *names, size_t count);
/* What is not there is as good as removed. */
int link_remove(struct replica_link *l, const struct replica_name *names, size_t count);

/* ---- tree/ ---- */

/* The directories that an object's file is in. */
int link_make_room(struct replica_link *l, const struct replica_name *name);
/* A new file for an object; the descriptor or -errno. */
int link_stage(struct replica_link *l, const struct replica_name *name);
/* What was fetched: the descriptor, or -ENOENT. */
int link_fetched(struct replica_link *l, const struct replica_name *name);
int link_clear(struct replica_link *l);

/* ---- for the kinds of link ---- */

struct link_kind {
	int (*list)(struct replica_link *l, enum replica_folder folder, link_object_fn *fn,
		    void *context);
	int (*send)(struct replica_link *l, const struct replica_name *names, size_t count);
	int (*fetch)(struct replica_link *l, const struct replica_name *names, size_t count);
	int (*remove)(struct replica_link *l, const struct replica_name *names, size_t count);
};

extern const struct link_kind link_directory, link_sftp, link_rclone;

/* r, after noting why. */
int link_fail(struct replica_link *l, int r, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Runs a program in the working directory; each line of its output goes to `line` (may be NULL).
 * Its exit status, or -errno; then l->error is the last line that it complained with. */
typedef int link_line_fn(void *context, const char *line);
int link_run(struct replica_link *l, const char *const *argv, link_line_fn *line, void *context);

/* The context of link_take_listed(), which calls fn with each object that a program lists. */
struct link_listing {
	enum replica_folder folder;
	bool is_sftp;
	link_object_fn *fn;
	void *context;
};
int link_take_listed(void *listing, const char *line);

#endif
