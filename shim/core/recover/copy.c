/* SPDX-License-Identifier: MIT
 *
 * The copy that is healed. Nothing of it is synced before it is to take the original's place.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/base/tree.h"
#include "core/recover/internal.h"
#include "core/segment/hnsw.h"
#include "core/segment/pickle.h"
#include "core/snapshot/restore.h"

#define ROOM_LEFT (UINT64_C(16) << 20) /* for healing, and for whoever else writes there */

/* A directory's plain files, and those of its segments. 0 or what `each` returned. */
struct walk {
	int (*each)(struct walk *w, int dirfd, const char *segment, const char *name);
	int to;			  /* copying: the other directory */
	const struct stat *owner; /* and whose the copy is; NULL: as it was */
	char *failed;		  /* which file could not be copied; or NULL */
	uint64_t bytes;		  /* measuring */
	uint64_t state;		  /* comparing */
	void (*step)(void *context);
	void *context;
};

static bool is_link(int dirfd, const char *name)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

static int walk_into(struct walk *w, int root, const char *segment)
{
	DIR *dir;
	const struct dirent *entry;
	int r = file_names_at(root, segment, &dir);

	if (r < 0 && w->failed && segment)
		snprintf(w->failed, RECOVER_NAME, "%s", segment);
	if (r < 0)
		return r == -ENOTDIR && is_link(root, segment) ? -ELOOP : r;
	while (r == 0 && (entry = readdir(dir))) {
		struct stat st;

		if (!segment && !restore_is_chromas(entry->d_name))
			continue;
		if (!segment && chroma_is_uuid(entry->d_name))
			r = walk_into(w, root, entry->d_name);
		else if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			 S_ISREG(st.st_mode))
			r = w->each(w, dirfd(dir), segment, entry->d_name);
	}
	if (r == 0)
		r = w->each(w, dirfd(dir), segment, NULL); /* itself, at last */
	closedir(dir);
	return r;
}

/* ---- room ---- */

