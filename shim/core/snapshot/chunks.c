/* SPDX-License-Identifier: MIT
 *
 * Storing pieces of files by their content.
 */
#include "core/snapshot/chunks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nettle/sha2.h>
#include <nettle/version.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "core/base/checksum.h"
#include "core/base/fileio.h"
#include "core/snapshot/chunk_sync.h"

#define ZSTD_LEVEL 1
#define SAMPLES 4u /* of a chunk */
#define SAMPLE 3072u
#define SAMPLE_FROM (32u << 10)
#define HEADER sizeof(struct snapshot_chunk)
#define DIGITS (2 * SNAPSHOT_NAME_SIZE)
#define SUFFIX_BAD ".bad"

/* "ab/ab…" */
struct path {
	char text[3 + DIGITS + sizeof(SUFFIX_BAD)];
};

static void path_of(struct path *p, const struct chunk_name *name)
{
	static const char hex[] = "0123456789abcdef";
	unsigned i;

	for (i = 0; i < SNAPSHOT_NAME_SIZE; i++) {
		p->text[3 + 2 * i] = hex[name->bytes[i] >> 4];
		p->text[4 + 2 * i] = hex[name->bytes[i] & 15];
	}
	p->text[0] = p->text[3];
	p->text[1] = p->text[4];
	p->text[2] = '/';
	p->text[3 + DIGITS] = '\0';
}

