/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are read as an undo file or refused, in bounded time and within their bounds;
 * what it yields lies within the files as they were, and rolling it back changes nothing but the
 * five files of one segment in the directory given.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/undo/rollback.h"
#include "core/undo/rollback_last.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SEGMENT "0a1b2c3d-0000-4000-8000-00000000abcd"
#define NAME SEGMENT "-4000000-1.undo"

static char root[] = "/tmp/chromashim-fuzz-XXXXXX";
static int rootfd = -1, undofd, segmentfd;

static void remove_directory(void)
{
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++)
		unlinkat(segmentfd, undo_file_names[i], 0);
	unlinkat(undofd, "rollback.lock", 0);
	unlinkat(rootfd, SEGMENT, AT_REMOVEDIR);
	unlinkat(rootfd, "undo", AT_REMOVEDIR);
	rmdir(root);
}

static void make_directory(void)
{
	if (!mkdtemp(root))
		abort();
	rootfd = open(root, O_RDONLY | O_DIRECTORY);
	mkdirat(rootfd, "undo", 0700);
	mkdirat(rootfd, SEGMENT, 0700);
	undofd = openat(rootfd, "undo", O_RDONLY | O_DIRECTORY);
	segmentfd = openat(rootfd, SEGMENT, O_RDONLY | O_DIRECTORY);
	atexit(remove_directory);
}

/* The header of version 2 ended behind the files, with its check and a time. */
static uint64_t mend_header(uint8_t *out, bool old)
{
	struct undo_header h;
	const size_t files_end = offsetof(struct undo_header, life);

	memcpy(&h, out, sizeof(h));
	h.magic = UNDO_MAGIC;
	h.version = old ? 2 : UNDO_VERSION;
	h.endian = UNDO_ENDIAN;
	h.header_size = old ? UNDO_HEADER_SIZE_2 : UNDO_HEADER_SIZE;
	h.pid = 4000000;
	h.number = 1;
	h.ended = 0;
	strcpy(h.segment, SEGMENT);
	h.check = checksum64(&h, offsetof(struct undo_header, check), 0);
	memcpy(out, &h, old ? files_end : sizeof(h));
	if (!old)
		return h.check;
	h.check = checksum64(out, files_end, 0);
	memcpy(out + files_end, &h.check, sizeof(h.check));
	memset(out + files_end + sizeof(h.check), 0x7f, sizeof(uint64_t));
	return h.check;
}

/* Checks are made right every other time, or hardly anything would get past them. */
static size_t mend(uint8_t *out, const uint8_t *data, size_t size)
{
	bool old = size && data[size - 1] & 2;
	size_t at = old ? UNDO_HEADER_SIZE_2 : UNDO_HEADER_SIZE;
	uint64_t check;

	memcpy(out, data, size);
	if (size < UNDO_HEADER_SIZE || !(data[size - 1] & 1))
		return size;
	check = mend_header(out, old);
	while (at + sizeof(struct undo_record) <= size) {
		uint64_t seed = check + at;
		struct undo_record r;

		memcpy(&r, out + at, sizeof(r));
		r.length %= 256;
		if (at + sizeof(r) + r.length > size)
			break;
		r.data_check = checksum32_nonzero(out + at + sizeof(r), r.length, seed);
		r.check = checksum32_nonzero(&r.kind, sizeof(r) - sizeof(r.check), seed);
		memcpy(out + at, &r, sizeof(r));
		at += sizeof(r) + ((r.length + 7) & ~7u);
	}
	return size;
}

static void read_all(int fd)
{
	static unsigned char data[UNDO_LENGTH_MAX];
	struct undo_record record;
	struct undo_reader r;

	if (undo_open(&r, fd) < 0)
		return;
	while (undo_next(&r, &record, data) == 0) {
		if (record.kind == UNDO_TENTATIVE)
			continue;
		if (record.file >= UNDO_FILES || record.length > UNDO_LENGTH_MAX)
			abort();
		if (record.offset + record.length > (uint64_t)r.header.files[record.file].size &&
		    record.kind == UNDO_BLOCK_IMAGE)
			abort();
	}
}

/* A file may be as long as its header says, but this is no place for terabytes. */
static int is_huge(const uint8_t *data, size_t size)
{
	struct undo_header h;
	unsigned i;

	if (size < sizeof(h))
		return 0;
	memcpy(&h, data, sizeof(h));
	for (i = 0; i < UNDO_FILES; i++)
		if (h.files[i].size > 1 << 20)
			return 1;
	return 0;
}

/* As what is kept of a persist that is over. */
static void compare(const uint8_t *bytes, size_t size)
{
	struct rollback_last last;
	char name[UNDO_NAME_MAX];
	struct undo_header h;

	if (size < sizeof(h) || is_huge(bytes, size))
		return;
	memcpy(&h, bytes, sizeof(h));
	h.segment[sizeof(h.segment) - 1] = '\0';
	if (strchr(h.segment, '/'))
		return;
	undo_last_name(name, h.segment);
	if (linkat(undofd, NAME, undofd, name, 0) < 0)
		return;
	rollback_last(rootfd, undofd, h.segment, &last);
	rollback_forget_last(rootfd, undofd);
	unlinkat(undofd, name, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rollback rb = {0};
	uint8_t *bytes = malloc(size + 1);
	unsigned i;
	int fd;

	if (rootfd < 0)
		make_directory();
	size = mend(bytes, data, size);
	for (i = 0; i < UNDO_FILES; i++)
		close(openat(segmentfd, undo_file_names[i], O_WRONLY | O_CREAT, 0600));
	fd = openat(undofd, NAME, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
		abort();
	read_all(fd);
	compare(bytes, size);
	rb.rootfd = rootfd;
	rb.undofd = undofd;
	rb.dry = is_huge(bytes, size);
	if (rollback_directory(&rb) < 0)
		abort();
	unlinkat(undofd, NAME, 0);
	unlinkat(undofd, NAME ".damaged", 0);
	unlinkat(undofd, NAME ".foreign", 0);
	close(fd);
	free(bytes);
	return 0;
}