static int add_size(struct walk *w, int dirfd, const char *segment, const char *name)
{
	struct stat st;

	(void)segment;
	if (name && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		w->bytes += (uint64_t)st.st_blocks * 512;
	return 0;
}

static bool can_clone(int from, int to)
{
	int file = file_open_at(from, CHROMA_DATABASE);
	int clone = file < 0 ? -1 : openat(to, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	bool can = clone >= 0 && ioctl(clone, FICLONE, file) == 0;

	if (clone >= 0)
		close(clone);
	if (file >= 0)
		close(file);
	return can;
}

int recover_room(int from, int to, struct recover_room *out, char failed[RECOVER_NAME])
{
	struct walk w = {.each = add_size, .failed = failed};
	int r = walk_into(&w, from, NULL);

	out->needed = w.bytes + ROOM_LEFT;
	out->free = tree_room(to);
	if (r < 0 || out->free >= out->needed)
		return r;
	return can_clone(from, to) ? 0 : -ENOSPC;
}

/* ---- whether somebody has changed it ---- */

/* Not by the ctime: SQLite gives a journal that it opens the database's owner again. */
static int add_state(struct walk *w, int dirfd, const char *segment, const char *name)
{
	struct stat st;
	struct {
		uint64_t ino, size, mtime, mtime_ns;
	} told;
	uint64_t seed = segment ? checksum64(segment, strlen(segment), 0) : 0;

	/* The root changes with the store's place in it; who only reads a WAL makes the others. */
	if ((!segment && !name) ||
	    fstatat(dirfd, name ? name : ".", &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (!segment && (strcmp(name, CHROMA_DATABASE "-shm") == 0 ||
			  (strcmp(name, CHROMA_DATABASE "-wal") == 0 && st.st_size == 0))))
		return 0;
	seed = name ? checksum64(name, strlen(name), seed) : seed;
	told.ino = st.st_ino;
	told.size = name ? (uint64_t)st.st_size : 0;
	told.mtime = (uint64_t)st.st_mtim.tv_sec;
	told.mtime_ns = (uint64_t)st.st_mtim.tv_nsec;
	w->state += checksum64(&told, sizeof(told), seed); /* they come in any order */
	return 0;
}

uint64_t recover_state(int dirfd)
{
	struct walk w = {.each = add_state};

	walk_into(&w, dirfd, NULL);
	return w.state;
}

/* ---- copying ---- */

/* A new owner can write it, too: a copy that is kept may be read-only. */
static int give_attributes(int from, int dirfd, const char *name, const struct stat *owner)
{
	struct stat st;
	mode_t mode = owner ? S_IRUSR | S_IWUSR : 0;

	if (fstat(from, &st) < 0)
		return -errno;
	if (owner && S_ISDIR(st.st_mode))
		mode |= S_IXUSR;
	if (fchmodat(dirfd, name, (st.st_mode & 07777) | mode, 0) < 0)
		return -errno;
	owner = owner ? owner : &st;
	if (geteuid() == 0 &&
	    fchownat(dirfd, name, owner->st_uid, owner->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static int copy_file(int fromdir, int todir, const char *alias, const char *name,
		     const struct stat *owner)
{
	int from = file_open_at(fromdir, alias), r;

	if (from < 0)
		return from;
	r = tree_copy_file(from, todir, name);
	if (r == 0)
		r = give_attributes(from, todir, name, owner);
	close(from);
	return r;
}

static int copy_one(const struct walk *w, int dirfd, const char *segment, const char *name)
{
	int to, r;

	if (!segment)
		return name ? copy_file(dirfd, w->to, name, name, w->owner) : 0;
	to = tree_make_directory(w->to, segment);
	if (to < 0)
		return to;
	r = name ? copy_file(dirfd, to, name, name, w->owner)
		 : give_attributes(dirfd, w->to, segment, w->owner);
	close(to);
	return r;
}

static int copy(struct walk *w, int dirfd, const char *segment, const char *name)
{
	int r;

	if (w->step)
		w->step(w->context);
	r = copy_one(w, dirfd, segment, name);
	if (r < 0 && w->failed)
		snprintf(w->failed, RECOVER_NAME, "%s%s%s", segment ? segment : "",
			 segment && name ? "/" : "", name ? name : "");
	return r;
}

int recover_copy(int from, int to, const struct stat *owner, void (*step)(void *context),
		 void *context, char failed[RECOVER_NAME])
{
	struct walk w = {.each = copy,
			 .to = to,
			 .owner = owner,
			 .step = step,
			 .context = context,
			 .failed = failed};

	return walk_into(&w, from, NULL);
}

static int copy_renamed(int from, int to, const struct recover_finding *f)
{
	static const char *const files[] = {HNSW_HEADER_FILE, HNSW_LEVEL0_FILE, HNSW_LENGTH_FILE,
					    HNSW_LINKS_FILE, PICKLE_FILE};
	int dirfd = chroma_open_alias(from, f->alias), segment, r = 0;
	unsigned i;

	if (dirfd < 0)
		return dirfd;
	segment = tree_make_directory(to, f->segment);
	if (segment < 0)
		r = segment;
	for (i = 0; r == 0 && i < sizeof(files) / sizeof(files[0]); i++) {
		r = copy_file(dirfd, segment, files[i], files[i], NULL);
		r = r == -ENOENT ? 0 : r;
	}
	if (r == 0 && strcmp(f->alias, ".") != 0)
		r = give_attributes(dirfd, to, f->segment, NULL);
	if (segment >= 0)
		close(segment);
	close(dirfd);
	return r;
}

/* Beside what it was called, which has been copied with the rest and goes. */
static int rename_copied(int to, const struct recover_finding *f)
{
	int dirfd = file_open_directory_at(to, f->segment), r;

	if (dirfd < 0)
		return dirfd;
	r = renameat(dirfd, f->alias, dirfd, f->file) < 0 ? -errno : 0;
	close(dirfd);
	return r;
}

int recover_copy_renamed(int from, int to, const struct recover_judgement *j)
{
	size_t i;
	int r = 0;

	for (i = 0; i < j->count && r == 0; i++)
		if (j->list[i].code == DIAGNOSE_SEGMENT_RENAMED)
			r = copy_renamed(from, to, &j->list[i]);
		else if (j->list[i].code == DIAGNOSE_FILE_RENAMED)
			r = rename_copied(to, &j->list[i]);
	return r;
}

/* ---- syncing ---- */

static int sync_one(struct walk *w, int dirfd, const char *segment, const char *name)
{
	int fd, r;

	(void)w;
	(void)segment;
	if (!name)
		return tree_sync(dirfd);
	fd = file_open_at(dirfd, name);
	r = fd < 0 ? fd : tree_sync(fd);
	if (fd >= 0)
		close(fd);
	return r;
}

int recover_sync(int dirfd)
{
	struct walk w = {.each = sync_one};
	int r = sync_one(&w, dirfd, NULL, RECOVER_LOST_FILE);

	return r == 0 || r == -ENOENT ? walk_into(&w, dirfd, NULL) : r;
}
