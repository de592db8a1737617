/* SPDX-License-Identifier: MIT
 *
 * Which files the last snapshot was made of.
 */
#include "core/snapshot/known.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/filesystem.h"
#include "core/oplog/oplog.h"

#define TRIED 32u	    /* chunks that are read all the same: 4 MiB */
#define TICKS (SECOND / 10) /* ns, many ticks of the slowest clock */
#define SIZE_LIMIT (UINT64_C(64) << 20)
#define HEADER sizeof(struct snapshot_known_header)
#define CHECK sizeof(uint64_t)

/* ---- using it ---- */

/* Of this version and this boot, and whole. */
static bool is_good(const struct snapshot_known_header *h, const char *data, size_t size)
{
	static const uint8_t unknown[16];
	uint8_t boot[16];
	uint64_t check;

	if (h->magic != SNAPSHOT_KNOWN_MAGIC || h->version != SNAPSHOT_KNOWN_VERSION ||
	    size != HEADER + h->count * sizeof(struct snapshot_known) + CHECK)
		return false;
	memcpy(&check, data + size - CHECK, CHECK);
	oplog_boot_id(boot);
	return check == checksum64(data, size - CHECK, h->id) &&
	       memcmp(boot, unknown, sizeof(boot)) != 0 &&
	       memcmp(boot, h->boot_id, sizeof(boot)) == 0;
}

static int read_files(struct known *k, int dirfd, uint64_t *id_out)
{
	struct snapshot_known_header h;
	char *data = NULL;
	size_t size;
	int fd = file_open_at(dirfd, KNOWN_FILE);
	int r = fd < 0 ? fd : file_read_all(fd, SIZE_LIMIT, &data, &size);

	if (fd >= 0)
		close(fd);
	if (r == 0 && size < HEADER)
		r = -ENODATA;
	if (r == 0) {
		memcpy(&h, data, HEADER);
		r = is_good(&h, data, size) ? 0 : -EBADMSG;
	}
	k->files = r == 0 ? calloc(h.count + 1u, sizeof(*k->files)) : NULL;
	if (k->files) {
		memcpy(k->files, data + HEADER, h.count * sizeof(*k->files));
		k->count = h.count;
		*id_out = h.id;
	}
	free(data);
	return r == 0 && !k->files ? -ENOMEM : r;
}

void known_open(struct known *k, const struct snapshot_store *s)
{
	uint64_t id = 0, chunks = 0;
	uint32_t i;

	*k = (struct known){.is_open = false};
	if (read_files(k, s->dirfd, &id) < 0 || manifest_read(s->dirfd, id, &k->manifest) < 0)
		return;
	for (i = 0; i < k->manifest.file_count; i++)
		chunks += manifest_chunk_count(k->manifest.files[i].size);
	k->every = chunks / TRIED + 1;
	k->is_open = k->manifest.header.state == SNAPSHOT_COMPLETE ||
		     k->manifest.header.state == SNAPSHOT_VERIFIED;
}

void known_close(struct known *k)
{
	manifest_free(&k->manifest);
	free(k->files);
	*k = (struct known){.is_open = false};
}

void known_forget(struct known *k, struct snapshot_store *s)
{
	s->contradicted = true;
	unlinkat(s->dirfd, KNOWN_FILE, 0);
	known_close(k);
}

static const struct snapshot_known *find_note(struct known *k, const char *path)
{
	size_t i;

	for (i = 0; i < k->count; i++) {
		size_t at = (k->last + i) % k->count;

		if (strncmp(k->files[at].path, path, sizeof(k->files[at].path)) == 0) {
			k->last = at + 1;
			return &k->files[at];
		}
	}
	return NULL;
}

