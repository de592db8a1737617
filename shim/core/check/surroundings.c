/* SPDX-License-Identifier: MIT
 *
 * Judging what is around the files: the disk, permissions, owners, names, who has them open.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/base/filesystem.h"
#include "core/base/openers.h"
#include "core/check/internal.h"
#include "core/segment/hnsw.h"
#include "core/segment/pickle.h"
#include "core/sqlite/database.h"
#include "core/store/foreign.h"
#include "core/store/store.h"

#define ROOM_WARNING (UINT64_C(64) << 20)

static const struct diagnose_place database_place = {.file = CHROMA_DATABASE};

/* ---- the disk ---- */

static void check_filesystem(struct diagnosis *d)
{
	struct diagnose_place none = {0};
	const struct filesystem *kind = NULL;
	struct statvfs room;
	struct statfs fs;

	if (fstatfs(d->dirfd, &fs) == 0) {
		kind = filesystem_find((uint64_t)fs.f_type);
		if ((unsigned long)fs.f_type == FUSE_SUPER_MAGIC)
			diagnose_report(d, DIAGNOSE_FUSE, none, "%s", "");
	}
	if (kind && kind->network)
		diagnose_report(d, DIAGNOSE_NETWORK, none, "%s", kind->name);
	if (fstatvfs(d->dirfd, &room) < 0)
		return;
	d->read_only = room.f_flag & ST_RDONLY;
	if (d->read_only)
		diagnose_report(d, DIAGNOSE_READ_ONLY, none, "%s", "");
	else if ((uint64_t)room.f_bavail * room.f_frsize < ROOM_WARNING)
		diagnose_report(d, DIAGNOSE_DISK_LOW, none, "%llu MiB are left",
				(unsigned long long)room.f_bavail * room.f_frsize >> 20);
	else if (room.f_files && room.f_favail < 64)
		diagnose_report(d, DIAGNOSE_DISK_LOW, none, "%llu inodes are left",
				(unsigned long long)room.f_favail);
}

/* ---- names, permissions, owners ---- */

/* Whether who owns the other one cannot write it, as far as owner, group and mode tell. */
static bool is_out_of_reach(const struct stat *st, const struct stat *other)
{
	if (other->st_uid == 0)
		return false;
	if (st->st_uid == other->st_uid)
		return !(st->st_mode & S_IWUSR);
	if (st->st_gid == other->st_gid)
		return !(st->st_mode & S_IWGRP);
	return !(st->st_mode & S_IWOTH);
}

static void check_names(struct diagnosis *d, const struct stat *database)
{
	struct stat dir;

	if (database->st_nlink > 1)
		diagnose_report(d, DIAGNOSE_LINKED, database_place, "%lu hard links",
				(unsigned long)database->st_nlink);
	/* Only the plain case is judged: groups and ACLs may allow what the owner's bits do not. */
	if (fstat(d->dirfd, &dir) < 0)
		return;
	if (dir.st_uid == database->st_uid && dir.st_uid != 0 &&
	    (!(database->st_mode & S_IWUSR) || !(dir.st_mode & S_IWUSR)))
		diagnose_report(d, DIAGNOSE_NOT_WRITABLE, database_place, "mode %04o",
				(unsigned)database->st_mode & 07777);
	else if (dir.st_uid != database->st_uid && is_out_of_reach(database, &dir))
		diagnose_report(d, DIAGNOSE_DATABASE_OWNER, database_place,
				"user %u, mode %04o; the directory is user %u's",
				(unsigned)database->st_uid, (unsigned)database->st_mode & 07777,
				(unsigned)dir.st_uid);
}

/* ---- who asks ---- */

static const char *user_name(uid_t uid, char room[64])
{
	const struct passwd *user = getpwuid(uid);

	if (user)
		snprintf(room, 64, "%.63s", user->pw_name);
	else
		snprintf(room, 64, "user %u", (unsigned)uid);
	return room;
}

static void say_not_mine(struct diagnosis *d, const struct stat *st, struct diagnose_place place,
			 const char *what)
{
	char owner[64], asker[64];

	if (st->st_uid == geteuid())
		snprintf(owner, sizeof(owner), "you");
	else
		user_name(st->st_uid, owner);
	diagnose_report(d, DIAGNOSE_NOT_MINE, place, "%sit belongs to %s, mode %04o; you are %s%s",
			what, owner, (unsigned)st->st_mode & 07777, user_name(geteuid(), asker),
			geteuid() ? "" : ", without root's rights here (a container's)");
}

/* As the file system answers, with groups and ACLs. True: said. */
static bool check_access(struct diagnosis *d, int dirfd, const char *name,
			 struct diagnose_place place)
{
	char what[64] = "";
	struct stat st;
	int r = file_may_change(dirfd, name);

	if (fstatat(dirfd, name, &st, 0) < 0)
		return false;
	if (!place.segment && !place.file)
		snprintf(what, sizeof(what), "%s: ", name);
	switch (r) {
	case -EACCES:
		say_not_mine(d, &st, place, what);
		return true;
	case -EPERM:
		diagnose_report(d, DIAGNOSE_ATTRIBUTES, place, "%slsattr shows i or a", what);
		return true;
	case -EROFS:
		if (!d->read_only)
			diagnose_report(d, DIAGNOSE_READ_ONLY, place, "%sby a mount of its own",
					what);
		return true;
	default:
		return false;
	}
}

