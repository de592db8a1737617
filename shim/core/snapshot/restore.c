/* SPDX-License-Identifier: MIT
 *
 * Building a directory from a snapshot.
 */
#include "core/snapshot/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/crew.h"
#include "core/base/fileio.h"
#include "core/base/tree.h"
#include "core/snapshot/chunk_sync.h"
#include "core/sqlite/database.h"

#define ROOM_LEFT (UINT64_C(16) << 20)
#define PARTIAL ".chromashim-partial"
#define AHEAD 64u  /* chunks */
#define FOR_TWO 16 /* chunks of a file: fewer are not worth a thread */
#define FEW 16	   /* files: more of them are synced with all of the file system */

struct building {
	struct snapshot_store *store;
	const struct manifest *manifest;
	int dirfd;
	const struct restore_options *options;
	struct snapshot_trouble *trouble;
	struct chunk_name *bad;
	uint64_t done, total;
	bool is_synced; /* all that has been built */
};

static int fail_file(struct building *b, int r, const char *file, const char *detail)
{
	snprintf(b->trouble->file, sizeof(b->trouble->file), "%s", file);
	snprintf(b->trouble->detail, sizeof(b->trouble->detail), "%s", detail);
	return r;
}

static int fail_chunk(struct building *b, int r, const struct manifest_file *f, uint64_t i)
{
	const char *what = r == -ENOENT		   ? "is missing"
			   : r == -ENODATA	   ? "is cut short"
			   : r == -EBADMSG	   ? "is damaged"
			   : r == -EPROTONOSUPPORT ? "is of a newer version"
						   : "cannot be read";
	char detail[96];

	if (b->bad)
		*b->bad = f->chunks[i];
	snprintf(detail, sizeof(detail), "chunk %02x%02x%02x%02x… %s", f->chunks[i].bytes[0],
		 f->chunks[i].bytes[1], f->chunks[i].bytes[2], f->chunks[i].bytes[3], what);
	return fail_file(b, r, f->path, detail);
}

/* ---- chunks, by two threads ---- */

struct writing {
	struct building *b;
	const struct manifest_file *file;
	int fd; /* -1: they are only read, and compared */
	uint64_t count;
	uint64_t next;	    /* atomic: whose turn it is */
	int error;	    /* atomic: the first that was met */
	uint64_t error_at;  /* of which chunk */
	bool is_of_writing; /* not of the chunk */
};

