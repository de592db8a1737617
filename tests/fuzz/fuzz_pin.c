/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are read as the state of pins, as the pre-images of a file, or as the list of
 * what was pinned with such pre-images, or refused, in bounded time and within their bounds; with
 * what was accepted, pins can be taken, broken and swept. Of a file that is none of those that are
 * told, nothing is called good that is read from the live one.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/oplog/oplog.h"
#include "core/pin/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATH "chroma.sqlite3"
#define PRE "00000007-" PATH ".pre"
#define LIST "00000007-" PIN_LIST
#define STATE_SIZE (PIN_BLOCK + PIN_SLOTS * sizeof(struct pin_slot))
#define MEND 1u	    /* in the last byte: checks are made right, */
#define IS_STATE 2u /* and which of the two files it is */
#define OTHER_BOOT 4u
#define IS_LIST 8u  /* two bytes tell its length, and pre-images follow */
#define IS_REAL 16u /* the file that they tell of is the one that is there */
#define LIVE_SIZE (2 * PIN_BLOCK + 100)

static char root[] = "/tmp/chromashim-fuzz-XXXXXX";
static int rootfd = -1, pinsfd;

static void put(int dirfd, const char *name, const uint8_t *data, size_t size, size_t at_least)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size ||
	    (size < at_least && ftruncate(fd, (off_t)at_least) < 0))
		abort();
	close(fd);
}

static void remove_directory(void)
{
	unlinkat(pinsfd, "state", 0);
	unlinkat(pinsfd, "lock", 0);
	unlinkat(pinsfd, PRE, 0);
	unlinkat(pinsfd, LIST, 0);
	unlinkat(rootfd, PINS_DIR, AT_REMOVEDIR);
	unlinkat(rootfd, PATH, 0);
	rmdir(root);
}

static void make_directory(void)
{
	if (!mkdtemp(root))
		abort();
	rootfd = open(root, O_RDONLY | O_DIRECTORY);
	mkdirat(rootfd, PINS_DIR, 0700);
	pinsfd = openat(rootfd, PINS_DIR, O_RDONLY | O_DIRECTORY);
	put(rootfd, PATH, (const uint8_t *)"live", 4, LIVE_SIZE);
	atexit(remove_directory);
}

static void mend_state(uint8_t *bytes, bool other_boot)
{
	struct pin_header h;

	memcpy(&h, bytes, sizeof(h));
	h.magic = PIN_MAGIC;
	h.version = PIN_VERSION;
	h.endian = PIN_ENDIAN;
	h.slot_size = sizeof(struct pin_slot);
	h.slots = PIN_SLOTS;
	if (!other_boot)
		oplog_boot_id(h.boot_id);
	h.next_id %= UINT64_C(1) << 32;
	h.check = checksum64(&h, offsetof(struct pin_header, check), 0);
	memcpy(bytes, &h, sizeof(h));
}

static void try_state(uint8_t *bytes, size_t size, unsigned flags)
{
	struct pin_request q = {.reason = "manual", .description = "by the fuzzer"};
	struct pin_slot *slot;
	struct pins pins;

	if ((flags & MEND) && size >= sizeof(struct pin_header))
		mend_state(bytes, flags & OTHER_BOOT);
	put(pinsfd, "state", bytes, size, flags & MEND ? STATE_SIZE : 0);
	if (pins_open(&pins, rootfd, true) < 0)
		return;
	pins_any(&pins);
	if (pin_begin(&pins, &q, &slot) == 0) {
		if (pins_epoch(&pins) < slot->id)
			abort();
		pin_hold(slot);
		pin_break(&pins, slot, 5, "broken");
		if (slot->state != PIN_BROKEN || !memchr(slot->detail, '\0', PIN_TEXT))
			abort();
	}
	pins_sweep(&pins);
	pin_break(&pins, NULL, 5, "all");
	if (pins_epoch(&pins))
		abort();
	pins_close(&pins);
}

static void mend_pre(uint8_t *bytes, size_t size, bool is_real)
{
	struct pin_file_header h;
	struct pin_identity is;

	memcpy(&h, bytes, sizeof(h));
	h.magic = PIN_FILE_MAGIC;
	h.version = PIN_VERSION;
	h.endian = PIN_ENDIAN;
	h.id = 7;
	h.size %= (int64_t)size;
	h.sums = PIN_BLOCK;
	h.image = 2 * PIN_BLOCK; /* up to 1024 blocks */
	if (h.size <= 0)
		h.image = PIN_BLOCK;
	if (h.size < -1)
		h.size = -1;
	h.path[PIN_PATH - 1] = '\0';
	if (is_real && pin_identify(rootfd, PATH, &is) == 0) {
		h.dev = is.dev;
		h.ino = is.ino;
		h.birth = is.birth;
		strcpy(h.path, PATH);
	}
	h.check = checksum64(&h, offsetof(struct pin_file_header, check), 0);
	memcpy(bytes, &h, sizeof(h));
}

