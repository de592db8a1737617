/* SPDX-License-Identifier: MIT
 *
 * Asking the kernel whether an address can be read: rt_sigprocmask() with an operation that there
 * is not copies the set that it is given, and fails. What it says of a page is believed for a
 * second, and until something is unmapped.
 */
#include "preload/base/readable.h"

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "core/base/sys.h"

#define PAGE ((uintptr_t)4096) /* or larger ones, of which each part is asked for */
#define WORD ((uintptr_t)8)    /* the kernel's set of signals */
#define NO_OPERATION 99
#define KNOWN 128
#define ENTRY_MAX ((size_t)131072) /* of an environment, as the kernel has it */

static _Atomic uint64_t known[KNOWN][2]; /* the last two pages of each number, the last one first */
static _Atomic uint32_t changes;

void addresses_changed(void)
{
	atomic_fetch_add_explicit(&changes, 1, memory_order_relaxed);
}

/* The second and the changes, in the bits that no page's number has. */
static uint64_t moment(void)
{
	struct timespec now = {0, 0};

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return ((uint64_t)now.tv_sec * UINT64_C(0x9e3779b9) + atomic_load(&changes)) << 44;
}

static bool page_is_readable(uintptr_t page, uint64_t when)
{
	_Atomic uint64_t *entries = known[page / PAGE % KNOWN];
	uint64_t key = (page / PAGE & (UINT64_MAX >> 20)) | when | UINT64_C(1) << 63;
	uint64_t last = atomic_load_explicit(&entries[0], memory_order_relaxed);

	if (last == key || atomic_load_explicit(&entries[1], memory_order_relaxed) == key)
		return true;
	if (SYS4(SYS_rt_sigprocmask, NO_OPERATION, page, NULL, WORD) == -EFAULT)
		return false;
	atomic_store_explicit(&entries[1], last, memory_order_relaxed);
	atomic_store_explicit(&entries[0], key, memory_order_relaxed);
	return true;
}

static bool range_is_readable(uintptr_t at, size_t n, uint64_t when)
{
	uintptr_t page = at & ~(PAGE - 1), last = (at + n - 1) & ~(PAGE - 1);

	if (!n)
		return true;
	if (at < PAGE || at + n < at || (intptr_t)(at + n) < 0)
		return false;
	for (; page <= last; page += PAGE)
		if (!page_is_readable(page, when))
			return false;
	return true;
}

bool address_is_readable(const void *at, size_t n)
{
	return range_is_readable((uintptr_t)at, n, moment());
}

static bool text_within(const char *text, size_t most, uint64_t when)
{
	size_t done = 0;

	while (done < most) {
		size_t room = PAGE - ((uintptr_t)(text + done) & (PAGE - 1));

		if (!range_is_readable((uintptr_t)(text + done), 1, when))
			return false;
		if (memchr(text + done, '\0', room))
			return true;
		done += room;
	}
	return false;
}

bool text_is_readable(const char *text)
{
	return text_within(text, PATH_MAX, moment());
}

bool list_is_readable(char *const *list)
{
	uint64_t when = moment();

	for (;; list++) {
		if (!range_is_readable((uintptr_t)list, sizeof(*list), when))
			return false;
		if (!*list)
			return true;
		if (!text_within(*list, ENTRY_MAX, when))
			return false;
	}
}

bool vector_is_readable(const struct iovec *iov, int count)
{
	uint64_t when = moment();
	int i;

	if (count < 0 || count > IOV_MAX ||
	    !range_is_readable((uintptr_t)iov, (size_t)count * sizeof(*iov), when))
		return false;
	for (i = 0; i < count; i++)
		if (!range_is_readable((uintptr_t)iov[i].iov_base, iov[i].iov_len, when))
			return false;
	return true;
}
