/* SPDX-License-Identifier: MIT
 *
 * The shim's own voice and its own descriptors, which the host must neither see nor close.
 */
#include "preload/shim.h"

#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>

#include "preload/files.h"
#include "preload/real.h"

#define HIDDEN 256

bool shim_live;
int shim_pid;

static struct {
	_Atomic int fd; /* 0: free. Descriptor 0 is never one of ours */
	int *owner;
} hidden[HIDDEN];

/* What standard error was when the process began, or what the host has put there since. */
static _Atomic uint64_t stderr_dev, stderr_ino; /* ino 0: it was closed */

void shim_stderr_is_now(void)
{
	struct stat st;
	bool open = sys_fstat(2, &st) == 0;

	atomic_store(&stderr_dev, open ? (uint64_t)st.st_dev : 0);
	atomic_store(&stderr_ino, open ? (uint64_t)st.st_ino : 0);
}

/* With standard error closed, the next file to be opened has its number: a socket, the database. */
static bool is_stderr(void)
{
	struct stat st;

	return !slot_protected(slot_of(2)) && sys_fstat(2, &st) == 0 &&
	       (uint64_t)st.st_ino == atomic_load(&stderr_ino) &&
	       (uint64_t)st.st_dev == atomic_load(&stderr_dev);
}

void shim_say(const char *part, ...)
{
	static const char prefix[] = "chromashim: ";
	char line[2048];
	size_t n = sizeof(prefix) - 1;
	va_list parts;

	memcpy(line, prefix, n);
	va_start(parts, part);
	for (; part; part = va_arg(parts, const char *)) {
		size_t length = strlen(part);

		if (length > sizeof(line) - 1 - n)
			length = sizeof(line) - 1 - n;
		memcpy(line + n, part, length);
		n += length;
	}
	va_end(parts);
	line[n++] = '\n';
	if (is_stderr())
		sys_write(2, line, n);
}

/* High, so that hosts that count on low numbers are not met; not so high that the kernel's table
 * of descriptors grows and every fork copies it. */
static int hidden_floor(void)
{
	struct rlimit limit = {1024, 1024};

	SYS4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
	if (limit.rlim_cur > 4096)
		limit.rlim_cur = 4096;
	return limit.rlim_cur > 256 ? (int)limit.rlim_cur - 128 : (int)limit.rlim_cur / 2;
}

static int move_up(int fd)
{
	int high = sys_fcntl(fd, F_DUPFD_CLOEXEC, (unsigned long)hidden_floor());

	return high >= SLOTS ? (sys_close(high), -EMFILE) : high;
}

int hidden_adopt(int fd, int *owner)
{
	union slot s = {.role = ROLE_HIDDEN};
	int high = move_up(fd);
	int i, free_place = 0;

	sys_close(fd);
	if (high < 0)
		return *owner = high;
	for (i = 0; i < HIDDEN; i++) {
		free_place = 0;
		if (atomic_compare_exchange_strong(&hidden[i].fd, &free_place, high)) {
			hidden[i].owner = owner;
			slot_set(high, s);
			return *owner = high;
		}
	}
	sys_close(high);
	return *owner = -EMFILE;
}

static int hidden_index(int fd)
{
	int i;

	for (i = 0; i < HIDDEN; i++)
		if (atomic_load(&hidden[i].fd) == fd)
			return i;
	return -1;
}

void hidden_release(int *owner)
{
	int i = *owner > 0 ? hidden_index(*owner) : -1;

	if (i < 0)
		return;
	slot_clear(*owner);
	atomic_store(&hidden[i].fd, 0);
	sys_close(*owner);
	*owner = -1;
}

void hidden_dodge(int fd)
{
	union slot s = {.role = ROLE_HIDDEN};
	int i = hidden_index(fd);
	int high = i < 0 ? -1 : move_up(fd);

	if (high < 0)
		return;
	atomic_store(&hidden[i].fd, high);
	*hidden[i].owner = high;
	slot_set(high, s);
	slot_clear(fd);
}

int hidden_in_range(unsigned first, unsigned last)
{
	int i, lowest = -1;

	for (i = 0; i < HIDDEN; i++) {
		int fd = atomic_load(&hidden[i].fd);

		if (fd > 0 && (unsigned)fd >= first && (unsigned)fd <= last &&
		    (lowest < 0 || fd < lowest))
			lowest = fd;
	}
	return lowest;
}
