/* SPDX-License-Identifier: MIT
 *
 * Undo logs of persist groups: the one writer and the one reader.
 */
#include "core/undo/undo.h"

#include <errno.h>
#include <string.h>

#include "core/base/checksum.h"
#include "core/base/number.h"
#include "core/base/sys.h"
#include "core/base/text.h"

#define TRIES 1000

const char *const undo_file_names[UNDO_FILES] = UNDO_FILE_NAMES;

/* ---- names ---- */

static char *put_text(char *at, const char *end, const char *text)
{
	while (*text && at < end)
		*at++ = *text++;
	*at = '\0';
	return at;
}

void undo_name(char out[UNDO_NAME_MAX], const struct undo_header *h, const char *suffix)
{
	const char *end = out + UNDO_NAME_MAX - 1;
	char *at = put_text(out, end, h->segment);

	at = put_text(at, end, "-");
	at = number_put(at, end, h->pid, 10, 1);
	at = put_text(at, end, "-");
	at = number_put(at, end, h->number, 10, 1);
	put_text(at, end, suffix);
}

void undo_moved_name(char out[UNDO_NAME_MAX], const struct undo_header *h, unsigned file)
{
	char suffix[] = ".0.moved";

	suffix[1] = (char)('0' + file);
	undo_name(out, h, suffix);
}

void undo_last_name(char out[UNDO_NAME_MAX], const char *segment)
{
	const char *end = out + UNDO_NAME_MAX - 1;

	put_text(put_text(out, end, segment), end, UNDO_LAST_SUFFIX);
}

/* ---- both ---- */

static uint32_t record_check(const struct undo_record *r, uint64_t seed)
{
	return checksum32_nonzero(&r->kind, sizeof(*r) - sizeof(r->check), seed);
}

static uint64_t header_check(const struct undo_header *h)
{
	return checksum64(h, offsetof(struct undo_header, check), 0);
}

int undo_sum_pickle(int fd, void *buf, uint64_t *sum)
{
	uint64_t at = 0;
	ssize_t n;

	*sum = 0;
	while ((n = sys_pread_all(fd, buf, UNDO_LENGTH_MAX, at)) > 0) {
		*sum = checksum64(buf, (size_t)n, *sum);
		at += (uint64_t)n;
	}
	return (int)n;
}

static uint64_t padded(uint64_t n)
{
	return (n + 7) & ~UINT64_C(7);
}

/* ---- writing ---- */

int undo_create(struct undo_writer *w, int undofd, struct undo_header *h, bool durable)
{
	unsigned char block[UNDO_HEADER_SIZE];
	char name[UNDO_NAME_MAX];
	struct stat st;
	int tries, r;

	h->magic = UNDO_MAGIC;
	h->version = UNDO_VERSION;
	h->endian = UNDO_ENDIAN;
	h->header_size = UNDO_HEADER_SIZE;
	w->durable = durable;
	for (tries = 0; tries < TRIES; tries++, h->number++) {
		undo_name(name, h, UNDO_SUFFIX);
		w->fd = sys_openat(undofd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
				   durable ? 0600 | S_ISVTX : 0600);
		if (w->fd != -EEXIST)
			break;
	}
	if (w->fd < 0)
		return w->fd;
	r = sys_fstat(w->fd, &st);
	h->dev = r < 0 ? 0 : st.st_dev;
	h->ino = r < 0 ? 0 : st.st_ino;
	h->check = header_check(h);
	memset(block, 0, sizeof(block));
	memcpy(block, h, sizeof(*h));
	w->at = UNDO_HEADER_SIZE;
	w->seed = h->check;
	w->bytes = w->used = 0;
	r = sys_pwrite_all(w->fd, block, sizeof(block), 0);
	if (r < 0) {
		sys_unlinkat(undofd, name, 0);
		sys_close(w->fd);
		w->fd = -1;
	}
	return r;
}

/* Room for a record with `length` bytes of data: where it goes, NULL and *error if there is none.
 */
static unsigned char *room(struct undo_writer *w, uint32_t length, int *error)
{
	uint64_t need = sizeof(struct undo_record) + padded(length);

	*error = 0;
	if (w->used + need > UNDO_BUFFER)
		*error = undo_flush(w);
	return *error ? NULL : w->buffer + w->used;
}

