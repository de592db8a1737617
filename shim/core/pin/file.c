/* SPDX-License-Identifier: MIT
 *
 * Pre-image files of pins: the one writer and the one reader.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/checksum.h"
#include "core/base/shared_map.h"
#include "core/base/sys.h"
#include "core/pin/internal.h"

#define SIZE_MAX_PINNED (INT64_C(1) << 40) /* as SNAPSHOT_SIZE_MAX */

static uint64_t header_check(const struct pin_file_header *h)
{
	return checksum64(h, offsetof(struct pin_file_header, check), 0);
}

static uint64_t block_count(int64_t size)
{
	return size > 0 ? ((uint64_t)size + PIN_BLOCK - 1) / PIN_BLOCK : 0;
}

static uint64_t whole_blocks(uint64_t n)
{
	return (n + PIN_BLOCK - 1) / PIN_BLOCK * PIN_BLOCK;
}

static uint64_t image_at(int64_t size)
{
	return PIN_BLOCK + whole_blocks(block_count(size) * sizeof(uint32_t));
}

/* Of a whole block, what is missing at the file's end as zeros. Never 0 or PIN_SUM_BUSY. */
static uint32_t block_sum(const void *block, uint64_t number)
{
	return (uint32_t)checksum64(block, PIN_BLOCK, number) | 3;
}

/* ---- opening ---- */

int pin_file_judge(const struct pin_file_header *h, uint64_t file_size, uint64_t id)
{
	if (h->magic != PIN_FILE_MAGIC || h->endian != PIN_ENDIAN)
		return -EBADMSG;
	if (h->version > PIN_VERSION)
		return -EPROTONOSUPPORT;
	if (h->version != PIN_VERSION || h->check != header_check(h) || h->id != id ||
	    h->size < -1 || h->size > SIZE_MAX_PINNED || h->sums != PIN_BLOCK ||
	    h->image != image_at(h->size) || !memchr(h->path, '\0', sizeof(h->path)) ||
	    file_size < h->image)
		return -EBADMSG;
	return 0;
}

/* What stands before the image. */
static int map_front(struct pin_file *f, const struct pin_file_header *h, int prot)
{
	char *map = shared_map((size_t)h->image, prot, f->fd);

	if (!map)
		return -ENOMEM;
	f->header = (void *)map;
	f->life = (struct pin_file_life *)(void *)(map + PIN_LIFE_AT);
	f->sums = (uint32_t *)(void *)(map + h->sums);
	f->mapped = (size_t)h->image;
	f->id = h->id;
	return 0;
}

static int map_file(struct pin_file *f, uint64_t id, int prot)
{
	struct stat st;
	struct pin_file_header h;
	ssize_t n = sys_pread(f->fd, &h, sizeof(h), 0);
	int r = n < 0 ? (int)n : n < (ssize_t)sizeof(h) ? -EBADMSG : sys_fstat(f->fd, &st);

	if (r == 0)
		r = pin_file_judge(&h, (uint64_t)st.st_size, id);
	return r < 0 ? r : map_front(f, &h, prot);
}

