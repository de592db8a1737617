/* SPDX-License-Identifier: MIT
 *
 * The list of shared maps: looked through by a handler of SIGBUS, hence without a lock.
 */
#include "core/base/shared_map.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#include "core/base/sys.h"

/* As many as a process can have of segments that are being persisted, and some. A map that finds
 * no place is used all the same. */
#define MAPS 4608
#define TAKEN 1 /* no address yet */

static struct {
	_Atomic uintptr_t at; /* 0: free */
	_Atomic size_t size;
} maps[MAPS];
static _Atomic unsigned maps_top; /* none is at this place or behind it */

static void raise_top(unsigned to)
{
	unsigned top = maps_top;

	while (top < to && !atomic_compare_exchange_strong(&maps_top, &top, to))
		;
}

static void shared_map_note(void *map, size_t size)
{
	unsigned i;

	for (i = 0; i < MAPS; i++) {
		uintptr_t none = 0;

		if (maps[i].at || !atomic_compare_exchange_strong(&maps[i].at, &none, TAKEN))
			continue;
		maps[i].size = size;
		maps[i].at = (uintptr_t)map;
		raise_top(i + 1);
		return;
	}
}

void *shared_map(size_t size, int prot, int fd)
{
	void *map = sys_mmap(size, prot, MAP_SHARED, fd, 0);

	if (sys_map_failed(map))
		return NULL;
	shared_map_note(map, size);
	return map;
}

void shared_unmap(void *map, size_t size)
{
	unsigned i;

	for (i = 0; i < maps_top; i++)
		if (maps[i].at == (uintptr_t)map) {
			maps[i].at = 0;
			break;
		}
	sys_munmap(map, size);
}

bool shared_map_patch(const void *address)
{
	uintptr_t wanted = (uintptr_t)address;
	unsigned i;

	for (i = 0; i < maps_top; i++) {
		uintptr_t at = maps[i].at;

		if (at <= TAKEN || wanted < at || wanted - at >= maps[i].size)
			continue;
		return !sys_map_failed(
		    (void *)SYS6(SYS_mmap, at, maps[i].size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	}
	return false;
}
