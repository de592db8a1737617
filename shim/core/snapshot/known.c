/* SPDX-License-Identifier: MIT
 *
 * Which files the last snapshot was made of.
 */
#include "core/snapshot/known.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
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
#define FILE_SIZE sizeof(struct snapshot_known)
#define SUM sizeof(struct checksum128)

/* ---- using it ---- */

/* Of this version, and whole. */
static bool is_good(const struct snapshot_known_header *h, const char *data, size_t size)
{
	uint64_t check;

	if (h->magic != SNAPSHOT_KNOWN_MAGIC || h->version != SNAPSHOT_KNOWN_VERSION ||
	    size < HEADER + CHECK)
		return false;
	memcpy(&check, data + size - CHECK, CHECK);
	return check == checksum64(data, size - CHECK, h->id);
}

static bool is_this_boot(const struct snapshot_known_header *h)
{
	static const uint8_t unknown[16];
	uint8_t boot[16];

	oplog_boot_id(boot);
	return memcmp(boot, unknown, sizeof(boot)) != 0 &&
	       memcmp(boot, h->boot_id, sizeof(boot)) == 0;
}

/* Each file with its sums, up to the check. */
static int parse_files(struct known *k, uint32_t count, size_t size)
{
	size_t at = HEADER, end = size - CHECK;

	k->files = count < end / FILE_SIZE + 1 ? calloc(count + 1u, sizeof(*k->files)) : NULL;
	if (!k->files)
		return -ENOMEM;
	while (k->count < count && end - at >= FILE_SIZE) {
		struct known_file *f = &k->files[k->count];
		uint64_t sums;

		memcpy(&f->is, k->data + at, FILE_SIZE);
		at += FILE_SIZE;
		sums =
		    f->is.size <= SNAPSHOT_SIZE_MAX ? manifest_chunk_count(f->is.size) : UINT64_MAX;
		if (sums > (end - at) / SUM)
			return -EBADMSG;
		f->sums = (const struct checksum128 *)(const void *)(k->data + at);
		at += sums * SUM;
		k->count++;
	}
	return k->count == count && at == end ? 0 : -EBADMSG;
}

static int read_files(struct known *k, int dirfd, struct snapshot_known_header *h)
{
	size_t size;
	int fd = file_open_at(dirfd, KNOWN_FILE);
	int r = fd < 0 ? fd : file_read_all(fd, SIZE_LIMIT, &k->data, &size);

	if (fd >= 0)
		close(fd);
	if (r == 0 && size < HEADER)
		r = -ENODATA;
	if (r < 0)
		return r;
	memcpy(h, k->data, HEADER);
	r = is_good(h, k->data, size) ? parse_files(k, h->count, size) : -EBADMSG;
	k->is_of_this_boot = r == 0 && is_this_boot(h);
	return r;
}

static uint64_t new_seed(void)
{
	uint64_t seed = 0;

	return getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == sizeof(seed)
		   ? seed
		   : clock_read(CLOCK_MONOTONIC);
}

void known_open(struct known *k, struct snapshot_store *s)
{
	struct snapshot_known_header h;
	uint64_t chunks = 0;
	uint32_t i;

	*k = (struct known){.is_open = false};
	s->chunks.sum_seed = new_seed();
	if (read_files(k, s->dirfd, &h) < 0 || manifest_read(s->dirfd, h.id, &k->manifest) < 0)
		return;
	for (i = 0; i < k->manifest.file_count; i++)
		chunks += manifest_chunk_count(k->manifest.files[i].size);
	k->every = chunks / TRIED + 1;
	k->is_open = k->manifest.header.state == SNAPSHOT_COMPLETE ||
		     k->manifest.header.state == SNAPSHOT_VERIFIED;
	if (k->is_open)
		s->chunks.sum_seed = h.seed;
}

void known_close(struct known *k)
{
	manifest_free(&k->manifest);
	free(k->files);
	free(k->data);
	*k = (struct known){.is_open = false};
}

void known_forget(struct known *k, struct snapshot_store *s)
{
	s->contradicted = true;
	unlinkat(s->dirfd, KNOWN_FILE, 0);
	known_close(k);
}

