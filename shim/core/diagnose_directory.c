/* SPDX-License-Identifier: MIT
 *
 * Judging what is around the files: the disk, permissions, who has them open, what is left over.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/database.h"
#include "core/diagnose_internal.h"
#include "core/fileio.h"
#include "core/hnsw.h"

#define ROOM_WARNING (UINT64_C(64) << 20)

static const struct diagnose_place database_place = {.file = DATABASE_FILE};

/* ---- what is in it ---- */

static bool is_segment(int dirfd, const char *name)
{
	int fd = chroma_is_uuid(name) ? file_open_directory_at(dirfd, name) : -1;
	bool found = fd >= 0 && faccessat(fd, HNSW_HEADER_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	if (fd >= 0)
		close(fd);
	return found;
}

static uint64_t size_of_segment(int dirfd, const char *name)
{
	static const char *const files[] = {HNSW_LEVEL0_FILE, HNSW_LINKS_FILE};
	int fd = file_open_directory_at(dirfd, name);
	uint64_t size = 0;
	struct stat st;
	unsigned i;

	if (fd < 0)
		return 0;
	for (i = 0; i < 2; i++)
		if (fstatat(fd, files[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			size += (uint64_t)st.st_blocks * 512; /* a runaway file is mostly holes */
	close(fd);
	return size;
}

static bool has_segment_row(sqlite3 *db, const char *id)
{
	int64_t found;

	/* When the database cannot say, a directory is not called left over. */
	return database_number(db, "SELECT count(*) FROM segments WHERE id = ?", id, &found) < 0 ||
	       found > 0;
}

/* Calls `each` for every segment directory; returns their number. */
static uint64_t each_segment(struct diagnosis *d, void (*each)(struct diagnosis *, const char *))
{
	int fd = dup(d->dirfd);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	uint64_t count = 0;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	rewinddir(dir);
	while ((entry = readdir(dir))) {
		if (!is_segment(d->dirfd, entry->d_name))
			continue;
		count++;
		if (each)
			each(d, entry->d_name);
	}
	closedir(dir);
	return count;
}

static void add_size(struct diagnosis *d, const char *name)
{
	d->summary->bytes += size_of_segment(d->dirfd, name);
}

static void report_leftover(struct diagnosis *d, const char *name)
{
	if (!has_segment_row(d->db, name))
		diagnose_report(d, DIAGNOSE_LEFTOVER, (struct diagnose_place){.segment = name},
				"%s", "");
}

/* ---- around it ---- */

static void check_filesystem(struct diagnosis *d)
{
	struct statfs fs;
	struct statvfs room;
	const char *name = NULL;

	if (fstatfs(d->dirfd, &fs) == 0) {
		switch ((unsigned long)fs.f_type) {
		case NFS_SUPER_MAGIC:
			name = "NFS";
			break;
		case SMB_SUPER_MAGIC:
		case 0xff534d42: /* CIFS */
		case 0xfe534d42: /* SMB2 */
			name = "SMB";
			break;
		case CEPH_SUPER_MAGIC:
			name = "Ceph";
			break;
		default:
			break;
		}
	}
	if (name)
		diagnose_report(d, DIAGNOSE_NETWORK, (struct diagnose_place){0}, "%s", name);
	if (fstatvfs(d->dirfd, &room) == 0 &&
	    (uint64_t)room.f_bavail * room.f_frsize < ROOM_WARNING)
		diagnose_report(d, DIAGNOSE_DISK_LOW, (struct diagnose_place){0},
				"%llu MiB are left",
				(unsigned long long)room.f_bavail * room.f_frsize >> 20);
}

static void check_names(struct diagnosis *d, const struct stat *database)
{
	struct stat dir;

	if (database->st_nlink > 1)
		diagnose_report(d, DIAGNOSE_LINKED, database_place, "%lu hard links",
				(unsigned long)database->st_nlink);
	/* Only the plain case is judged: groups and ACLs may allow what the owner's bits do not. */
	if (fstat(d->dirfd, &dir) == 0 && dir.st_uid == database->st_uid && dir.st_uid != 0 &&
	    (!(database->st_mode & S_IWUSR) || !(dir.st_mode & S_IWUSR)))
		diagnose_report(d, DIAGNOSE_NOT_WRITABLE, database_place, "mode %04o",
				(unsigned)database->st_mode & 07777);
}

/* ---- who has it open ---- */

static bool process_has_open(const char *pid, const struct stat *database)
{
	char path[64 + 256];
	const struct dirent *entry;
	bool found = false;
	struct stat st;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%.20s/fd/%s", pid, entry->d_name);
		found = entry->d_name[0] != '.' && stat(path, &st) == 0 &&
			st.st_dev == database->st_dev && st.st_ino == database->st_ino;
	}
	if (dir)
		closedir(dir);
	return found;
}

static void find_processes(struct diagnosis *d, const struct stat *database)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		int pid = atoi(entry->d_name);

		if (pid <= 0 || pid == getpid() || !process_has_open(entry->d_name, database))
			continue;
		if (!d->summary->processes++)
			d->summary->first_process = pid;
	}
	if (proc)
		closedir(proc);
}

/* ---- the whole ---- */

static int check_collection(void *context, const struct chroma_collection *c)
{
	struct diagnosis *d = context;

	d->summary->collections++;
	diagnose_marks(d, c);
	diagnose_segment(d, c);
	return 0;
}

static void check_database(struct diagnosis *d, const struct stat *st)
{
	int r;

	if (!diagnose_database_file(d, st))
		return;
	r = database_open_now(d->path, d->dirfd, &d->db);
	if (!d->db)
		diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s", strerror(-r));
	else if (diagnose_structure(d) && diagnose_tables(d))
		r = chroma_each_collection(d->db, check_collection, d);
	if (r < 0 && r != -ENOENT && d->db && !d->summary->findings[DIAGNOSE_DAMAGE])
		diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s",
				sqlite3_errmsg(d->db));
	if (d->db)
		each_segment(d, report_leftover);
	sqlite3_close(d->db);
}

int diagnose_directory(const char *path, int dirfd, const struct diagnose_options *options,
		       struct diagnose_summary *out)
{
	struct diagnosis d = {.path = path, .dirfd = dirfd, .options = options, .summary = out};
	struct stat st;
	int error = 0;

	*out = (struct diagnose_summary){0};
	if (fstatat(dirfd, DATABASE_FILE, &st, AT_SYMLINK_NOFOLLOW) < 0)
		error = errno;
	if (error == ENOENT) {
		uint64_t segments = each_segment(&d, NULL);

		diagnose_report(&d, segments ? DIAGNOSE_DATABASE_MISSING : DIAGNOSE_NOT_CHROMA,
				(struct diagnose_place){0}, "%llu segment directories",
				(unsigned long long)segments);
		return 0;
	}
	if (error || !S_ISREG(st.st_mode)) {
		diagnose_report(&d, DIAGNOSE_UNREADABLE, database_place, "%s",
				error ? strerror(error) : "not a regular file");
		return 0;
	}
	d.pending = calloc(DIAGNOSE_PENDING_MAX, sizeof(*d.pending));
	if (!d.pending)
		return -ENOMEM;
	out->bytes = (uint64_t)st.st_size;
	d.segments = each_segment(&d, add_size);
	check_filesystem(&d);
	check_names(&d, &st);
	find_processes(&d, &st);
	check_database(&d, &st);
	free(d.pending);
	return 0;
}
