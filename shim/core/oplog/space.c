/* SPDX-License-Identifier: MIT
 *
 * Room in the op log's directory: the oldest segments go, those that no process writes any more.
 *
 * A look at all of the directory costs a system call for each of its files, and every process that
 * changes something makes one. Where there are many, it is looked at now and then: each look makes
 * room ahead, and a small file beside the segments counts how much of that has been used.
 */
#include "core/oplog/space.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/alive.h"
#include "core/base/sys.h"
#include "core/oplog/segments.h"

#define LOOKS_MAX 16	  /* at small segments, whether they may go */
#define FEW_BYTES 4096	  /* of names: so few files are looked at each time */
#define VICTIMS 64	  /* that are found at a time */
#define PASSES 64	  /* over the directory */
#define COUNT_NAME "made" /* since the last look; its size, in units */
#define UNIT (UINT64_C(128) << 10)

/* What a look needs, off the stack. */
struct look {
	char entries[32768] __attribute__((aligned(8)));
	char oldest[VICTIMS][OPLOG_FILE_NAME]; /* in order */
	char soon[OPLOG_NAME_TIME];
	unsigned found;
	unsigned looks;
	uint64_t total;
};

/* 1: a plain segment's name, 2: a compressed one's, 0: neither. */
static int kind_of_name(const char *name)
{
	size_t n = strlen(name), plain = sizeof(OPLOG_SUFFIX) - 1;

	if (n >= OPLOG_FILE_NAME || strspn(name, "0123456789abcdef") != 16 || name[16] != '-')
		return 0;
	if (n > plain && strcmp(name + n - plain, OPLOG_SUFFIX) == 0)
		return 1;
	return n > plain + 4 && strcmp(name + n - plain - 4, OPLOG_SUFFIX ".zst") == 0 ? 2 : 0;
}

/*
 * Whether nobody writes it any more: its process has gone on to the next one, or is gone. What is
 * written now and what is made ready never goes, in whatever process.
 */
static bool is_over(int dirfd, int storefd, const char *name)
{
	struct oplog_header h; /* 1.5 KiB */
	ssize_t n;
	int fd = sys_openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0)
		return false;
	n = sys_pread_all(fd, &h, sizeof(h), 0);
	sys_close(fd);
	if (n != (ssize_t)sizeof(h) || h.magic != OPLOG_MAGIC || h.finished)
		return true;
	if (h.version >= 2 && h.life)
		return alive_is(storefd, h.life) == ALIVE_DEAD;
	return (int)h.pid != sys_getpid() && sys_kill((int)h.pid, 0) == -ESRCH;
}

/* Tells a segment of a process that was killed before it changed anything. */
static bool is_idle_left(int dirfd, int storefd, const char *name, const struct stat *st,
			 unsigned *looks)
{
	uint64_t features = 0;
	int fd;

	if ((size_t)st->st_size != OPLOG_SEGMENT_SIZE(OPLOG_CAPACITY_MIN) ||
	    (*looks)++ >= LOOKS_MAX)
		return false;
	fd = sys_openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	if (sys_pread_all(fd, &features, sizeof(features),
			  offsetof(struct oplog_header, features)) != (ssize_t)sizeof(features))
		features = 0;
	sys_close(fd);
	return (features & OPLOG_IDLE) && is_over(dirfd, storefd, name);
}

/* The oldest that are younger than `after`. */
static void keep_oldest(struct look *l, const char *after, const char *name)
{
	unsigned at = l->found;

	if (*after && oplog_name_compare(name, after, l->soon) <= 0)
		return;
	while (at > 0 && oplog_name_compare(name, l->oldest[at - 1], l->soon) < 0)
		at--;
	if (at == VICTIMS)
		return;
	if (l->found < VICTIMS)
		l->found++;
	memmove(l->oldest[at + 1], l->oldest[at], (l->found - at - 1) * sizeof(l->oldest[0]));
	memcpy(l->oldest[at], name, strlen(name) + 1);
}