static bool parse_name(struct chunk_name *out, const char *text)
{
	unsigned i;

	for (i = 0; i < DIGITS; i++) {
		char c = text[i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
						   : -1;

		if (digit < 0)
			return false;
		out->bytes[i / 2] = (unsigned char)(out->bytes[i / 2] << 4 | digit);
	}
	return text[DIGITS] == '\0';
}

bool chunk_is_zero(const struct chunk_name *name)
{
	static const struct chunk_name zero;

	return memcmp(name, &zero, sizeof(zero)) == 0;
}

void chunk_name_of(const void *data, size_t size, struct chunk_name *out)
{
	const unsigned char *p = data;
	struct sha256_ctx context;

	*out = (struct chunk_name){{0}};
	if (size == 0 || (p[0] == 0 && memcmp(p, p + 1, size - 1) == 0))
		return;
	sha256_init(&context);
	sha256_update(&context, size, p);
#if NETTLE_VERSION_MAJOR < 4
	sha256_digest(&context, sizeof(out->bytes), out->bytes);
#else
	sha256_digest(&context, out->bytes);
#endif
}

static uint32_t header_check(const struct snapshot_chunk *h)
{
	return (uint32_t)checksum64(h, offsetof(struct snapshot_chunk, check), 0);
}

static int parse_header(struct snapshot_chunk *h, const void *file, size_t have)
{
	if (have < HEADER)
		return -ENODATA;
	memcpy(h, file, HEADER);
	if (h->magic != SNAPSHOT_CHUNK_MAGIC)
		return -EBADMSG;
	if (h->version > SNAPSHOT_VERSION)
		return -EPROTONOSUPPORT;
	return h->version && h->check == header_check(h) && h->plain <= SNAPSHOT_CHUNK_SIZE
		   ? 0
		   : -EBADMSG;
}

/* ---- the directory ---- */

static int allocate(struct chunks *c)
{
	c->room = HEADER + ZSTD_compressBound(SNAPSHOT_CHUNK_SIZE);
	c->packed = malloc(c->room);
	c->compressor = ZSTD_createCCtx();
	c->decompressor = ZSTD_createDCtx();
	if (c->packed && c->compressor && c->decompressor)
		return 0;
	chunks_close(c);
	return -ENOMEM;
}

static void clear(struct chunks *c)
{
	unsigned i;

	*c = (struct chunks){.dirfd = -1};
	for (i = 0; i < CHUNKS_BATCH; i++)
		c->batch_fd[i] = -1;
}

int chunks_open_beside(struct chunks *c, const struct chunks *of)
{
	clear(c);
	c->dirfd = fcntl(of->dirfd, F_DUPFD_CLOEXEC, 0);
	return c->dirfd < 0 ? -errno : allocate(c);
}

int chunks_open(struct chunks *c, int snapshotsfd, bool make)
{
	int r;

	clear(c);
	if (make && mkdirat(snapshotsfd, CHUNKS_DIR, 0700) < 0 && errno != EEXIST)
		return -errno;
	r = file_open_directory_at(snapshotsfd, CHUNKS_DIR);
	if (r < 0)
		return r;
	c->dirfd = r;
	r = allocate(c);
	if (r < 0)
		return r;
	chunk_sync_doubt_names(c);
	c->sync_is_heard = chunk_sync_is_heard();
	ZSTD_CCtx_setParameter(c->compressor, ZSTD_c_checksumFlag, 1);
	return 0;
}

static void temporary_name(char out[48], unsigned slot)
{
	snprintf(out, 48, ".%d-%u.tmp", (int)getpid(), slot);
}

static void forget_batch(struct chunks *c)
{
	char temporary[48];
	unsigned i;

	for (i = 0; i < c->waiting; i++) {
		if (c->batch_fd[i] < 0) /* it has its name */
			continue;
		close(c->batch_fd[i]);
		c->batch_fd[i] = -1;
		temporary_name(temporary, i);
		unlinkat(c->dirfd, temporary, 0);
	}
	c->waiting = 0;
}

void chunks_close(struct chunks *c)
{
	forget_batch(c);
	ZSTD_freeCCtx(c->compressor);
	ZSTD_freeDCtx(c->decompressor);
	free(c->packed);
	if (c->dirfd >= 0)
		close(c->dirfd);
	*c = (struct chunks){.dirfd = -1};
}

static int open_chunk(struct chunks *c, const struct chunk_name *name, uint64_t *size_out)
{
	struct path path;
	struct stat st;
	int fd;

	path_of(&path, name);
	fd = openat(c->dirfd, path.text, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return -EBADMSG;
	}
	*size_out = (uint64_t)st.st_size;
	return fd;
}

int chunks_stat(struct chunks *c, const struct chunk_name *name, uint64_t *stored_out)
{
	unsigned char start[HEADER];
	struct snapshot_chunk h;
	uint64_t size;
	ssize_t n;
	int fd, r;

	*stored_out = 0;
	if (chunk_is_zero(name))
		return 0;
	fd = open_chunk(c, name, &size);
	if (fd < 0)
		return fd;
	n = file_read_at(fd, start, sizeof(start), 0);
	close(fd);
	if (n < 0)
		return (int)n;
	*stored_out = size;
	r = parse_header(&h, start, (size_t)n);
	if (r < 0)
		return r;
	return size == HEADER + h.stored ? 0 : size < HEADER + h.stored ? -ENODATA : -EBADMSG;
}

bool chunks_has(struct chunks *c, const struct chunk_name *name)
{
	struct path path;
	struct stat st;

	if (chunk_is_zero(name))
		return true;
	path_of(&path, name);
	return fstatat(c->dirfd, path.text, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       st.st_size > (off_t)HEADER;
}

/* ---- writing ---- */

static int name_one(struct chunks *c, unsigned i)
{
	char temporary[48], directory[3];
	struct path path;
	int r;

	path_of(&path, &c->batch[i]);
	temporary_name(temporary, i);
	r = renameat(c->dirfd, temporary, c->dirfd, path.text) < 0 ? -errno : 0;
	if (r == -ENOENT) { /* the first one there */
		snprintf(directory, sizeof(directory), "%.2s", path.text);
		if (mkdirat(c->dirfd, directory, 0700) < 0 && errno != EEXIST)
			return -errno;
		r = renameat(c->dirfd, temporary, c->dirfd, path.text) < 0 ? -errno : 0;
	}
	if (r < 0)
		return r;
	close(c->batch_fd[i]);
	c->batch_fd[i] = -1;
	c->touched[c->batch[i].bytes[0]] = 1;
	return 0;
}

/* Not yet for good: the names' turn is at the end. What it could not name has been said to
 * be stored: nothing may be called flushed any more. */
static int name_batch(struct chunks *c)
{
	unsigned i;
	int r;

	if (!c->waiting)
		return 0;
	r = chunk_sync_mark_names(c);
	if (r == 0)
		r = chunk_sync_batch(c);
	for (i = 0; i < c->waiting && r == 0; i++)
		r = name_one(c, i);
	c->named += c->waiting;
	forget_batch(c);
	c->lost = r < 0 ? r : c->lost;
	return r;
}

int chunks_flush(struct chunks *c)
{
	int r = name_batch(c);

	if (r == 0)
		r = c->lost;
	return r < 0 || !c->marked ? r : chunk_sync_names(c);
}

/* Vectors do not get smaller, and would take as long as all the rest: some of it tells. */
static bool is_worth_it(struct chunks *c, const unsigned char *data, size_t size)
{
	size_t i, step = size / SAMPLES, small = 0;

	if (size < SAMPLE_FROM)
		return true;
	for (i = 0; i < SAMPLES; i++) {
		size_t n = ZSTD_compress2(c->compressor, c->packed, c->room,
					  data + i * step + (step - SAMPLE) / 2, SAMPLE);

		small += ZSTD_isError(n) ? SAMPLE : n;
	}
	return small < SAMPLES * SAMPLE / 8 * 7;
}

static int pack(struct chunks *c, const void *data, size_t size, size_t *packed_out)
{
	struct snapshot_chunk h = {.magic = SNAPSHOT_CHUNK_MAGIC, .version = SNAPSHOT_VERSION};
	size_t n;

	ZSTD_CCtx_setParameter(c->compressor, ZSTD_c_compressionLevel, ZSTD_LEVEL);
	if (!is_worth_it(c, data, size))
		ZSTD_CCtx_setParameter(c->compressor, ZSTD_c_compressionLevel, ZSTD_minCLevel());
	n = ZSTD_compress2(c->compressor, c->packed + HEADER, c->room - HEADER, data, size);
	if (ZSTD_isError(n))
		return -ENOMEM;
	h.plain = (uint32_t)size;
	h.stored = (uint32_t)n;
	h.check = header_check(&h);
	memcpy(c->packed, &h, HEADER);
	*packed_out = HEADER + n;
	return 0;
}

static bool is_waiting(const struct chunks *c, const struct chunk_name *name)
{
	unsigned i;

	for (i = 0; i < c->waiting; i++)
		if (!memcmp(&c->batch[i], name, sizeof(*name)))
			return true;
	return false;
}

static int make_temporary(const struct chunks *c, const char *name)
{
	int fd = openat(c->dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

/* A new file with what is packed: it is in the batch only once it is whole. */
static int write_packed(struct chunks *c, size_t n, const struct chunk_name *name)
{
	char temporary[48];
	int fd, r;

	temporary_name(temporary, c->waiting);
	fd = make_temporary(c, temporary);
	if (fd == -EEXIST) { /* of a dead process, or no file at all */
		unlinkat(c->dirfd, temporary, 0);
		fd = make_temporary(c, temporary);
	}
	if (fd < 0)
		return fd;
	r = file_write_all(fd, c->packed, n);
	if (r < 0) {
		close(fd);
		unlinkat(c->dirfd, temporary, 0);
		return r;
	}
	/* The disk begins now, so that the syncs of the batch wait less. */
	sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	c->batch[c->waiting] = *name;
	c->batch_fd[c->waiting++] = fd;
	c->added_bytes += n;
	return 0;
}

int chunks_put(struct chunks *c, const void *data, size_t size, struct chunk_name *out)
{
	uint64_t stored;
	size_t n;
	int r;

	chunk_name_of(data, size, out);
	if (chunk_is_zero(out))
		return 0;
	if (is_waiting(c, out) || chunks_stat(c, out, &stored) == 0) {
		c->reused++;
		return 0;
	}
	r = pack(c, data, size, &n);
	if (r == 0)
		r = write_packed(c, n, out);
	return r == 0 && c->waiting == CHUNKS_BATCH ? name_batch(c) : r;
}

/* ---- reading ---- */

int chunk_decode(void *decompressor, const void *file, size_t file_size, void *data, size_t size)
{
	struct snapshot_chunk h;
	int r = parse_header(&h, file, file_size);
	size_t n;

	if (r < 0)
		return r;
	if (file_size != HEADER + h.stored)
		return file_size < HEADER + h.stored ? -ENODATA : -EBADMSG;
	if (h.plain != size)
		return -EBADMSG;
	n = ZSTD_decompressDCtx(decompressor, data, size, (const char *)file + HEADER, h.stored);
	if (ZSTD_isError(n))
		return ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation ? -ENOMEM : -EBADMSG;
	return n == size ? 0 : -EBADMSG;
}

static int read_chunk(struct chunks *c, const struct chunk_name *name, size_t *size_out)
{
	uint64_t stored;
	ssize_t n;
	int fd = open_chunk(c, name, &stored);

	if (fd == -ENOENT && c->fetch) {
		fd = c->fetch(c->fetch_context, name);
		fd = fd < 0 ? fd : open_chunk(c, name, &stored);
	}
	if (fd < 0)
		return fd;
	n = stored <= c->room ? file_read_at(fd, c->packed, c->room, 0) : -EBADMSG;
	close(fd);
	*size_out = n < 0 ? 0 : (size_t)n;
	return n < 0 ? (int)n : 0;
}

int chunks_get_file(struct chunks *c, const struct chunk_name *name, void *data, size_t size,
		    const void **file_out, size_t *file_size_out)
{
	struct chunk_name found;
	int r = read_chunk(c, name, file_size_out);

	*file_out = c->packed;
	if (r == 0)
		r = chunk_decode(c->decompressor, c->packed, *file_size_out, data, size);
	if (r < 0)
		return r;
	chunk_name_of(data, size, &found);
	return memcmp(&found, name, sizeof(found)) == 0 ? 0 : -EBADMSG;
}

int chunks_get(struct chunks *c, const struct chunk_name *name, void *data, size_t size)
{
	const void *file;
	size_t file_size;

	if (chunk_is_zero(name)) {
		memset(data, 0, size);
		return 0;
	}
	return chunks_get_file(c, name, data, size, &file, &file_size);
}

int chunks_get_known(struct chunks *c, const struct chunk_name *name, void *data, size_t size)
{
	size_t file_size;
	int r;

	if (chunk_is_zero(name)) {
		memset(data, 0, size);
		return 0;
	}
	r = read_chunk(c, name, &file_size);
	return r < 0 ? r : chunk_decode(c->decompressor, c->packed, file_size, data, size);
}

/* ---- from elsewhere ---- */

int chunks_accept(struct chunks *c, const struct chunk_name *name, const void *file, size_t size)
{
	char directory[3];
	struct path path;
	int fd, r;

	path_of(&path, name);
	snprintf(directory, sizeof(directory), "%.2s", path.text);
	if (mkdirat(c->dirfd, directory, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(c->dirfd, path.text, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		    0600);
	if (fd < 0)
		return -errno;
	r = file_write_all(fd, file, size);
	close(fd);
	return r;
}

void chunks_drop(struct chunks *c, const struct chunk_name *name)
{
	struct path path;

	path_of(&path, name);
	unlinkat(c->dirfd, path.text, 0);
}

int chunks_set_aside(struct chunks *c, const struct chunk_name *name)
{
	struct path from, to;

	path_of(&from, name);
	to = from;
	memcpy(to.text + 3 + DIGITS, SUFFIX_BAD, sizeof(SUFFIX_BAD));
	return renameat(c->dirfd, from.text, c->dirfd, to.text) < 0 ? -errno : 0;
}

/* ---- removing ---- */

struct collection {
	chunks_needed_fn *needed;
	void *context;
	bool dry;
	uint64_t count, bytes;
};

static int collect_file(struct collection *k, int fd, const char *file)
{
	struct chunk_name name;
	struct stat st;

	if (!strcmp(file, CHUNK_SYNC_MARK) ||
	    (parse_name(&name, file) && (!k->needed || k->needed(k->context, &name))))
		return 0;
	if (fstatat(fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(st.st_mode))
		return 0;
	if (!k->dry && unlinkat(fd, file, 0) < 0 && errno != ENOENT)
		return -errno;
	k->count++;
	k->bytes += (uint64_t)st.st_size;
	return 0;
}

/* Takes over fd, and closes it. */
static int collect_directory(struct collection *k, int fd)
{
	DIR *dir;
	const struct dirent *entry;
	int r = file_names_of(fd, &dir);

	while (r == 0 && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			r = collect_file(k, dirfd(dir), entry->d_name);
	if (dir)
		closedir(dir);
	return r;
}

int chunks_collect(struct chunks *c, chunks_needed_fn *needed, void *context, bool dry,
		   uint64_t *count_out, uint64_t *bytes_out)
{
	struct collection k = {.needed = needed, .context = context, .dry = dry};
	char directory[3];
	unsigned i;
	int r, fd = openat(c->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (!dry) {
		forget_batch(c); /* its files would be taken for leftovers */
		c->lost = 0;
	}
	r = fd < 0 ? -errno : collect_directory(&k, fd);
	for (i = 0; i < 256 && r == 0; i++) {
		snprintf(directory, sizeof(directory), "%02x", i);
		fd = file_open_directory_at(c->dirfd, directory);
		if (fd >= 0)
			r = collect_directory(&k, fd);
		else if (fd != -ENOENT)
			r = fd;
	}
	*count_out = k.count;
	*bytes_out = k.bytes;
	return r;
}
