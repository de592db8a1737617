/* SPDX-License-Identifier: MIT
 *
 * The pre-flight's look at the place: the directory and its store, rights, room, and who is there.
 */
#include "command/run/preflight.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/processes.h"
#include "command/base/terminal.h"
#include "core/base/alive.h"
#include "core/base/clock.h"
#include "core/base/disk_left.h"
#include "core/base/fileio.h"
#include "core/base/filesystem.h"
#include "core/base/openers.h"
#include "core/oplog/oplog.h"
#include "core/store/foreign.h"
#include "core/store/store.h"

/* ---- the directory ---- */

static int make_one(const struct run *r, const char *path)
{
	if (mkdir(path, 0777) < 0)
		return errno == EEXIST ? 0 : -errno;
	return r->uid != geteuid() && lchown(path, r->uid, r->gid) < 0 ? -errno : 0;
}

/* Makes the directory as Chroma would. */
static int make_directories(const struct run *r, const char *path)
{
	char part[PATH_MAX];
	size_t i;
	int e;

	snprintf(part, sizeof(part), "%s", path);
	for (i = 1; part[i]; i++) {
		if (part[i] != '/')
			continue;
		part[i] = '\0';
		e = make_one(r, part);
		if (e < 0)
			return e;
		part[i] = '/';
	}
	return make_one(r, part);
}

/*
 * The store is of a newer chromashim. What it protects against the backend does not have this time;
 * but a collection that is half written, and that only the other version can put right, is not
 * opened: Chroma would go on from it, and purge its queue.
 */
static int judge_newer(struct preflight *p)
{
	static const char todo[] = "Use that version, or a newer one.";
	const char *newer = data_directory_newer(&p->data);

	p->run->is_newer = true;
	if (p->run->look) /* the library says so */
		return -1;
	if (p->data.store_waits)
		return fail(EXIT_FAILED, 0, todo,
			    "not started: %s; a persist that was cut short has to be undone from "
			    "it first",
			    newer);
	if (run_is_set_to(p->run, CONFIG_ON_FAILURE, "closed"))
		return fail(EXIT_FAILED, 0, todo, "not started: %s", newer);
	preflight_warn(p, todo, "UNPROTECTED: %s", newer);
	return 0;
}

int preflight_open(struct preflight *p)
{
	struct run *r = p->run;
	int e;

	p->data.dirfd = p->data.storefd = p->data.strayfd = -1;
	if (access(r->dir, F_OK) < 0 && errno == ENOENT) {
		if (!r->dir_from)
			run_say(r, "no data directory is named and './chroma_data' is not there; "
				   "what Chroma opens will be protected (--dir names it)");
		else
			run_say(r, "'%s' is not there yet (%s)%s", r->dir, r->dir_from,
				r->check_only ? "" : "; it is made");
		e = r->dir_from && !r->check_only ? make_directories(r, r->dir) : 0;
		if (e < 0)
			return fail(EXIT_FAILED, e, "Make it, as the user that runs Chroma.",
				    "cannot make the data directory '%s'", r->dir);
		if (!r->dir_from || r->check_only)
			return -1;
		p->is_made = true;
	}
	e = data_directory_open_only(&p->data, r->dir);
	if (e)
		return e;
	data_directory_find_store(&p->data);
	p->is_new = faccessat(p->data.dirfd, CHROMA_DATABASE, F_OK, AT_SYMLINK_NOFOLLOW) < 0;
	p->is_unused = p->is_new && p->data.storefd >= 0 &&
		       faccessat(p->data.storefd, OPLOG_DIR, F_OK, 0) == 0;
	return p->data.store_is_newer ? judge_newer(p) : 0;
}

/* ---- rights ---- */

static const char *user_name(uid_t uid, char room[64])
{
	const struct passwd *user = getpwuid(uid);

	if (user)
		snprintf(room, 64, "%.63s", user->pw_name);
	else
		snprintf(room, 64, "uid %u", (unsigned)uid);
	return room;
}

