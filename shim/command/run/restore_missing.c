/* SPDX-License-Identifier: MIT
 *
 * `chromashim run --restore-if-missing`: where the directory is new, as with a container whose
 * volume was lost, it comes from the newest snapshot of a replica before anything starts. What is
 * there, whole or damaged, is left alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/base/out_directory.h"
#include "command/replica/replica.h"
#include "command/run/run.h"
#include "core/base/fileio.h"
#include "core/base/tree.h"
#include "core/check/verify.h"
#include "core/replica/keys.h"

enum what_is_there { NEW, SOMETHING, UNFINISHED, UNREADABLE };

/* A restore that was killed has left the mark of one, and no database yet: Chroma would have made
 * one at once. */
static enum what_is_there look_at_place(const char *dir)
{
	struct stat st;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), empty;
	enum what_is_there found = SOMETHING;

	if (fd < 0)
		return errno == ENOENT ? NEW : UNREADABLE;
	empty = tree_is_empty(fd);
	if (empty == 1)
		found = NEW;
	else if (empty < 0)
		found = UNREADABLE;
	else if (fstatat(fd, REPLICA_BUILDING, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		 fstatat(fd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
		found = tree_empty(fd) == 0 ? UNFINISHED : UNREADABLE;
	close(fd);
	return found;
}

static int judge(const struct run *r, int dirfd)
{
	enum verify_verdict verdict;
	char why[512];
	int e = verify_directory(dirfd, &verdict, why, sizeof(why));

	if (e < 0)
		return fail(EXIT_FAILED, e, NULL, "cannot check what was restored to '%s'", r->dir);
	if (verdict == VERIFY_GOOD)
		return 0;
	return fail(EXIT_FAILED, 0,
		    "Choose an older one: `chromashim restore --from REPLICA --to ID -o DIR`.",
		    "the newest snapshot in the replica is not sound: %s", why);
}

/* The new store seals to the same key, and sends from now on if it is told to. */
static int begin_store(const struct run *r, const char *key)
{
	struct replica_keys keys;
	struct data_directory t;
	int status = data_directory_open(&t, r->dir, false), e;

	if (status)
		return status;
	e = data_directory_make_store(&t);
	if (e == 0 && key && replica_keys_start() == 0 && replica_keys_read(&keys, key) == 0) {
		replica_keys_draw_names(&keys);
		e = replica_keys_write_store(&keys, t.storefd);
		replica_keys_forget(&keys);
	}
	status = e < 0 ? fail(exit_code_of(e), e, NULL, "cannot make the store '%s'", t.store)
		 : r->takeover ? replica_take_over(&t)
			       : 0;
	data_directory_close(&t);
	return status;
}

/* 0 and *done_out: it is there; 0 without: this replica has nothing. */
static int restore_from(const struct run *r, const char *target, const char *key, bool *done_out)
{
	bool is_empty = false;
	struct replica_wanted wanted = {
	    .from = target, .to = "latest", .key = key, .is_empty = &is_empty, .quiet = r->quiet};
	const char *ssh = config_get(&r->config, CONFIG_REPLICA_SSH_CONFIG);
	struct out_directory out;
	struct manifest m;
	int status = out_directory_open(&out, r->dir, -1), closed;

	if (status)
		return status;
	wanted.ssh_config = *ssh ? ssh : NULL;
	status = replica_restore(&wanted, out.fd, &m);
	if (status == 0 && !is_empty)
		status = judge(r, out.fd);
	*done_out = status == 0 && !is_empty;
	closed = out_directory_close(&out, *done_out);
	if (*done_out && closed == 0)
		run_say(r,
			"'%s' was missing: restored snapshot %" PRIu64 ", %" PRIu64
			" records, from %s",
			r->dir, m.header.id, manifest_records(&m), target);
	manifest_free(&m);
	return status ? status : closed;
}

int run_restore_missing(const struct run *r)
{
	const char *key = config_get(&r->config, CONFIG_REPLICA_KEY);
	struct replica_targets targets;
	bool done = false;
	int status = 0;
	unsigned i;

	switch (look_at_place(r->dir)) {
	case SOMETHING:
		return 0;
	case UNREADABLE:
		return fail(EXIT_FAILED, -errno, "Let this user read and write it.",
			    "cannot look at '%s'", r->dir);
	default:
		break;
	}
	if (replica_targets_parse(&targets, config_get(&r->config, CONFIG_REPLICA), NULL) < 0 ||
	    !targets.count)
		return fail(EXIT_USAGE, 0, "Set CHROMASHIM_REPLICA.",
			    "--restore-if-missing needs a replica, and none is named");
	for (i = 0; i < targets.count && !done; i++)
		status = restore_from(r, targets.all[i].text, *key ? key : NULL, &done);
	if (done)
		return begin_store(r, *key ? key : NULL);
	/* An empty start on top of a replica that cannot be read would hide what is in it. */
	if (status == 0)
		run_say(r, "'%s' is new, and so is its replica", r->dir);
	return status;
}
