/* SPDX-License-Identifier: MIT */
#include "preload/base/slots.h"

#include <sys/mman.h>

#include "core/oplog/oplog.h"

static _Atomic uint64_t first_slots[SLOT_PAGE];
_Atomic uint64_t *_Atomic slot_pages[SLOTS / SLOT_PAGE] = {first_slots};
_Atomic int slots_top;
struct slots_use slots_use[PROTECTIONS];

void *memory_make(size_t size)
{
	void *map = sys_mmap(size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return sys_map_failed(map) ? NULL : map;
}

/* NULL: a number too high, or no memory. */
static _Atomic uint64_t *slot_at(int fd)
{
	_Atomic uint64_t *page;

	if ((unsigned)fd >= SLOTS)
		return NULL;
	page = MADE(slot_pages[fd / SLOT_PAGE], SLOT_PAGE * sizeof(uint64_t));
	return page ? &page[fd % SLOT_PAGE] : NULL;
}

/* A directory with descriptors of the host in it is in use. */
static void count_open(union slot s, int n)
{
	if (slot_protected(s) && atomic_fetch_add(&slots_use[s.protection].open, n) + n == 0)
		atomic_store(&slots_use[s.protection].idle_since, oplog_now());
}

void slot_set(int fd, union slot s)
{
	int top = atomic_load_explicit(&slots_top, memory_order_relaxed);
	_Atomic uint64_t *slot = slot_at(fd);
	union slot old;

	if (!slot)
		return;
	count_open(s, 1);
	old.all = atomic_exchange(slot, s.all);
	count_open(old, -1);
	while (fd >= top && !atomic_compare_exchange_weak(&slots_top, &top, fd + 1))
		;
}

void slot_clear(int fd)
{
	union slot old = {0};

	if (slot_of(fd).all)
		old.all = atomic_exchange(slot_at(fd), 0);
	count_open(old, -1);
}