/* `file` is what cannot be written, from the directory. */
static int fail_rights(const struct preflight *p, const char *file, const char *what, int error)
{
	char room[64], todo[256];
	struct stat st;

	if (error == -EROFS)
		snprintf(todo, sizeof(todo),
			 "Chroma writes at every start: mount it read-write, or use a copy.");
	else if (error == -EPERM)
		snprintf(todo, sizeof(todo),
			 "An attribute of its keeps everybody from it, root as well: sudo chattr "
			 "-i -a");
	else if (fstatat(p->data.dirfd, file, &st, 0) == 0 && st.st_uid == geteuid())
		snprintf(todo, sizeof(todo), "Its mode is %04o: make it writable with chmod u+w.",
			 (unsigned)st.st_mode & 07777);
	else if (fstatat(p->data.dirfd, file, &st, 0) == 0)
		snprintf(
		    todo, sizeof(todo),
		    "It belongs to %s: start this as that user, or give it away with chown -R.",
		    user_name(st.st_uid, room));
	return fail(EXIT_FAILED, error, todo, "cannot write to %s'%s'", what, p->run->dir);
}

/* Root's files in a user's store: the library and the guardian cannot use them. */
static void judge_store_owner(struct preflight *p)
{
	char todo[2 * PATH_MAX + 128], owner[64], user[64];
	struct store_foreign foreign;

	if (p->data.storefd < 0 || store_find_foreign(p->data.storefd, &foreign) <= 0)
		return;
	snprintf(todo, sizeof(todo), "Give them back: chown -R %u:%u '%s'", (unsigned)foreign.owner,
		 (unsigned)foreign.group, p->data.store);
	preflight_warn(p, todo,
		       "'%s/%s' belongs to %s, and the store to %s, who cannot use it (%" PRIu64
		       " such files)",
		       p->data.store, foreign.path, user_name(foreign.user, user),
		       user_name(foreign.owner, owner), foreign.count);
}

