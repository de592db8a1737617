/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are read as the state of pins, or as the pre-images of a file, or refused, in
 * bounded time and within their bounds; with what was accepted, pins can be taken, broken and
 * swept.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/checksum.h"
#include "core/oplog.h"
#include "core/pin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATH "chroma.sqlite3"
#define PRE "00000007-" PATH ".pre"
#define STATE_SIZE (PIN_BLOCK + PIN_SLOTS * sizeof(struct pin_slot))
#define MEND 1u	    /* in the last byte: checks are made right, */
#define IS_STATE 2u /* and which of the two files it is */
#define OTHER_BOOT 4u

static char root[] = "/tmp/chromashim-fuzz-XXXXXX";
static int rootfd = -1, pinsfd;

static void remove_directory(void)
{
	unlinkat(pinsfd, "state", 0);
	unlinkat(pinsfd, "lock", 0);
	unlinkat(pinsfd, PRE, 0);
	unlinkat(rootfd, PINS_DIR, AT_REMOVEDIR);
	rmdir(root);
}

static void make_directory(void)
{
	if (!mkdtemp(root))
		abort();
	rootfd = open(root, O_RDONLY | O_DIRECTORY);
	mkdirat(rootfd, PINS_DIR, 0700);
	pinsfd = openat(rootfd, PINS_DIR, O_RDONLY | O_DIRECTORY);
	atexit(remove_directory);
}

static void put(const char *name, const uint8_t *data, size_t size, size_t at_least)
{
	int fd = openat(pinsfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size ||
	    (size < at_least && ftruncate(fd, (off_t)at_least) < 0))
		abort();
	close(fd);
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
	put("state", bytes, size, flags & MEND ? STATE_SIZE : 0);
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

static void mend_pre(uint8_t *bytes, size_t size)
{
	struct pin_file_header h;

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
		mend_pre(bytes, size);
	put(PRE, bytes, size, flags & MEND ? 2 * PIN_BLOCK : 0);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned flags = size ? data[--size] : 0;
	uint8_t *bytes = malloc(size + 1);

	if (rootfd < 0)
		make_directory();
	memcpy(bytes, data, size);
	if (flags & IS_STATE)
		try_state(bytes, size, flags);
	else
		try_pre(bytes, size, flags);
	unlinkat(pinsfd, "state", 0);
	unlinkat(pinsfd, PRE, 0);
	free(bytes);
	return 0;
}