const struct manifest_file *known_find(struct known *k, const char *path,
				       const struct pin_identity *is)
{
	const struct snapshot_known *n = k->is_open ? find_note(k, path) : NULL;
	const struct manifest_file *f;

	if (!n || n->size != (uint64_t)is->size || n->dev != is->dev || n->ino != is->ino ||
	    n->birth != is->birth || n->changed != is->changed)
		return NULL;
	f = manifest_find(&k->manifest, path);
	return f && f->size == n->size ? f : NULL;
}

/* The snapshots' numbers lead through all of them. */
bool known_is_tried(const struct known *k, const struct manifest_file *f, uint64_t i)
{
	uint64_t place = (uint64_t)(f - k->manifest.files) * 7 + i;

	return place % k->every == k->manifest.header.id % k->every;
}

/* ---- noting it ---- */

static bool tells_of_changes(int fd)
{
	struct statfs fs;
	const struct filesystem *known =
	    fstatfs(fd, &fs) == 0 ? filesystem_find((uint64_t)fs.f_type) : NULL;

	return known && known->changes;
}

static bool write_out(int fd)
{
	return sync_file_range(fd, 0, 0,
			       SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				   SYNC_FILE_RANGE_WAIT_AFTER) == 0;
}

/* A time of whole seconds is that of an inode with no room for more. */
static bool is_old_enough(const struct pin_identity *was, uint64_t at)
{
	return was->birth && was->changed > 0 && was->changed % (int64_t)SECOND != 0 &&
	       (uint64_t)was->changed + TICKS < at;
}

static bool is_same(const struct pin_identity *a, const struct pin_identity *b)
{
	return a->size == b->size && a->dev == b->dev && a->ino == b->ino && a->birth == b->birth &&
	       a->changed == b->changed;
}

bool known_settle(int dirfd, const char *path, const struct pin_identity *was, uint64_t at)
{
	struct pin_identity is;
	int fd;
	bool fine;

	if (!is_old_enough(was, at) || pin_identify(dirfd, path, &is) < 0 || !is_same(was, &is))
		return false;
	fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	fine = fd >= 0 && tells_of_changes(fd) && write_out(fd);
	if (fd >= 0)
		close(fd);
	return fine;
}

int known_note(struct known_notes *n, const char *path, const struct pin_identity *is)
{
	struct snapshot_known *more;

	if (strlen(path) >= sizeof(more->path))
		return 0;
	more = reallocarray(n->files, n->count + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	n->files = more;
	more[n->count] = (struct snapshot_known){.size = (uint64_t)is->size,
						 .dev = is->dev,
						 .ino = is->ino,
						 .birth = is->birth,
						 .changed = is->changed};
	strcpy(more[n->count++].path, path);
	return 0;
}

static int write_all(int fd, struct snapshot_known_header *h, const struct known_notes *n)
{
	size_t size = HEADER + n->count * sizeof(*n->files);
	char *data = malloc(size + CHECK);
	uint64_t check;
	int r;

	if (!data)
		return -ENOMEM;
	memcpy(data, h, HEADER);
	if (n->count)
		memcpy(data + HEADER, n->files, size - HEADER);
	check = checksum64(data, size, h->id);
	memcpy(data + size, &check, CHECK);
	r = file_write_all(fd, data, size + CHECK);
	free(data);
	return r;
}

/* Not synced: it holds for this boot. */
void known_write(const struct snapshot_store *s, uint64_t id, const struct known_notes *n)
{
	struct snapshot_known_header h = {.magic = SNAPSHOT_KNOWN_MAGIC,
					  .version = SNAPSHOT_KNOWN_VERSION,
					  .count = (uint32_t)n->count,
					  .id = id};
	struct file_publish file;
	int r = file_publish_begin(&file, s->dirfd, KNOWN_FILE, 0600);

	oplog_boot_id(h.boot_id);
	if (r < 0)
		return;
	r = write_all(file.fd, &h, n);
	if (r == 0)
		file_publish_commit_unsynced(&file);
	else
		file_publish_abort(&file);
}

void known_notes_free(struct known_notes *n)
{
	free(n->files);
	*n = (struct known_notes){NULL, 0};
}
