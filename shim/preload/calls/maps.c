/* SPDX-License-Identifier: MIT
 *
 * Shared maps of protected files: their stores are invisible, so what makes and syncs them is not.
 */
#include "preload/calls/call.h"

#include <stdarg.h>
#include <sys/mman.h>

#include "preload/base/readable.h"
#include "preload/persist/persists.h"

#define MAPS 512

/* Shared maps of protected files; too many are recorded when made and not followed further. */
static struct map {
	_Atomic uint64_t slot; /* 0: free */
	_Atomic uintptr_t start;
	_Atomic uintptr_t end;
} maps[MAPS];
static _Atomic unsigned maps_used; /* entries in use, so that a process without any pays nothing */

static void map_add(union slot s, void *at, size_t size)
{
	int i;

	for (i = 0; i < MAPS; i++) {
		uint64_t free_place = 0;

		if (!atomic_compare_exchange_strong(&maps[i].slot, &free_place, s.all))
			continue;
		atomic_store(&maps[i].start, (uintptr_t)at);
		atomic_store(&maps[i].end, (uintptr_t)at + size);
		atomic_fetch_add(&maps_used, 1);
		return;
	}
}

/* The next map at or after *i that overlaps the range. */
static struct map *map_overlapping(int *i, const void *at, size_t size)
{
	if (!atomic_load_explicit(&maps_used, memory_order_relaxed))
		return NULL;
	for (; *i < MAPS; ++*i) {
		struct map *m = &maps[*i];

		if (atomic_load(&m->slot) && atomic_load(&m->start) < (uintptr_t)at + size &&
		    (uintptr_t)at < atomic_load(&m->end))
			return m;
	}
	return NULL;
}

static void map_drop(struct map *m)
{
	atomic_store(&m->start, 0);
	atomic_store(&m->end, 0);
	atomic_store(&m->slot, 0);
	atomic_fetch_sub(&maps_used, 1);
}

void *do_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
	union slot s = {0};
	struct oplog_claim claim = {.record = NULL};
	void *map;

	if ((flags & MAP_ANONYMOUS) || fd < 0)
		return real.mmap(at, size, prot, flags, fd, offset);
	s = slot_of(fd);
	persist_reading(s);
	if (LIKELY(!slot_protected(s)) || !(flags & MAP_SHARED))
		return real.mmap(at, size, prot, flags, fd, offset);
	if ((prot & PROT_WRITE) && role_in_segment(s.role))
		persist_mapping(fd, s, (uint64_t)offset, size);
	if (prot & PROT_WRITE)
		claim = record_begin(s, OP_MMAP, offset, size, (unsigned)prot);
	map = real.mmap(at, size, prot, flags, fd, offset);
	if (map != MAP_FAILED && (s.writable & SLOT_WRITABLE))
		map_add(s, map, size);
	record_end(claim, map == MAP_FAILED ? -1 : 0);
	return map;
}

int do_munmap(void *at, size_t size)
{
	int ret = real.munmap(at, size), i = 0;
	struct map *m;

	addresses_changed();
	for (; ret == 0 && (m = map_overlapping(&i, at, size)); i++) {
		union slot s = {.all = atomic_load(&m->slot)};

		record_end(record_begin(s, OP_MUNMAP, -1, size, 0), 0);
		if ((uintptr_t)at <= atomic_load(&m->start) &&
		    (uintptr_t)at + size >= atomic_load(&m->end))
			map_drop(m);
	}
	return ret;
}

/* The call and a record for each of our maps in the range. */
static void note(enum oplog_op op, const void *at, size_t size, int arg, int ret)
{
	int i = 0, error = errno;
	struct map *m;
	MAPS_GUARDED;

	for (; (m = map_overlapping(&i, at, size)); i++) {
		union slot s = {.all = atomic_load(&m->slot)};

		oplog_end(record_begin(s, op, -1, size, (unsigned)arg), ret < 0 ? -error : ret);
	}
}

int do_mprotect(void *at, size_t size, int prot)
{
	int ret = real.mprotect(at, size, prot);

	addresses_changed();
	if (prot & PROT_WRITE)
		note(OP_MPROTECT, at, size, prot, ret);
	return ret;
}

int do_msync(void *at, size_t size, int flags)
{
	int ret = real.msync(at, size, flags);

	note(OP_MSYNC, at, size, flags, ret);
	return ret;
}

/* MADV_REMOVE punches a hole into the file. */
int do_madvise(void *at, size_t size, int advice)
{
	int ret = real.madvise(at, size, advice);

	if (advice == MADV_REMOVE)
		note(OP_FALLOCATE, at, size, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, ret);
	return ret;
}

__attribute__((visibility("default"))) void *
entry_mremap(void *at, size_t old_size, size_t new_size, int flags, ...) __asm__("mremap");

/* The fifth argument is there only with MREMAP_FIXED; handing on what is not there is harmless. */
void *entry_mremap(void *at, size_t old_size, size_t new_size, int flags, ...)
{
	va_list args;
	void *wish, *map;
	long r;
	int i = 0;
	struct map *m;

	va_start(args, flags);
	wish = va_arg(args, void *);
	va_end(args);
	r = SYS5(SYS_mremap, at, old_size, new_size, flags, wish);
	if ((unsigned long)r > (unsigned long)-4096) {
		errno = (int)-r;
		return MAP_FAILED;
	}
	map = (void *)r;
	addresses_changed();
	m = map_overlapping(&i, at, old_size);
	if (m) {
		atomic_store(&m->start, (uintptr_t)map);
		atomic_store(&m->end, (uintptr_t)map + new_size);
	}
	return map;
}