/* Root may write all but where it has not its rights, and may not be whom Chroma runs as: that is
 * told by the owners. */
static void check_asker(struct diagnosis *d)
{
	/* SQLite opens a journal that is there, whatever is in it, before it writes. */
	static const char *const files[] = {CHROMA_DATABASE, CHROMA_DATABASE "-journal",
					    CHROMA_DATABASE "-wal", CHROMA_DATABASE "-shm"};
	struct diagnose_place place = {0};
	bool found;
	unsigned i;

	found = check_access(d, d->dirfd, ".", place);
	for (i = 0; i < sizeof(files) / sizeof(files[0]) && !found; i++) {
		place.file = files[i];
		found = check_access(d, d->dirfd, files[i], place);
	}
	place.file = "the store";
	if (d->options->storefd > 0)
		check_access(d, d->options->storefd, ".", place);
	else /* it may not even be opened */
		check_access(d, d->dirfd, STORE_NAME, place);
}

/* fd: its directory, negative when that cannot be opened. */
static void check_asker_of_segment(struct diagnosis *d, int fd, const char *segment,
				   const char *file)
{
	const char *directory = fd < 0 ? segment : ".";

	if (!d->odd_access)
		d->odd_access =
		    check_access(d, fd < 0 ? d->dirfd : fd, file ? file : directory,
				 (struct diagnose_place){.segment = segment, .file = file});
}

void diagnose_ownership(struct diagnosis *d, const struct stat *database, const char *segment)
{
	static const char *const files[] = {
	    ".",	HNSW_HEADER_FILE, HNSW_LEVEL0_FILE, HNSW_LENGTH_FILE, HNSW_LINKS_FILE,
	    PICKLE_FILE};
	int fd = file_follow_directory_at(d->dirfd, segment);
	struct stat st;
	unsigned i;

	for (i = 0; fd >= 0 && i < sizeof(files) / sizeof(files[0]); i++) {
		struct diagnose_place place = {.segment = segment, .file = i ? files[i] : NULL};

		if (fstatat(fd, files[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		check_asker_of_segment(d, fd, segment, place.file);
		if (!d->odd_owner && is_out_of_reach(&st, database)) {
			d->odd_owner = true;
			diagnose_report(d, DIAGNOSE_OWNER, place,
					"user %u, mode %04o; the database is user %u's",
					(unsigned)st.st_uid, (unsigned)st.st_mode & 07777,
					(unsigned)database->st_uid);
		}
		/* The pickle has two names for a moment, in a persist under the shim. */
		if (!d->odd_links && S_ISREG(st.st_mode) && st.st_nlink > 1 &&
		    strcmp(files[i], PICKLE_FILE) != 0) {
			d->odd_links = true;
			diagnose_report(d, DIAGNOSE_SEGMENT_LINKED, place, "%lu hard links",
					(unsigned long)st.st_nlink);
		}
	}
	if (fd < 0)
		check_asker_of_segment(d, fd, segment, NULL);
	else
		close(fd);
}

/* What a right is in the way of is told by check_asker(), and a newer one's by who asks. */
static void check_store(struct diagnosis *d)
{
	const char *obstacle = store_obstacle(d->options->store_error);

	if (obstacle)
		diagnose_report(d, DIAGNOSE_STORE_UNUSABLE,
				(struct diagnose_place){.file = "the store"}, "%s", obstacle);
}

/* Found when the store is looked at by its owner, and by root. */
static void check_store_owner(struct diagnosis *d)
{
	struct store_foreign foreign;
	struct diagnose_place place = {.file = foreign.path};

	if (d->options->storefd > 0 && store_find_foreign(d->options->storefd, &foreign) > 0)
		diagnose_report(d, DIAGNOSE_STORE_OWNER, place,
				"user %u; the store is user %u's; %llu such files",
				(unsigned)foreign.user, (unsigned)foreign.owner,
				(unsigned long long)foreign.count);
}

/* ---- who has it open ---- */

/* The guardian, and other commands of ours, only read it. */
static bool is_a_command(const struct process_opener *o)
{
	return !o->writes && strcmp(o->name, "chromashim") == 0;
}

static void find_processes(struct diagnosis *d, const struct stat *database)
{
	struct diagnose_summary *s = d->summary;
	struct process_opener *list;
	unsigned hidden;
	int i, n = process_find_openers(database, CHROMA_DATABASE, &list, &hidden);

	for (i = 0; i < n; i++) {
		if (is_a_command(&list[i]) || s->processes++)
			continue;
		s->first_process = (int)list[i].pid;
		snprintf(s->first_command, sizeof(s->first_command), "%s", list[i].command);
	}
	free(list);
	if (s->processes > 1)
		diagnose_report(d, DIAGNOSE_SEVERAL_PROCESSES, database_place,
				"%llu processes, one is %d (%s)", (unsigned long long)s->processes,
				s->first_process, s->first_command);
}

void diagnose_surroundings(struct diagnosis *d, const struct stat *database)
{
	check_filesystem(d);
	check_names(d, database);
	check_store(d);
	check_store_owner(d);
	check_asker(d);
	find_processes(d, database);
}
