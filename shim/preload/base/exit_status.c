/* SPDX-License-Identifier: MIT */
#include "preload/base/exit_status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* Only glibc has it: the child of a protected host that uses musl gets the preload with its
 * environment, and would not even start if the symbol had to be there. */
extern int on_exit(void (*function)(int, void *), void *arg) __attribute__((weak));

static atomic_int known = -1;

static void note(int status, void *unused)
{
	(void)unused;
	atomic_store(&known, status & 0xff);
}

/* What is registered after the loader's own handler runs before it, and so before our end. */
void exit_status_ask(void)
{
	static atomic_bool asked;

	if (on_exit && !atomic_load_explicit(&asked, memory_order_relaxed) &&
	    !atomic_exchange(&asked, true))
		on_exit(note, NULL);
}

int exit_status(void)
{
	return atomic_load(&known);
}
