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

#include "core/base/fileio.h"
#include "core/base/tree.h"
#include "core/sqlite/database.h"

#define ROOM_LEFT (UINT64_C(16) << 20)
#define PARTIAL ".chromashim-partial"

struct building {
	struct snapshot_store *store;
	const struct manifest *manifest;
	int dirfd;
	const struct restore_options *options;
	struct snapshot_trouble *trouble;
	struct chunk_name *bad;
	unsigned char *data; /* one chunk */
	uint64_t done, total;
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

/* Blocks of zeros stay holes in the file. */
static int write_chunks(struct building *b, const struct manifest_file *f, int fd)
{
	uint64_t count = manifest_chunk_count(f->size), i;
	int r = 0;

	for (i = 0; i < count && r == 0; i++) {
		uint32_t size = manifest_chunk_size(f, i);

		b->done += size;
		if (b->options->progress)
			b->options->progress(b->options->context, b->done, b->total);
		if (chunk_is_zero(&f->chunks[i]))
			continue;
		r = chunks_get(&b->store->chunks, &f->chunks[i], b->data, size);
		if (r < 0)
			return fail_chunk(b, r, f, i);
		if (lseek(fd, (off_t)(i * SNAPSHOT_CHUNK_SIZE), SEEK_SET) < 0)
			r = -errno;
		if (r == 0)
			r = file_write_all(fd, b->data, size);
	}
	if (r == 0 && ftruncate(fd, (off_t)f->size) < 0)
		r = -errno;
	return r < 0 ? fail_file(b, r, f->path, "") : 0;
}

static int sync_directory(const struct building *b, int fd)
{
	return b->options->unsynced ? 0 : tree_sync(fd);
}

static int give_to_owner(const struct building *b, int fd)
{
	const struct stat *owner = b->options->owner;

	return owner && geteuid() == 0 && fchown(fd, owner->st_uid, owner->st_gid) < 0 ? -errno : 0;
}

static int finish_file(const struct building *b, const struct manifest_file *f, int fd)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
				    {.tv_sec = f->mtime, .tv_nsec = f->mtime_ns}};
	int r = give_to_owner(b, fd);

	if (r == 0 && (fchmod(fd, f->mode) < 0 || futimens(fd, times) < 0))
		r = -errno;
	if (r == 0 && !b->options->unsynced && fsync(fd) < 0)
		r = -errno;
	return r;
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
	if (r == 0)
		r = sync_directory(b, fd);
	close(fd);
	return r;
}

static bool is_database(const struct manifest_file *f)
{
	return strcmp(f->path, CHROMA_DATABASE) == 0;
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
	return r == 0 ? sync_directory(b, b->dirfd) : r;
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

int restore_build(struct snapshot_store *s, const struct manifest *m, int dirfd,
		  const struct restore_options *options, struct snapshot_trouble *t,
		  struct chunk_name *bad_out)
{
	struct building b = {.store = s,
			     .manifest = m,
			     .dirfd = dirfd,
			     .options = options,
			     .trouble = t,
			     .bad = bad_out,
			     .total = manifest_total_size(m)};
	int r;

	*t = (struct snapshot_trouble){{0}, {0}};
	if (bad_out)
		*bad_out = (struct chunk_name){{0}};
	if (m->header.state != SNAPSHOT_COMPLETE && m->header.state != SNAPSHOT_VERIFIED &&
	    m->header.state != SNAPSHOT_BROKEN)
		return fail_file(&b, -EINPROGRESS, "", "it is not complete yet");
	if (m->header.magic != SNAPSHOT_MAGIC)
		return fail_file(&b, -EBADMSG, "", m->trouble ? m->trouble : "");
	if (tree_room(dirfd) < size_on_disk(m) + ROOM_LEFT)
		return fail_file(&b, -ENOSPC, "", "");
	b.data = malloc(SNAPSHOT_CHUNK_SIZE);
	if (!b.data)
		return -ENOMEM;
	r = build_all(&b);
	free(b.data);
	return r;
}