static void undo_finish(struct undo_writer *w, struct undo_record *r)
{
	uint64_t seed = w->seed + w->at + w->used;
	unsigned char *data = w->buffer + w->used + sizeof(*r);

	r->data_check = r->length ? checksum32_nonzero(data, r->length, seed) : 0;
	r->check = record_check(r, seed);
	memcpy(w->buffer + w->used, r, sizeof(*r));
	memset(data + r->length, 0, padded(r->length) - r->length);
	w->used += sizeof(*r) + padded(r->length);
	if (r->kind == UNDO_BLOCK_IMAGE)
		w->bytes += r->length;
}

int undo_save(struct undo_writer *w, unsigned file, int from, uint64_t offset, uint32_t length)
{
	struct undo_record r = {.kind = UNDO_BLOCK_IMAGE, .file = (uint8_t)file, .offset = offset};
	int error;
	unsigned char *at = room(w, length, &error);
	ssize_t n = at ? sys_pread_all(from, at + sizeof(r), length, offset) : error;

	if (n <= 0)
		return (int)n;
	r.length = (uint32_t)n;
	undo_finish(w, &r);
	return 0;
}

int undo_put_data(struct undo_writer *w, enum undo_kind kind, unsigned file, uint64_t offset,
		  const void *data, uint32_t length)
{
	struct undo_record r = {
	    .kind = (uint16_t)kind, .file = (uint8_t)file, .offset = offset, .length = length};
	int error;
	unsigned char *at = room(w, length, &error);

	if (!at)
		return error;
	if (length)
		memcpy(at + sizeof(r), data, length);
	undo_finish(w, &r);
	return 0;
}

int undo_save_bytes(struct undo_writer *w, unsigned file, const void *data, uint64_t offset,
		    uint32_t length)
{
	return undo_put_data(w, UNDO_BLOCK_IMAGE, file, offset, data, length);
}

int undo_put(struct undo_writer *w, enum undo_kind kind, unsigned file, uint64_t offset)
{
	return undo_put_data(w, kind, file, offset, NULL, 0);
}

int undo_complete(const struct undo_writer *w)
{
	static const uint64_t yes = 1;

	return sys_pwrite_all(w->fd, &yes, sizeof(yes), offsetof(struct undo_header, complete));
}

int undo_flush(struct undo_writer *w)
{
	int r;

	if (!w->used)
		return 0;
	r = sys_pwrite_all(w->fd, w->buffer, w->used, w->at);
	if (r < 0)
		return r;
	if (w->durable)
		sys_start_writing(w->fd, w->at, w->used);
	w->at += w->used;
	w->used = 0;
	return 0;
}

/* ---- reading ---- */

static int read_all(int fd, void *out, size_t n, uint64_t at)
{
	ssize_t got = sys_pread_all(fd, out, n, at);

	return got < 0 ? (int)got : (size_t)got < n ? -ENODATA : 0;
}

bool undo_lacks_a_sector(const unsigned char *data, uint64_t length, uint64_t at)
{
	uint64_t from = 0, to;

	for (; from < length; from = to) {
		to = from + UNDO_SECTOR - (at + from) % UNDO_SECTOR;
		to = to < length ? to : length;
		if (bytes_are_zero(data + from, to - from))
			return true;
	}
	return false;
}

static bool is_sound(const struct undo_header *h)
{
	const char *p = h->segment;
	unsigned i;

	/* A plain name: nothing outside the data directory is ever touched. */
	if (!memchr(p, '\0', sizeof(h->segment)) || !*p || *p == '.' || strchr(p, '/'))
		return false;
	for (i = 0; i < UNDO_FILES; i++)
		if (h->files[i].size < -1)
			return false;
	return true;
}

static int check_header(const struct undo_header *h)
{
	return h->check == header_check(h) && h->header_size == UNDO_HEADER_SIZE && is_sound(h)
		   ? 0
		   : -EBADMSG;
}

