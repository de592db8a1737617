/* SPDX-License-Identifier: MIT
 *
 * The table of handles.
 */
#include "preload/sqlite/handles.h"

#define LINES 2048u /* a power of two */
#define KEYS 7
#define TRIES 4 /* lines that a handle may be in */
#define CLAIMED ((uintptr_t)1)

struct line {
	_Atomic uintptr_t key[KEYS]; /* 0: free */
	_Atomic uintptr_t full;	     /* some handle of this line went to the next one */
} __attribute__((aligned(64)));

static struct line lines[LINES];
static struct sqlite_handle values[LINES][KEYS];
_Atomic unsigned sqlite_handles_used;

static unsigned line_of(const void *key)
{
	uint64_t h = (uint64_t)(uintptr_t)key * UINT64_C(0x9e3779b97f4a7c15);

	return (unsigned)(h >> 53); /* 11 bits */
}

_Static_assert(LINES == 1u << (64 - 53), "line_of() gives a line");

static bool locate(const void *key, unsigned *line_out, unsigned *at_out)
{
	unsigned line = line_of(key), try, at;

	for (try = 0; key && try < TRIES; try++, line = (line + 1) % LINES) {
		for (at = 0; at < KEYS; at++)
			if (atomic_load_explicit(&lines[line].key[at], memory_order_acquire) ==
			    (uintptr_t)key) {
				*line_out = line;
				*at_out = at;
				return true;
			}
		if (!atomic_load_explicit(&lines[line].full, memory_order_relaxed))
			return false;
	}
	return false;
}

struct sqlite_handle *sqlite_handle_search(const void *key)
{
	unsigned line, at;

	return locate(key, &line, &at) ? &values[line][at] : NULL;
}

bool sqlite_handle_add(const void *key, const struct sqlite_handle *value)
{
	struct sqlite_handle *known = sqlite_handle_search(key);
	unsigned line = line_of(key), try, at;

	if (known)
		*known = *value;
	for (try = 0; !known && key && try < TRIES; try++, line = (line + 1) % LINES) {
		for (at = 0; at < KEYS; at++) {
			uintptr_t none = 0;

			if (!atomic_compare_exchange_strong(&lines[line].key[at], &none, CLAIMED))
				continue;
			values[line][at] = *value;
			atomic_fetch_add(&sqlite_handles_used, 1);
			atomic_store_explicit(&lines[line].key[at], (uintptr_t)key,
					      memory_order_release);
			return true;
		}
		atomic_store(&lines[line].full, 1);
	}
	return known != NULL;
}

bool sqlite_handle_take(const void *key, struct sqlite_handle *out)
{
	unsigned line, at;

	if (atomic_load_explicit(&sqlite_handles_used, memory_order_relaxed) == 0 ||
	    !locate(key, &line, &at))
		return false;
	*out = values[line][at];
	atomic_store_explicit(&lines[line].key[at], 0, memory_order_release);
	atomic_fetch_sub(&sqlite_handles_used, 1);
	return true;
}
