/* SPDX-License-Identifier: MIT
 *
 * The op log: what both sides of the format share, and what names a process in it.
 */
#include <string.h>
#include <time.h>

#include "core/base/checksum.h"
#include "core/base/clock.h"
#include "core/base/number.h"
#include "core/base/sys.h"
#include "core/oplog/oplog.h"

uint32_t oplog_slot_check(const void *slot, uint32_t index)
{
	return checksum32_nonzero((const char *)slot + sizeof(uint32_t),
				  OPLOG_SLOT_SIZE - sizeof(uint32_t), index);
}

uint64_t oplog_header_check(const struct oplog_header *header)
{
	uint64_t life = header->version < 2 ? 0 : header->life;

	return checksum64(header, offsetof(struct oplog_header, check), OPLOG_MAGIC ^ life);
}

const char *oplog_op_name(unsigned op)
{
	switch (op) {
#define X(number, name, text) \
	case number:          \
		return text;
		OPLOG_OPS(X)
#undef X
	}
	return NULL;
}

uint64_t oplog_now(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

void oplog_name_soon(char soon[OPLOG_NAME_TIME])
{
	uint64_t from = clock_read(CLOCK_REALTIME) + CLOCK_STEP;

	*number_put(soon, soon + OPLOG_NAME_TIME, from, 16, 16) = '\0';
}

int oplog_name_compare(const char *a, const char *b, const char *soon)
{
	bool a_ahead = strcmp(a, soon) > 0, b_ahead = strcmp(b, soon) > 0;

	return a_ahead != b_ahead ? b_ahead - a_ahead : strcmp(a, b);
}

static void read_small_file(const char *path, char *buf, size_t size)
{
	int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	ssize_t n = fd < 0 ? 0 : sys_read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		sys_close(fd);
}

/* Field 22; the second field is in parentheses and may hold anything. */
uint64_t oplog_start_ticks(const char *stat_path)
{
	char buf[1024];
	const char *p;
	uint64_t ticks = 0;
	int field;

	read_small_file(stat_path, buf, sizeof(buf));
	p = strrchr(buf, ')');
	for (field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	for (p = p ? p + 1 : ""; *p >= '0' && *p <= '9'; p++)
		ticks = ticks * 10 + (uint64_t)(*p - '0');
	return ticks;
}

void oplog_boot_id(uint8_t out[16])
{
	char buf[64];
	const char *p;
	int digit = 0;

	read_small_file("/proc/sys/kernel/random/boot_id", buf, sizeof(buf));
	memset(out, 0, 16);
	for (p = buf; *p && digit < 32; p++) {
		int value = *p >= '0' && *p <= '9'   ? *p - '0'
			    : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
						     : -1;

		if (value < 0)
			continue;
		out[digit / 2] = (uint8_t)(out[digit / 2] << 4 | value);
		digit++;
	}
}