/* What followed the files then: see the specification. */
static int take_version_2(struct undo_reader *r)
{
	struct undo_header *h = &r->header;
	const size_t files_end = offsetof(struct undo_header, life);
	uint64_t check, touched;

	memcpy(&check, (char *)h + files_end, sizeof(check));
	memcpy(&touched, (char *)h + files_end + sizeof(check), sizeof(touched));
	if (check != checksum64(h, files_end, 0) || h->header_size != UNDO_HEADER_SIZE_2 ||
	    !is_sound(h))
		return -EBADMSG;
	memset((char *)h + files_end, 0, sizeof(*h) - files_end);
	h->check = check; /* its records are seeded with it */
	h->ended = touched == 0;
	r->touched_2 = touched;
	return 0;
}

int undo_open(struct undo_reader *r, int fd)
{
	struct undo_header *h = &r->header;
	struct stat st;
	int error;

	memset(r, 0, sizeof(*r));
	r->fd = fd;
	error = sys_fstat(fd, &st);
	if (error < 0)
		return error;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	r->size = (uint64_t)st.st_size;
	r->durable = st.st_mode & S_ISVTX;
	error = read_all(fd, h, sizeof(*h), 0);
	if (error == -ENODATA && h->magic == UNDO_MAGIC && h->version <= 2 &&
	    r->size >= UNDO_HEADER_SIZE_2)
		error = 0; /* a header was shorter then */
	if (error < 0)
		return error;
	if (r->durable && bytes_are_zero(h, sizeof(*h)))
		return -ENODATA;
	if (h->magic != UNDO_MAGIC || h->endian != UNDO_ENDIAN)
		return -EBADMSG;
	if (h->version > UNDO_VERSION)
		return -EPROTONOSUPPORT;
	error = h->version <= 2 ? take_version_2(r) : check_header(h);
	r->at = r->start = h->version <= 2 ? UNDO_HEADER_SIZE_2 : UNDO_HEADER_SIZE;
	return error;
}

static bool is_in_bounds(const struct undo_header *h, const struct undo_record *r)
{
	uint64_t size;

	if (r->kind == UNDO_TENTATIVE)
		return r->length == 0;
	if (r->file >= UNDO_FILES)
		return false;
	switch (r->kind) {
	case UNDO_LENGTH:
		return r->length == 0 && r->offset <= INT64_MAX;
	case UNDO_WRITTEN:
		return r->length == sizeof(struct undo_written) && r->offset <= INT64_MAX;
	case UNDO_UNKNOWN:
		return r->length == sizeof(uint64_t);
	default:
		break;
	}
	if (h->files[r->file].size < 0)
		return false;
	size = (uint64_t)h->files[r->file].size;
	if (r->kind == UNDO_MOVED)
		return r->length == 0;
	if (r->kind == UNDO_BECOMES)
		return r->length && r->length % sizeof(struct undo_becomes) == 0 &&
		       r->offset % UNDO_GRAIN == 0 && r->offset <= size;
	return r->kind == UNDO_BLOCK_IMAGE && r->length && r->offset <= size &&
	       r->length <= size - r->offset;
}

int undo_next(struct undo_reader *r, struct undo_record *record, void *data)
{
	for (;;) {
		uint64_t seed = r->header.check + r->at;
		int error = read_all(r->fd, record, sizeof(*record), r->at);

		if (error < 0)
			return error;
		if (record->check != record_check(record, seed) || record->length > UNDO_LENGTH_MAX)
			return -ENODATA;
		r->at += sizeof(*record) + padded(record->length);
		if (record->length) {
			error =
			    read_all(r->fd, data, record->length, r->at - padded(record->length));
			if (error < 0)
				return error;
		}
		if (is_in_bounds(&r->header, record) &&
		    (!record->length ||
		     record->data_check == checksum32_nonzero(data, record->length, seed)))
			return 0;
		r->skipped++;
		r->torn +=
		    r->durable && record->length <= UNDO_LENGTH_MAX &&
		    undo_lacks_a_sector(data, record->length, r->at - padded(record->length));
	}
}

bool undo_is_ended(int undofd, const char *name)
{
	struct undo_reader r;
	int fd = sys_openat(undofd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	bool ended;

	if (fd < 0)
		return false;
	ended = undo_open(&r, fd) == 0 && r.header.ended;
	sys_close(fd);
	return ended;
}