/* What making it would come to: 0 or -errno. */
static int foretell_store(struct preflight *p)
{
	char above[sizeof(p->data.store)];
	int e = p->data.storefd < 0 ? data_directory_find_store(&p->data) : 0;

	if (e != -ENOENT)
		return e;
	strlcpy(above, p->data.store, sizeof(above));
	return faccessat(AT_FDCWD, dirname(above), W_OK | X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

/* Protection alone needs it: the backend could run without. */
static int store_rights(struct preflight *p)
{
	const char *obstacle, *todo;
	int e = p->run->is_newer     ? 0
		: p->run->check_only ? foretell_store(p)
				     : data_directory_make_store(&p->data);

	if (e == 0 && p->data.storefd >= 0)
		e = file_may_change(p->data.storefd, ".");
	judge_store_owner(p);
	if (e == 0)
		return 0;
	obstacle = store_obstacle(e);
	todo = obstacle ? STORE_OBSTACLE_HELPS
			: "Make it writable, or name another one: CHROMASHIM_STORE.";
	if (run_is_set_to(p->run, CONFIG_ON_FAILURE, "closed"))
		return fail(EXIT_FAILED, 0, todo, "cannot write to the store '%s': %s",
			    p->data.store, obstacle ? obstacle : strerror(-e));
	preflight_warn(p, todo, "UNPROTECTED: cannot write to the store '%s': %s", p->data.store,
		       obstacle ? obstacle : strerror(-e));
	return 0;
}

static void judge_owner(struct preflight *p, const struct stat *st)
{
	char owner[64], user[64], todo[PATH_MAX + 128], dir[PATH_MAX];

	user_name(st->st_uid, owner);
	user_name(p->run->uid, user);
	if (p->run->uid == geteuid()) {
		preflight_warn(
		    p, "Start it as that user; what is written now will belong to this one.",
		    "'%s' belongs to %s, and this is %s", p->run->dir, owner, user);
		return;
	}
	snprintf(todo, sizeof(todo), "Give it to that user: chown -R %u:%u %s",
		 (unsigned)p->run->uid, (unsigned)p->run->gid,
		 format_quoted(dir, sizeof(dir), p->run->dir));
	preflight_warn(p, todo, "'%s' belongs to %s, and the backend will run as %s", p->run->dir,
		       owner, user);
}

int preflight_rights(struct preflight *p)
{
	struct stat st;
	int e = file_may_change(p->data.dirfd, ".");

	if (e < 0)
		return fail_rights(p, ".", "", e);
	e = file_may_change(p->data.dirfd, CHROMA_DATABASE);
	if (e < 0 && e != -ENOENT)
		return fail_rights(p, CHROMA_DATABASE, CHROMA_DATABASE " in ", e);
	if (fstatat(p->data.dirfd, p->is_new ? "." : CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) ==
		0 &&
	    st.st_uid != p->run->uid)
		judge_owner(p, &st);
	return store_rights(p);
}

/* ---- the file system and its room ---- */

/* Docker and Podman leave a file in the root of a container, Kubernetes a variable. */
static bool is_in_container(void)
{
	return access("/.dockerenv", F_OK) == 0 || access("/run/.containerenv", F_OK) == 0 ||
	       getenv("KUBERNETES_SERVICE_HOST");
}

/* With no volume there, the next container of this image begins without the data. */
static void judge_container(struct preflight *p)
{
	const struct filesystem *known;
	struct stat root, directory;
	struct statfs fs;

	if (!is_in_container() || stat("/", &root) < 0 || stat(p->run->dir, &directory) < 0 ||
	    root.st_dev != directory.st_dev || statfs("/", &fs) < 0)
		return;
	known = filesystem_find((uint64_t)fs.f_type);
	if (known && !strcmp(known->name, "overlayfs"))
		preflight_warn(p,
			       "Mount a volume there: docker run -v chroma-data:DIR, or `volumes:` "
			       "in the Compose file.",
			       "THE DATA IS IN THE CONTAINER ITSELF: '%s' is on no volume, so all "
			       "of it is lost when the container is made anew, as an update does",
			       p->run->dir);
}

static void judge_filesystem(struct preflight *p)
{
	static const char said[] = "its locks are not relied on, so other processes are kept out "
				   "only if they run under the shim too";
	const struct filesystem *kind = filesystem_of(p->data.dirfd);

	if (kind && kind->network)
		preflight_warn(p, "Move it to a local disk; use it from one machine only.",
			       "'%s' is on %s: %s", p->run->dir, kind->name, said);
	else if (!kind || !kind->locks)
		run_say(p->run, "'%s' is on %s: %s", p->run->dir,
			kind ? kind->name : "a file system unknown here", said);
}

int preflight_room(struct preflight *p)
{
	struct disk_floor floor;
	struct disk_left disk;
	char left[24], text[24];

	judge_filesystem(p);
	judge_container(p);
	if (!config_read_room(config_get(&p->run->config, CONFIG_MIN_FREE), &floor.percent,
			      &floor.bytes))
		floor = (struct disk_floor){0};
	if (disk_left(p->data.dirfd, floor, &disk) < 0)
		return 0;
	if (disk.inodes < CONFIG_FEW_INODES || disk.quota_inodes < CONFIG_FEW_INODES)
		preflight_warn(
		    p, "Remove files: reads work, and new writes are refused until then.",
		    "the %s no inodes left",
		    disk.inodes < CONFIG_FEW_INODES ? "file system has" : "user's disk quota has");
	if (disk.free < disk_floor_of(floor, disk.total))
		preflight_warn(p, "Make room: reads work, and new writes are refused until then.",
			       "the %s: %s left, less than CHROMASHIM_MIN_FREE (%s)",
			       disk.of_quota ? "user's disk quota is nearly used up"
					     : "disk is nearly full",
			       format_bytes(left, sizeof(left), disk.free),
			       format_bytes(text, sizeof(text), disk_floor_of(floor, disk.total)));
	return 0;
}

/* ---- who is there ---- */

/* The kernel knows whether somebody holds it. */
static bool has_writer(const struct preflight *p, char *out, size_t size)
{
	char text[512], *rest = text, *line;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = p->data.storefd < 0 ? -1
				     : openat(p->data.storefd, WRITER_LOCK,
					      O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool held = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
	ssize_t n = held ? file_read_at(fd, text, sizeof(text) - 1, 0) : 0;

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	for (*out = '\0'; (line = strsep(&rest, "\n")) && *line;) {
		strlcat(out, *out ? ", " : "", size);
		strlcat(out, line, size);
	}
	return held;
}

static int in_the_way(struct preflight *p, const char *who)
{
	static const char *const todo =
	    "Stop it first: two that write would ruin the index. CHROMASHIM_WAIT says how long its "
	    "end is waited for.";

	if (!run_is_set_to(p->run, CONFIG_SINGLE_WRITER, "deny")) {
		p->others_write = true;
		preflight_warn(p, NULL, "another process works on '%s': %s", p->run->dir, who);
		return 0;
	}
	return fail(EXIT_IN_THE_WAY, 0, todo, "another process works on '%s': %s", p->run->dir,
		    who);
}

/* The first that must not be there; with `tell`, others are warned of. */
static bool find_in_the_way(struct preflight *p, char *who, size_t room, bool tell)
{
	struct process_opener *list = NULL;
	unsigned hidden = 0;
	bool found;
	struct stat st;
	int n = 0, i;

	if (fstatat(p->data.dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) == 0)
		n = process_find_openers(&st, CHROMA_DATABASE, &list, &hidden);
	found = has_writer(p, who, room);
	if (found && !*who)
		strlcpy(who, "it holds writer.lock", room);
	p->alone = !found;
	for (i = 0; !found && i < n; i++) {
		/* The last backend's guardian may still be at its last snapshot; it only reads. */
		if (strcmp(list[i].name, "chromashim") == 0)
			continue;
		p->alone = false;
		snprintf(who, room, "pid %" PRIu32 ", %s", list[i].pid,
			 list[i].command[0] ? list[i].command : list[i].name);
		found = process_is_chroma(list[i].pid);
		if (!found && tell)
			preflight_warn(p, NULL, "'%s' is open in another program: %s", p->run->dir,
				       who);
	}
	free(list);
	if (!p->alone || p->data.storefd < 0 || !alive_in_use(p->data.storefd, -1))
		return found;
	/* It has not written yet (refuse/opening.h). */
	strlcpy(who, "a process that is not to be seen from here, as in another container", room);
	p->alone = false;
	return true;
}

/*
 * In every ordinary restart the one before needs some seconds to end. A second backend that stays
 * is refused when they are over. True: it has ended.
 */
static bool wait_for_end(struct preflight *p, const char *who)
{
	const struct timespec pause = {0, 100000000};
	char text[24], next[512];
	uint64_t wait = 0, until, now;

	if (p->run->check_only || run_is_set_to(p->run, CONFIG_SINGLE_WRITER, "off") ||
	    !config_read_time(config_get(&p->run->config, CONFIG_WAIT), &wait) || !wait)
		return false;
	until = clock_read(CLOCK_MONOTONIC) + wait;
	run_say(p->run, "'%s' is still in use: %s; waiting up to %s for its end (CHROMASHIM_WAIT)",
		p->run->dir, who, format_duration(text, sizeof(text), wait));
	do {
		nanosleep(&pause, NULL);
		now = clock_read(CLOCK_MONOTONIC);
		if (!find_in_the_way(p, next, sizeof(next), false))
			return true;
	} while (now < until);
	return false;
}

int preflight_processes(struct preflight *p)
{
	char who[512];

	if (!find_in_the_way(p, who, sizeof(who), true))
		return 0;
	if (wait_for_end(p, who) && !find_in_the_way(p, who, sizeof(who), true))
		return 0;
	return in_the_way(p, who);
}

bool preflight_is_alone(struct preflight *p)
{
	char who[512];

	find_in_the_way(p, who, sizeof(who), false);
	return p->alone;
}