static void try_pre(uint8_t *bytes, size_t size, unsigned flags)
{
	unsigned char block[PIN_BLOCK];
	struct pins pins = {.dirfd = pinsfd};
	struct pin_file f;
	uint64_t i, count;
	int r;

	if ((flags & MEND) && size >= sizeof(struct pin_file_header))
		mend_pre(bytes, size, flags & IS_REAL);
	put(pinsfd, PRE, bytes, size, flags & MEND ? 2 * PIN_BLOCK : 0);
	if (pin_file_read_open(&f, &pins, 7, PATH) < 0)
		return;
	count = f.header->size > 0 ? ((uint64_t)f.header->size + PIN_BLOCK - 1) / PIN_BLOCK : 0;
	if (f.mapped > 2 * PIN_BLOCK + size)
		abort();
	for (i = 0; i <= count; i++) {
		r = pin_file_read(&f, i, block);
		if (r > 1 || (i == count && r))
			abort();
	}
	pin_file_close(&f);
}

static void mend_list(uint8_t *bytes, size_t size, bool is_real)
{
	struct pin_list_header h = {
	    .magic = PIN_LIST_MAGIC, .version = PIN_VERSION, .endian = PIN_ENDIAN, .id = 7};
	struct pin_list_entry e;
	struct pin_identity is;
	uint64_t i;

	h.count = (size - sizeof(h)) / sizeof(e);
	h.check = checksum64(&h, offsetof(struct pin_list_header, check), 0);
	memcpy(bytes, &h, sizeof(h));
	for (i = 0; i < h.count; i++) {
		memcpy(&e, bytes + sizeof(h) + i * sizeof(e), sizeof(e));
		e.path[PIN_LIST_PATH - 1] = '\0';
		if (i == 0)
			strcpy(e.path, PATH);
		if (i == 0 && is_real && pin_identify(rootfd, PATH, &is) == 0) {
			e.dev = is.dev;
			e.ino = is.ino;
			e.birth = is.birth;
			e.changed = is.changed;
		}
		e.check = checksum64(&e, offsetof(struct pin_list_entry, check), 7 + i);
		memcpy(bytes + sizeof(h) + i * sizeof(e), &e, sizeof(e));
	}
}

static bool is_the_live_one(uint64_t dev, uint64_t ino)
{
	struct pin_identity is;

	return pin_identify(rootfd, PATH, &is) == 0 && is.dev == dev && is.ino == ino;
}

/* Bytes that were not saved are the live file's: that has to be the one that was pinned. */
static void check_judgement(const struct pin_reader *r)
{
	const struct pin_list_entry *e = pin_view_listed(r->view, PATH);
	const struct pin_file *pre = r->layer_count ? &r->layers[0].pre : NULL;
	bool all_saved = pre && pre->header && pin_file_has_all(pre);

	if (r->file.size == 0 || all_saved || strcmp(r->file.path, PATH) != 0)
		return;
	if (pre && pre->header && pre->header->size >= 0
		? !is_the_live_one(pre->header->dev, pre->header->ino)
		: e && !is_the_live_one(e->dev, e->ino))
		abort();
}

static void read_view(struct pin_view *v)
{
	unsigned char block[PIN_BLOCK];
	size_t i;

	for (i = 0; i < v->count; i++) {
		struct pin_reader r;
		uint64_t at;
		int e = pin_reader_open(&r, v, v->files[i].path);

		for (at = 0; e == 0 && at < r.file.size && at < 8 * PIN_BLOCK; at += PIN_BLOCK)
			e = file_source_read(
			    &r.source, block,
			    r.file.size - at < PIN_BLOCK ? r.file.size - at : PIN_BLOCK, at);
		if (e == 0 && pin_reader_judge(&r) == 0)
			check_judgement(&r);
		pin_reader_close(&r);
	}
}

static void try_list(uint8_t *bytes, size_t size, unsigned flags)
{
	struct pin_slot slot = {.state = PIN_HELD, .id = 7, .wal = (flags & OTHER_BOOT) != 0};
	size_t length = size < 2 ? 0 : bytes[0] | (size_t)bytes[1] << 8;
	struct snapshot_trouble trouble;
	uint8_t *pre;
	struct pin_view v;
	struct pins pins;

	if (size < 2 + length)
		return;
	pre = bytes + 2 + length;
	size -= 2 + length;
	if ((flags & MEND) && length >= sizeof(struct pin_list_header))
		mend_list(bytes + 2, length, flags & IS_REAL);
	put(pinsfd, LIST, bytes + 2, length, 0);
	if ((flags & MEND) && size >= sizeof(struct pin_file_header))
		mend_pre(pre, size, flags & IS_REAL);
	if (size)
		put(pinsfd, PRE, pre, size, flags & MEND ? 2 * PIN_BLOCK : 0);
	if (pins_open(&pins, rootfd, true) < 0)
		abort();
	if (pin_view_open(&v, &pins, &slot, rootfd, &trouble) == 0) {
		read_view(&v);
		pin_view_check(&v);
		pin_view_close(&v);
	}
	pins_close(&pins);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned flags = size ? data[--size] : 0;
	uint8_t *bytes = malloc(size + 1);

	if (rootfd < 0)
		make_directory();
	memcpy(bytes, data, size);
	if (flags & IS_LIST)
		try_list(bytes, size, flags);
	else if (flags & IS_STATE)
		try_state(bytes, size, flags);
	else
		try_pre(bytes, size, flags);
	unlinkat(pinsfd, "state", 0);
	unlinkat(pinsfd, PRE, 0);
	unlinkat(pinsfd, LIST, 0);
	free(bytes);
	return 0;
}