static const struct known_file *find_file(struct known *k, const char *path)
{
	size_t i;

	for (i = 0; k->is_open && i < k->count; i++) {
		size_t at = (k->last + i) % k->count;

		if (strncmp(k->files[at].is.path, path, SNAPSHOT_KNOWN_PATH) == 0) {
			k->last = at + 1;
			return &k->files[at];
		}
	}
	return NULL;
}

const struct manifest_file *known_sums(struct known *k, const char *path,
				       const struct checksum128 **sums_out)
{
	const struct known_file *n = find_file(k, path);
	const struct manifest_file *f = n ? manifest_find(&k->manifest, path) : NULL;

	*sums_out = n ? n->sums : NULL;
	return f && f->size == n->is.size ? f : NULL;
}

const struct manifest_file *known_find(struct known *k, const char *path,
				       const struct pin_identity *is)
{
	const struct known_file *f = k->is_of_this_boot ? find_file(k, path) : NULL;
	const struct snapshot_known *n = f ? &f->is : NULL;
	const struct checksum128 *ignored;

	if (!n || n->size != (uint64_t)is->size || n->dev != is->dev || n->ino != is->ino ||
	    !n->changed || n->birth != is->birth || n->changed != is->changed)
		return NULL;
	return known_sums(k, path, &ignored);
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
	const struct filesystem *known = filesystem_of(fd);

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

/* *next: they come in the same order. */
static void name_file(struct snapshot_known *out, const struct manifest_file *f,
		      const struct known_notes *n, size_t *next)
{
	size_t i;

	*out = (struct snapshot_known){.size = f->size};
	for (i = 0; i < n->count; i++) {
		const struct snapshot_known *note = &n->files[(*next + i) % n->count];

		if (strcmp(note->path, f->path) != 0 || note->size != f->size)
			continue;
		*out = *note;
		*next = *next + i + 1;
		return;
	}
	strcpy(out->path, f->path);
}

static bool fits(const struct manifest_file *f)
{
	return strlen(f->path) < SNAPSHOT_KNOWN_PATH;
}

/* All of it but the check. */
static char *format_files(const struct manifest *m, const struct known_notes *n,
			  struct snapshot_known_header *h, size_t *size_out)
{
	size_t size = HEADER, at = HEADER, next = 0;
	uint32_t i;
	char *data;

	for (i = 0; i < m->file_count; i++)
		size += fits(&m->files[i])
			    ? FILE_SIZE + (size_t)manifest_chunk_count(m->files[i].size) * SUM
			    : 0;
	data = calloc(1, size + CHECK);
	for (i = 0; data && i < m->file_count; i++) {
		const struct manifest_file *f = &m->files[i];
		size_t sums = (size_t)manifest_chunk_count(f->size) * SUM;
		struct snapshot_known is;

		if (!fits(f))
			continue;
		name_file(&is, f, n, &next);
		memcpy(data + at, &is, FILE_SIZE);
		if (f->sums && sums)
			memcpy(data + at + FILE_SIZE, f->sums, sums);
		at += FILE_SIZE + sums;
		h->count++;
	}
	if (data)
		memcpy(data, h, HEADER);
	*size_out = size;
	return data;
}

/* Not synced: it may be lost. */
void known_write(const struct snapshot_store *s, const struct manifest *m,
		 const struct known_notes *n)
{
	struct snapshot_known_header h = {.magic = SNAPSHOT_KNOWN_MAGIC,
					  .version = SNAPSHOT_KNOWN_VERSION,
					  .id = m->header.id,
					  .seed = s->chunks.sum_seed};
	struct file_publish file;
	uint64_t check;
	size_t size;
	char *data;

	oplog_boot_id(h.boot_id);
	data = format_files(m, n, &h, &size);
	if (!data || file_publish_begin(&file, s->dirfd, KNOWN_FILE, 0600) < 0) {
		free(data);
		return;
	}
	check = checksum64(data, size, h.id);
	memcpy(data + size, &check, CHECK);
	if (file_write_all(file.fd, data, size + CHECK) == 0)
		file_publish_commit_unsynced(&file);
	else
		file_publish_abort(&file);
	free(data);
}

void known_notes_free(struct known_notes *n)
{
	free(n->files);
	*n = (struct known_notes){NULL, 0};
}
