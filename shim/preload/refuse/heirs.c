/* SPDX-License-Identifier: MIT
 *
 * Who of a family of forked processes has the right to write.
 */
#include "preload/refuse/heirs.h"

#include <sys/mman.h>

#include "preload/base/shim.h"

#define RIGHTS (4096 / sizeof(struct right)) /* in a page */

static struct right *rights;
static size_t rights_used = RIGHTS;

struct right *right_new(struct right *outer, int from)
{
	struct right *r;

	if (rights_used == RIGHTS) {
		void *page =
		    sys_mmap(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		if (sys_map_failed(page))
			return NULL;
		rights = page;
		rights_used = 0;
	}
	r = &rights[rights_used++];
	r->first = shim_pid;
	r->from = from;
	r->outer = outer;
	atomic_store(&r->holder, shim_pid);
	return r;
}

/* What is left of the page is its parent's. */
void heirs_fork(void)
{
	rights_used = RIGHTS;
}

bool heirs_is_first(const struct protection *a)
{
	return a->right && a->right->first == shim_pid;
}

/* As long as it has passed nothing on, the first is like any other writer. */
int heirs_from(const struct protection *a)
{
	if (!a->right)
		return 0;
	return a->right->from + (heirs_holder(a) != a->right->first ? HEIRS_BYTE : 0);
}

int heirs_holder(const struct protection *a)
{
	return atomic_load(&a->right->holder);
}

bool heirs_take(struct protection *a, int from)
{
	return atomic_compare_exchange_strong(&a->right->holder, &from, shim_pid);
}