static int write_at(int fd, const unsigned char *data, size_t size, uint64_t offset)
{
	while (size) {
		ssize_t n = pwrite(fd, data, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* Blocks of zeros stay holes in the file. */
static int write_chunk(struct writing *w, struct chunks *from, uint64_t i, unsigned char *data,
		       bool *is_of_writing)
{
	const struct chunk_name *name = &w->file->chunks[i];
	uint32_t size = manifest_chunk_size(w->file, i);
	uint64_t offset = i * SNAPSHOT_CHUNK_SIZE;
	int r;

	*is_of_writing = false;
	if (chunk_is_zero(name))
		return 0;
	r = chunks_get(from, name, data, size);
	if (r < 0 || w->fd < 0)
		return r;
	*is_of_writing = true;
	r = write_at(w->fd, data, size, offset);
	/* The disk begins now, and not only at the sync. */
	if (r == 0 && i % AHEAD == AHEAD - 1 && !w->b->options->unsynced)
		sync_file_range(w->fd, (off_t)(offset - (AHEAD - 1) * SNAPSHOT_CHUNK_SIZE),
				(off_t)AHEAD * SNAPSHOT_CHUNK_SIZE, SYNC_FILE_RANGE_WRITE);
	return r;
}

static void note_error(struct writing *w, int r, uint64_t i, bool is_of_writing)
{
	int none = 0;

	if (!__atomic_compare_exchange_n(&w->error, &none, r, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		return;
	w->error_at = i;
	w->is_of_writing = is_of_writing;
}

static void write_turns(struct writing *w, struct chunks *from, bool is_helper)
{
	const struct restore_options *o = w->b->options;
	unsigned char *data = malloc(SNAPSHOT_CHUNK_SIZE);
	bool is_of_writing;
	uint64_t i, done;
	int r;

	if (!data && !is_helper)
		note_error(w, -ENOMEM, 0, true);
	while (data && !__atomic_load_n(&w->error, __ATOMIC_SEQ_CST)) {
		i = __atomic_fetch_add(&w->next, 1, __ATOMIC_SEQ_CST);
		if (i >= w->count)
			break;
		r = write_chunk(w, from, i, data, &is_of_writing);
		if (r < 0)
			note_error(w, r, i, is_of_writing);
		done = __atomic_add_fetch(&w->b->done, manifest_chunk_size(w->file, i),
					  __ATOMIC_SEQ_CST);
		if (o->progress && !is_helper)
			o->progress(o->context, done, w->b->total);
	}
	free(data);
}

static void write_some(void *context, bool is_helper)
{
	struct writing *w = context;
	struct chunks own;

	if (!is_helper) {
		write_turns(w, &w->b->store->chunks, false);
	} else if (chunks_open_beside(&own, &w->b->store->chunks) == 0) {
		write_turns(w, &own, true);
		chunks_close(&own);
	}
}

static int write_chunks(struct building *b, const struct manifest_file *f, int fd)
{
	struct writing w = {.b = b, .file = f, .fd = fd, .count = manifest_chunk_count(f->size)};
	int r;

	/* Whoever fetches what is missing does it one by one. */
	if (w.count < FOR_TWO || b->store->chunks.fetch)
		write_some(&w, false);
	else
		crew_run(write_some, &w);
	r = w.error;
	if (r < 0 && !w.is_of_writing)
		return fail_chunk(b, r, f, w.error_at);
	if (r == 0 && fd >= 0 && ftruncate(fd, (off_t)f->size) < 0)
		r = -errno;
	return r < 0 ? fail_file(b, r, f->path, "") : 0;
}

/* ---- to the disk ---- */

static bool is_database(const struct manifest_file *f)
{
	return strcmp(f->path, CHROMA_DATABASE) == 0;
}

static int sync_path(int dirfd, const char *path, int flags)
{
	int fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | flags), r;

	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/* A file, and the directory that has its name. */
static int sync_one(const struct building *b, const struct manifest_file *f)
{
	int length = (int)strcspn(f->path, "/"), r;
	char directory[64];

	if (!f->path[length])
		return is_database(f) ? 0 : sync_path(b->dirfd, f->path, 0);
	snprintf(directory, sizeof(directory), "%.*s", length, f->path);
	r = sync_path(b->dirfd, f->path, 0);
	return r == 0 ? sync_path(b->dirfd, directory, O_DIRECTORY) : r;
}

struct syncing {
	const struct building *b;
	int databasefd;
	uint32_t next; /* atomic: whose turn it is; after the files comes the database */
	int error;     /* atomic: one that was met */
};

static void sync_turns(void *context, bool is_helper)
{
	struct syncing *s = context;
	const struct manifest *m = s->b->manifest;
	uint32_t i;

	(void)is_helper;
	while ((i = __atomic_fetch_add(&s->next, 1, __ATOMIC_SEQ_CST)) <= m->file_count) {
		int r = i < m->file_count ? sync_one(s->b, &m->files[i])
			: s->databasefd >= 0 && fsync(s->databasefd) < 0 ? -errno
									 : 0;

		if (r < 0)
			__atomic_store_n(&s->error, r, __ATOMIC_SEQ_CST);
	}
}

/*
 * When all is written, so that the disk is at work meanwhile; but before the database gets its
 * name. databasefd -1: there is none.
 */
static int sync_all(struct building *b, int databasefd)
{
	struct syncing s = {.b = b, .databasefd = databasefd};
	uint32_t count = b->manifest->file_count;

	if (b->is_synced || b->options->unsynced)
		return 0;
	/* Side by side the disk puts them together. */
	if (count <= FEW || !chunk_sync_is_heard() || syncfs(b->dirfd) < 0)
		crew_wait(count, sync_turns, &s);
	b->is_synced = s.error == 0;
	return s.error;
}

static int give_to_owner(const struct building *b, int fd)
{
	const struct stat *owner = b->options->owner;

	return owner && geteuid() == 0 && fchown(fd, owner->st_uid, owner->st_gid) < 0 ? -errno : 0;
}

static int finish_file(struct building *b, const struct manifest_file *f, int fd)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
				    {.tv_sec = f->mtime, .tv_nsec = f->mtime_ns}};
	int r = give_to_owner(b, fd);

	if (r == 0 && (fchmod(fd, f->mode) < 0 || futimens(fd, times) < 0))
		r = -errno;
	return r == 0 && is_database(f) ? sync_all(b, fd) : r;
}

/* Under another name first: a file that is there is whole. */
static int build_file(struct building *b, const struct manifest_file *f, int dirfd,
		      const char *name)
{
	int fd = openat(dirfd, PARTIAL, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return fail_file(b, -errno, f->path, "");
	r = write_chunks(b, f, fd);
	if (r == 0) {
		r = finish_file(b, f, fd);
		if (r < 0)
			fail_file(b, r, f->path, "");
	}
	close(fd);
	if (r == 0 && renameat(dirfd, PARTIAL, dirfd, name) < 0)
		r = fail_file(b, -errno, f->path, "");
	if (r < 0)
		unlinkat(dirfd, PARTIAL, 0);
	return r;
}

static int build_path(struct building *b, const struct manifest_file *f)
{
	const struct stat *owner = b->options->owner;
	const char *slash = strchr(f->path, '/');
	char directory[64];
	int fd, r;

	if (!slash)
		return build_file(b, f, b->dirfd, f->path);
	snprintf(directory, sizeof(directory), "%.*s", (int)(slash - f->path), f->path);
	if (mkdirat(b->dirfd, directory, owner ? owner->st_mode & 0777 : 0700) < 0 &&
	    errno != EEXIST)
		return fail_file(b, -errno, f->path, "");
	fd = file_open_directory_at(b->dirfd, directory);
	if (fd < 0)
		return fail_file(b, fd, f->path, "");
	r = build_file(b, f, fd, slash + 1);
	if (r == 0)
		r = give_to_owner(b, fd);
	close(fd);
	return r;
}

static int build_all(struct building *b)
{
	const struct manifest *m = b->manifest;
	uint32_t i;
	int r = 0, last;

	/* Without its database the directory cannot be taken for a finished one. */
	for (last = 0; last < 2; last++)
		for (i = 0; i < m->file_count && r == 0; i++)
			if (is_database(&m->files[i]) == last)
				r = build_path(b, &m->files[i]);
	if (r == 0)
		r = sync_all(b, -1);
	return r == 0 && !b->options->unsynced ? tree_sync(b->dirfd) : r;
}

static uint64_t size_on_disk(const struct manifest *m)
{
	uint64_t total = 0, i;
	uint32_t f;

	for (f = 0; f < m->file_count; f++)
		for (i = 0; i < manifest_chunk_count(m->files[f].size); i++)
			if (!chunk_is_zero(&m->files[f].chunks[i]))
				total += manifest_chunk_size(&m->files[f], i);
	return total;
}

/* What keeps it from being restored, whatever its chunks are. */
static int begin(struct building *b, struct chunk_name *bad_out)
{
	const struct manifest *m = b->manifest;

	*b->trouble = (struct snapshot_trouble){{0}, {0}};
	if (bad_out)
		*bad_out = (struct chunk_name){{0}};
	b->bad = bad_out;
	b->total = manifest_total_size(m);
	if (m->header.state != SNAPSHOT_COMPLETE && m->header.state != SNAPSHOT_VERIFIED &&
	    m->header.state != SNAPSHOT_BROKEN)
		return fail_file(b, -EINPROGRESS, "", "it is not complete yet");
	if (m->header.magic != SNAPSHOT_MAGIC)
		return fail_file(b, -EBADMSG, "", m->trouble ? m->trouble : "");
	return 0;
}

int restore_build(struct snapshot_store *s, const struct manifest *m, int dirfd,
		  const struct restore_options *options, struct snapshot_trouble *t,
		  struct chunk_name *bad_out)
{
	struct building b = {
	    .store = s, .manifest = m, .dirfd = dirfd, .options = options, .trouble = t};
	int r = begin(&b, bad_out);

	if (r < 0)
		return r;
	if (tree_room(dirfd) < size_on_disk(m) + ROOM_LEFT)
		return fail_file(&b, -ENOSPC, "", "");
	return build_all(&b);
}

int restore_try(struct snapshot_store *s, const struct manifest *m,
		const struct restore_options *options, struct snapshot_trouble *t,
		struct chunk_name *bad_out)
{
	struct building b = {
	    .store = s, .manifest = m, .dirfd = -1, .options = options, .trouble = t};
	int r = begin(&b, bad_out);
	uint32_t i;

	if (r < 0)
		return r;
	for (i = 0; i < m->file_count && r == 0; i++)
		r = write_chunks(&b, &m->files[i], -1);
	return r;
}
