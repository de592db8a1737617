/* SPDX-License-Identifier: MIT
 *
 * The pages that paths are put together in.
 */
#include "preload/base/scratch.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "core/base/sys.h"

#define PAGES 64

static char pages[PAGES][SCRATCH_SIZE] __attribute__((aligned(SCRATCH_SIZE)));
static _Atomic uint64_t taken; /* a bit for each */

char *scratch_take(void)
{
	uint64_t now = atomic_load_explicit(&taken, memory_order_relaxed);
	void *map;

	while (now != UINT64_MAX) {
		int first = __builtin_ctzll(~now);

		if (atomic_compare_exchange_weak(&taken, &now, now | UINT64_C(1) << first))
			return pages[first];
	}
	map = sys_mmap(SCRATCH_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return sys_map_failed(map) ? NULL : map;
}

void scratch_give(char *const *scratch)
{
	uintptr_t at = (uintptr_t)*scratch - (uintptr_t)pages;

	if (!*scratch)
		return;
	if (at < sizeof(pages))
		atomic_fetch_and(&taken, ~(UINT64_C(1) << at / SCRATCH_SIZE));
	else
		sys_munmap(*scratch, SCRATCH_SIZE);
}