/* The size of each counts once, in the first pass. */
static void look_at(struct look *l, int dirfd, int storefd, const char *after, const char *name)
{
	int kind = kind_of_name(name);
	struct stat st;

	if (!kind)
		return;
	if (!*after) {
		if (sys_fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return;
		if (kind == 1 && is_idle_left(dirfd, storefd, name, &st, &l->looks)) {
			sys_unlinkat(dirfd, name, 0);
			return;
		}
		l->total += (uint64_t)st.st_size;
	}
	keep_oldest(l, after, name);
}

/* One pass over the directory, which begins with the n bytes that are there already. */
static void look_at_all(struct look *l, int dirfd, int storefd, const char *after, ssize_t n)
{
	for (; n > 0; n = sys_getdents(dirfd, l->entries, sizeof(l->entries))) {
		const struct linux_dirent64 *d;
		ssize_t at;

		for (at = 0; at < n; at += d->length) {
			d = (const struct linux_dirent64 *)(const void *)(l->entries + at);
			look_at(l, dirfd, storefd, after, d->name);
		}
	}
}

/* Of those found; true: there is room. */
static bool remove_oldest(struct oplog_writer *w, struct look *l, int dirfd, uint64_t size)
{
	unsigned i;

	for (i = 0; i < l->found && l->total + size > w->size_limit; i++) {
		const char *name = l->oldest[i];
		struct stat st;

		if (kind_of_name(name) == 1 && !is_over(dirfd, *w->storefd, name))
			continue;
		if (sys_fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    sys_unlinkat(dirfd, name, 0) < 0)
			continue;
		l->total -= (uint64_t)st.st_size < l->total ? (uint64_t)st.st_size : l->total;
		w->dropped++;
	}
	return l->total + size <= w->size_limit;
}

/* How much may be made between two looks. */
static uint64_t allowance(const struct oplog_writer *w)
{
	return w->size_limit / OPLOG_SHARE / UNIT;
}

/*
 * Many files: whether it is time to look. What is made is counted by those that make it, however
 * many processes they are: the file grows by a byte for each unit. Without it each one looks.
 */
static bool is_due(const struct oplog_writer *w, int dirfd, uint64_t size)
{
	static const char units[64];
	size_t n = (size_t)((size + UNIT - 1) / UNIT);
	struct stat st = {.st_size = 0};
	int fd =
	    sys_openat(dirfd, COUNT_NAME,
		       O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	bool due = true;

	if (fd < 0)
		return true;
	if (sys_write(fd, units, n) == (ssize_t)n && sys_fstat(fd, &st) == 0)
		due = (uint64_t)st.st_size == n || (uint64_t)st.st_size > allowance(w);
	if (due && sys_ftruncate(fd, 0) == 0)
		sys_write(fd, units, n);
	sys_close(fd);
	return due;
}

/* Oldest first, until a new segment of `size` bytes fits, and what is made before the next look. */
void oplog_make_space(struct oplog_writer *w, int dirfd, uint64_t size)
{
	char after[OPLOG_FILE_NAME] = "";
	struct look *l =
	    sys_mmap(sizeof(*l), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned pass;
	ssize_t n;

	if (sys_map_failed(l))
		return;
	oplog_name_soon(l->soon);
	n = sys_getdents(dirfd, l->entries, FEW_BYTES);
	if (n > FEW_BYTES / 2 && !is_due(w, dirfd, size))
		n = 0;
	for (pass = 0; pass < PASSES && n > 0; pass++) {
		l->found = 0;
		look_at_all(l, dirfd, *w->storefd, after, n);
		if (remove_oldest(w, l, dirfd, size + allowance(w) * UNIT) || l->found < VICTIMS ||
		    sys_lseek(dirfd, 0, SEEK_SET) < 0)
			break;
		memcpy(after, l->oldest[VICTIMS - 1], sizeof(after));
		n = sys_getdents(dirfd, l->entries, sizeof(l->entries));
	}
	sys_munmap(l, sizeof(*l));
}
