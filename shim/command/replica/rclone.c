/* SPDX-License-Identifier: MIT
 *
 * A replica reached with rclone, which knows sixty kinds of storage; what it needs to know of them,
 * and the rights, are in its own configuration. An object appears there when it is whole wherever
 * the storage can do that (S3 and its like, and all that rename); with WebDAV what was cut off is
 * seen by its size, and sent again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command/replica/link.h"

#define FILES "files"  /* in the working directory: a list of names */
#define NO_DIRECTORY 3 /* exit statuses of rclone */
#define NO_FILE 4
#define PATH_ROOM (REPLICA_TARGET_SIZE + 32)

#define COMMON                                                                                    \
	"--contimeout=20s", "--timeout=60s", "--low-level-retries=2", "--retries=1", "--stats=0", \
	    "--log-level=ERROR"

/* "REMOTE:PATH", or what is below it. */
static void place_of(char out[PATH_ROOM], const struct replica_link *l, const char *below)
{
	size_t n = strlen(l->target.path);
	const char *slash =
	    !*below || l->target.path[n - 1] == ':' || l->target.path[n - 1] == '/' ? "" : "/";

	snprintf(out, PATH_ROOM, "%s%s%s", l->target.path, slash, below);
}

static int link_status(int r)
{
	return r > 0 ? -EIO : r;
}

/* ---- listing ---- */

static int rclone_list(struct replica_link *l, enum replica_folder folder, link_object_fn *fn,
		       void *context)
{
	struct link_listing listing = {folder, false, fn, context};
	char place[PATH_ROOM];
	const char *argv[] = {"rclone",	      "lsf",	     COMMON,
			      "--files-only", "--format=sp", "--separator= ",
			      place,	      NULL,	     NULL};
	int r;

	place_of(place, l, replica_folder_name(folder));
	if (folder == REPLICA_CHUNKS)
		argv[sizeof(argv) / sizeof(argv[0]) - 2] = "--recursive";
	r = link_run(l, argv, link_take_listed, &listing);
	return r == NO_DIRECTORY ? 0 : link_status(r);
}

/* ---- sending, fetching, removing ---- */

static int write_names(struct replica_link *l, const struct replica_name *names, size_t count)
{
	int fd =
	    openat(l->workfd, FILES, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
	char text[REPLICA_NAME_SIZE];
	size_t i;

	for (i = 0; out && i < count; i++) {
		replica_name_format(text, &names[i]);
		fprintf(out, "%s\n", text);
	}
	if (out && fclose(out) == 0)
		return 0;
	if (!out && fd >= 0)
		close(fd);
	return link_fail(l, -EIO, "cannot write a list for rclone: %s", strerror(errno));
}

static int rclone_send(struct replica_link *l, const struct replica_name *names, size_t count)
{
	char place[PATH_ROOM], rate[48] = "--bwlimit=0";
	const char *argv[] = {"rclone", "copy",	   COMMON, "--size-only", "--no-traverse",
			      rate,	LINK_TREE, place,  NULL};

	(void)names;
	(void)count;
	place_of(place, l, "");
	if (l->rate)
		snprintf(rate, sizeof(rate), "--bwlimit=%lluk",
			 (unsigned long long)(l->rate / 1024 ? l->rate / 1024 : 1));
	return link_status(link_run(l, argv, NULL, NULL));
}

static int rclone_fetch(struct replica_link *l, const struct replica_name *names, size_t count)
{
	char place[PATH_ROOM];
	const char *argv[] = {"rclone",	       "copy", COMMON,	  "--files-from-raw=" FILES,
			      "--no-traverse", place,  LINK_TREE, NULL};
	int r = write_names(l, names, count);

	place_of(place, l, "");
	if (r == 0)
		r = link_run(l, argv, NULL, NULL);
	return r == NO_DIRECTORY || r == NO_FILE ? 0 : link_status(r);
}

static int rclone_remove(struct replica_link *l, const struct replica_name *names, size_t count)
{
	char place[PATH_ROOM];
	const char *argv[] = {"rclone", "delete", COMMON, "--files-from-raw=" FILES, place, NULL};
	int r = write_names(l, names, count);

	place_of(place, l, "");
	if (r == 0)
		r = link_run(l, argv, NULL, NULL);
	return r == NO_DIRECTORY || r == NO_FILE ? 0 : link_status(r);
}

const struct link_kind link_rclone = {rclone_list, rclone_send, rclone_fetch, rclone_remove};