static int open_existing(struct pin_file *f, const struct pins *p, uint64_t id, const char *name,
			 bool write)
{
	int r;

	*f = (struct pin_file){.fd = -1};
	f->fd = sys_openat(p->dirfd, name,
			   (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	if (f->fd < 0)
		return f->fd;
	r = map_file(f, id, write ? PROT_READ | PROT_WRITE : PROT_READ);
	if (r < 0)
		pin_file_close(f);
	return r;
}

int pin_file_open_name(struct pin_file *f, const struct pins *p, uint64_t id, const char *name)
{
	return open_existing(f, p, id, name, true);
}

int pin_file_open_existing(struct pin_file *f, const struct pins *p, uint64_t id, const char *path)
{
	char name[PIN_NAME_MAX];
	int r = pin_file_name(name, id, path, ".pre");

	*f = (struct pin_file){.fd = -1};
	return r < 0 ? r : open_existing(f, p, id, name, true);
}

static void file_describe(struct pin_file_header *h, uint64_t id, int rootfd, const char *path)
{
	struct pin_identity i;

	memset(h, 0, sizeof(*h));
	h->magic = PIN_FILE_MAGIC;
	h->version = PIN_VERSION;
	h->endian = PIN_ENDIAN;
	h->id = id;
	h->size = -1;
	if (pin_identify(rootfd, path, &i) == 0) {
		h->size = i.size;
		h->dev = i.dev;
		h->ino = i.ino;
		h->birth = i.birth;
		h->changed = i.changed;
		h->mtime = i.mtime;
		h->mtime_ns = i.mtime_ns;
		h->mode = i.mode;
	}
	h->sums = PIN_BLOCK;
	h->image = image_at(h->size);
	memcpy(h->path, path, strlen(path));
	h->check = header_check(h);
}

/* Until it is held, what the list of a pin says may be older than this, or younger. */
static bool is_being_taken(const struct pins *p, uint64_t id)
{
	unsigned i;

	for (i = 0; i < PIN_SLOTS; i++)
		if (__atomic_load_n(&p->slots[i].id, __ATOMIC_SEQ_CST) == id &&
		    __atomic_load_n(&p->slots[i].state, __ATOMIC_SEQ_CST) == PIN_TAKING)
			return true;
	return false;
}

/* The header, and what is seen of the file from now on. */
static int put_header(int fd, const struct pin_file_header *h, const struct pin_file_life *life)
{
	unsigned char block[PIN_BLOCK] = {0};

	memcpy(block, h, sizeof(*h));
	memcpy(block + PIN_LIFE_AT, life, sizeof(*life));
	return sys_pwrite_all(fd, block, sizeof(block), 0);
}

/* Room for the sums, which are stored through a map, and the size of it all. */
static int make_room(int fd, const struct pin_file_header *h)
{
	int r;

	if (h->size <= 0)
		return 0; /* there is the header alone */
	r = sys_fallocate(fd, 0, 0, (off_t)h->image);
	if (r == 0 || r == -EOPNOTSUPP)
		r = sys_ftruncate(fd, (off_t)(h->image + (uint64_t)h->size));
	return r;
}

/* Another process may have been quicker. */
static int give_name(const struct pins *p, const char *temporary, const char *name)
{
	int r = sys_rename_new(p->dirfd, temporary, p->dirfd, name);

	if (r == -EINVAL || r == -ENOSYS) /* not this file system, or not this kernel */
		r = sys_linkat(p->dirfd, temporary, p->dirfd, name);
	else if (r == 0)
		return 0;
	sys_unlinkat(p->dirfd, temporary, 0);
	return r;
}

/* Whole under another name first: a reader must never see half a header. -EEXIST: it is there. */
static int make_file(struct pin_file *f, const struct pins *p, uint64_t id, int rootfd,
		     const char *path, const char *name)
{
	char temporary[PIN_NAME_MAX];
	struct pin_file_header h;
	struct pin_file_life life = {.seen = 0};
	int r;

	if (strlen(path) >= sizeof(h.path))
		return -ENAMETOOLONG;
	file_describe(&h, id, rootfd, path);
	life.seen = h.changed;
	life.late = is_being_taken(p, id);
	if (h.size > SIZE_MAX_PINNED)
		return -EFBIG;
	f->fd = pin_temporary(p, temporary);
	if (f->fd < 0)
		return f->fd;
	r = make_room(f->fd, &h);
	if (r == 0)
		r = put_header(f->fd, &h, &life);
	if (r < 0)
		sys_unlinkat(p->dirfd, temporary, 0);
	else
		r = give_name(p, temporary, name);
	if (r == 0) {
		__atomic_fetch_add(&p->state->saved, h.image, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&p->state->generation, 1, __ATOMIC_SEQ_CST);
		r = map_front(f, &h, PROT_READ | PROT_WRITE);
	}
	if (r < 0)
		pin_file_close(f);
	return r;
}

int pin_file_open(struct pin_file *f, const struct pins *p, uint64_t id, int rootfd,
		  const char *path)
{
	char name[PIN_NAME_MAX];
	int r = pin_file_name(name, id, path, ".pre");

	*f = (struct pin_file){.fd = -1};
	if (r < 0)
		return r;
	r = open_existing(f, p, id, name, true);
	if (r != -ENOENT)
		return r;
	r = make_file(f, p, id, rootfd, path, name);
	return r == -EEXIST ? open_existing(f, p, id, name, true) : r;
}

void pin_file_close(struct pin_file *f)
{
	if (f->header)
		shared_unmap((void *)(uintptr_t)f->header, f->mapped);
	if (f->fd >= 0)
		sys_close(f->fd);
	*f = (struct pin_file){.fd = -1};
}

/* ---- saving ---- */

static ssize_t read_block(int fd, unsigned char block[PIN_BLOCK], uint64_t at)
{
	ssize_t have = sys_pread_all(fd, block, PIN_BLOCK, at);

	if (have < 0)
		return have;
	memset(block + have, 0, PIN_BLOCK - (size_t)have);
	return have;
}

/* Bytes of the block that the file had. */
static uint64_t block_length(const struct pin_file *f, uint64_t number)
{
	uint64_t left = (uint64_t)f->header->size - number * PIN_BLOCK;

	return left < PIN_BLOCK ? left : PIN_BLOCK;
}

static int write_image(const struct pin_file *f, const unsigned char *block, uint64_t number)
{
	return sys_pwrite_all(f->fd, block, block_length(f, number),
			      f->header->image + number * PIN_BLOCK);
}

/*
 * Two threads may be here with the same block: as long as its sum is BUSY nobody has overwritten
 * it, so both have read the same, and it does not matter whose image stays. Nobody waits.
 */
static int save_block(const struct pin_file *f, const struct pins *p, int from, uint64_t number)
{
	unsigned char block[PIN_BLOCK];
	uint32_t *sum = &f->sums[number], none = 0;
	uint64_t length;
	ssize_t n;
	int r;

	__atomic_compare_exchange_n(sum, &none, PIN_SUM_BUSY, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
	n = read_block(from, block, number * PIN_BLOCK);
	if (n < 0)
		return (int)n;
	length = block_length(f, number);
	memset(block + length, 0, PIN_BLOCK - length); /* it may have grown since */
	if (__atomic_load_n(sum, __ATOMIC_SEQ_CST) != PIN_SUM_BUSY)
		return 0;
	r = write_image(f, block, number);
	if (r < 0)
		return r;
	__atomic_store_n(sum, block_sum(block, number), __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&p->state->saved, PIN_BLOCK, __ATOMIC_SEQ_CST);
	return 0;
}

static bool is_saved(const struct pin_file *f, uint64_t number)
{
	return __atomic_load_n(&f->sums[number], __ATOMIC_SEQ_CST) > PIN_SUM_BUSY;
}

bool pin_file_has(const struct pin_file *f, uint64_t number)
{
	return number < block_count(f->header->size) && is_saved(f, number);
}

bool pin_file_has_all(const struct pin_file *f)
{
	uint64_t number, count = block_count(f->header->size);

	for (number = 0; number < count && is_saved(f, number); number++)
		;
	return number == count;
}

static bool is_pinned_inode(const struct pin_file *f, int fd)
{
	struct stat st;

	return sys_fstat(fd, &st) == 0 && st.st_ino == f->header->ino &&
	       st.st_dev == f->header->dev;
}

bool pin_file_is_lost(const struct pin_file *f)
{
	return __atomic_load_n(&f->header->magic, __ATOMIC_RELAXED) != PIN_FILE_MAGIC;
}

int pin_file_save(struct pin_file *f, const struct pins *p, int from, uint64_t offset,
		  uint64_t length)
{
	uint64_t size = f->header->size > 0 ? (uint64_t)f->header->size : 0, at, end;
	bool known = false;
	int r = 0;

	if (offset >= size || !length)
		return 0;
	end = length > size - offset ? size : offset + length;
	for (at = offset / PIN_BLOCK; at <= (end - 1) / PIN_BLOCK && r == 0; at++) {
		if (is_saved(f, at))
			continue;
		if (!known && !is_pinned_inode(f, from))
			return 0;
		known = true;
		r = save_block(f, p, from, at);
	}
	return r;
}

int pin_file_keep(const struct pins *p, uint64_t id, int rootfd, const char *path)
{
	char name[PIN_NAME_MAX];
	int r = pin_file_name(name, id, path, ".whole");

	if (r == 0)
		r = sys_linkat(rootfd, path, p->dirfd, name);
	if (r == 0)
		__atomic_fetch_add(&p->state->generation, 1, __ATOMIC_SEQ_CST);
	return r == -EEXIST ? 0 : r; /* it was replaced before: the first one counts */
}

/* ---- reading ---- */

int pin_file_read_open(struct pin_file *f, const struct pins *p, uint64_t id, const char *path)
{
	char name[PIN_NAME_MAX];
	int r = pin_file_name(name, id, path, ".pre");

	*f = (struct pin_file){.fd = -1};
	return r < 0 ? r : open_existing(f, p, id, name, false);
}

int pin_file_read(const struct pin_file *f, uint64_t number, void *block)
{
	uint32_t sum;
	ssize_t n;

	if (number >= block_count(f->header->size))
		return 0;
	sum = __atomic_load_n(&f->sums[number], __ATOMIC_SEQ_CST);
	if (sum <= PIN_SUM_BUSY)
		return 0;
	n = read_block(f->fd, block, f->header->image + number * PIN_BLOCK);
	if (n < 0)
		return (int)n;
	return sum == block_sum(block, number) ? 1 : -EBADMSG;
}
